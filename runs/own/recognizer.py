"""Builds a model once and learns actions from clips, folders and packs; runs/recognizer.py is the door to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runs.own.actions import Actions
from runs.own.folders import NONE, read_actions, words
from runs.own.learning import Encoded, Item, Wanted, cache_file, clips_of, learn_clips
from runs.own.models import OwnModel, Source, load_model
from runs.own.packs import Pack, differences, read_pack
from utils.errors import OwnClipsError

SHOWN = 5


class Recognizer:
    """Holds a model that clips are compared with.

    Args:
        weights: a tower that was not trained for few shots, by name (ViT-B/16, MobileNetV2, ...), or a file of one.
        checkpoint: a file of a training, in place of weights. cfg: its YAML, where the file does not hold its settings.
        device: auto, cpu or cuda. text: whether names are read. scoring: None: the method's own.
        overrides: KEY VALUE pairs, alternating, as on a command line.

    Raises OwnClipsError, ConfigError, CheckpointError, WeightsError, LaunchError.
    """

    def __init__(self, weights: str | None = None, *, checkpoint: str | Path | None = None,
                 cfg: str | Path | None = None, device: str = "auto", text: bool = True, scoring: str | None = None,
                 overrides: Sequence[str] = ()):
        self.model: OwnModel = load_model(Source(
            None if checkpoint is None else Path(checkpoint), None if cfg is None else Path(cfg), weights, text,
            scoring, device, tuple(overrides)))

    @classmethod
    def of(cls, source: Source) -> "Recognizer":
        """Return the recogniser that a Source asks for."""
        made = cls.__new__(cls)
        made.model = load_model(source)
        return made

    @property
    def name(self) -> str:
        """Says what the model is."""
        return self.model.name

    def learn(self, clips: str | Path | Mapping[str, Sequence[Any]], *, none: str = NONE, jobs: int | None = None,
              strict: bool = False, progress: Callable[[float], None] | None = None) -> Actions:
        """Return the actions that some clips show.

        Args:
            clips: a folder with a folder of clips an action; or action to its clips: files, folders of frames, or
                (uint8 RGB [L, H, W, 3], frames a second). A folder keeps what was encoded in its `.cache`.
            none: the name of the folder, or key, with clips of none of the actions.
            jobs: processes that decode. strict: a clip that cannot be read is an error, even if its action has another.
            progress: called after each file that was encoded with the share, up to 1, of those to be encoded; what it
                raises ends this, and what was encoded stays in `.cache`.

        Raises OwnClipsError: no actions, one without a clip, or a video in two of them; VideoDecodeError: an action has
            no clip that can be read, or (`strict`) one cannot be.
        """
        if isinstance(clips, Mapping):
            check_named(clips, none)
            wanted = [Wanted(_item(one), _called(name, one, number), None if name == none else name)
                      for name, own in clips.items() for number, one in enumerate(own)]
            texts = {name: words(name) for name in clips if name != none}
            return self._learned(wanted, texts, none, [], None, jobs, strict, progress)
        root = Path(clips)
        found = read_actions(root, none)
        wanted = [Wanted(path, f"{name}/{path.name}", None if name == none else name)
                  for name, own in {**found.actions, none: found.none}.items() for path in own]
        left = ", ".join(path.name for path in found.skipped[:SHOWN])
        notes = [f"no clips, so left out: {left}" + (f" and {len(found.skipped) - SHOWN} more"
                                                     if len(found.skipped) > SHOWN else "")] if left else []
        return self._learned(wanted, found.texts, f"{root / none}/", notes, cache_file(self.model, root), jobs, strict,
                             progress)

    def _learned(self, wanted: Sequence[Wanted], texts: Mapping[str, str], none_folder: str, notes: list[str],
                 cache: Path | None, jobs: int | None, strict: bool, progress: Callable[[float], None] | None
                 ) -> Actions:
        """Encode clips, and leave out what cannot be read and what is there twice."""
        learned, errors, encoded = learn_clips(self.model, wanted, cache, jobs, "learning", progress)
        readable = {one.clip.action for one in learned}
        for name, error in errors.items():
            action = next(one.action for one in wanted if one.name == name)
            if strict or action is not None and action not in readable:
                raise error
            notes.append(f"{name}: left out: {error.reason}")
        kept: dict[str, Encoded] = {}
        for one in learned:
            first = kept.setdefault(one.clip.sha256, one)
            if first.clip.action != one.clip.action:
                raise OwnClipsError(f"{one.clip.name}: the same video as {first.clip.name}; a video can belong to one "
                                    "action only, so remove one of them")
            if first is not one:
                notes.append(f"{one.clip.name}: the same video as {first.clip.name}, so it is counted once")
        return Actions(self.model, texts, list(kept.values()), self.model.texts(list(texts.values())),
                       none_folder=none_folder, notes=notes, encoded=encoded)

    def load(self, *packs: str | Path) -> Actions:
        """Return the actions of one pack, or of several together. Raises OwnClipsError: one is of another model."""
        return self.joined([(Path(path), read_pack(Path(path))) for path in packs])

    def joined(self, packs: Sequence[tuple[Path, Pack]]) -> Actions:
        """Return the actions of packs that were read (see load)."""
        texts: dict[str, str] = {}
        kept: dict[str, Encoded] = {}
        for path, pack in packs:
            if different := differences(self.model.facts, pack.facts):
                raise OwnClipsError(f"{path}: made with another model than {self.name}: {'; '.join(different[:SHOWN])}")
            texts |= pack.texts
            for one in clips_of(pack):
                kept.setdefault(one.clip.sha256, one)
        return Actions(self.model, texts, list(kept.values()), self.model.texts(list(texts.values())),
                       none_folder="the none/ of clips that a pack is made of")


def check_named(clips: Mapping[str, Sequence[Any]], none: str) -> None:
    """Raise OwnClipsError unless there are actions, each with a name and a clip."""
    if not set(clips) - {none}:
        raise OwnClipsError("expected actions and their clips, such as {'wave': ['a.mp4']}, found none")
    wrong = [name for name, own in clips.items() if not isinstance(name, str) or not name.strip() or not len(own)]
    if wrong:
        raise OwnClipsError(f"{wrong[0]!r}: expected the name of an action and at least one clip of it")


def _item(clip: Any) -> Item:
    """Return a clip of a mapping as a file, or as pictures and their rate."""
    return Path(clip) if isinstance(clip, (str, Path)) else clip


def _called(action: str, clip: Any, number: int) -> str:
    return f"{action}/{Path(clip).name if isinstance(clip, (str, Path)) else f'array {number + 1}'}"


def model_of_packs(paths: Sequence[Path], source: Source) -> tuple[Recognizer, Actions]:
    """Build the model that packs were made with, and return it with their actions.

    Args:
        source: what the user says of the model; where that is nothing, the first pack says it.

    Raises OwnClipsError where a pack was made with a file that only its user has, and it is not given.
    """
    packs = [(path, read_pack(path)) for path in paths]
    path, first = packs[0]
    said: Any = first.source
    if source.checkpoint is None and source.weights is None:
        if said["checkpoint"] is not None or said["file"]:
            what = f"--checkpoint {said['checkpoint']}" if said["checkpoint"] else "--weights FILE"
            raise OwnClipsError(f"{path}: was made with a file that it does not hold; give that file: {what}")
        source = replace(source, weights=said["weights"])
    made = Recognizer.of(replace(source, text=said["text"], tower=said["tower"],
                                 overrides=source.overrides or said["overrides"]))
    return made, made.joined(packs)
