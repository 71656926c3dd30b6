"""Answers which of a person's own actions a clip shows, from the clips of each that were learned.

N clips, M queries, K actions.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.heads.base import Alignment
from runs.own.calibration import AS_USUAL, Calibration, HeldOut, Wishes, calibrate, clips_needed
from runs.own.clips import from_array, read_clips
from runs.own.folders import query_clips, words
from runs.own.learning import Encoded, Item, Wanted, encoded, learn_clips, pack_of, stacked
from runs.own.matching import Matcher
from runs.own.models import OwnModel
from runs.own.results import ActionFacts, Answer, Check, Strip
from runs.own.timeline import LEAST_SECONDS, MOST_SECONDS, follow, timeline
from runs.reporting.examples import pixels
from utils.errors import OwnClipsError, VideoDecodeError
from utils.metrics import probabilities

KEEP, KEEP_LONG = 0.9, 0.8
LONG, TRIM, ASPECT = 3.0, 4.0, 1.5  # times the median length: a timeline; too long for an example. Times the aspect


class Actions:
    """Holds the clips of some actions as a model sees them. It never changes; `add` and `without` return another.

    Args:
        model: what sees them. texts: action to the words that are read for it, in the order of the answers.
        learned: the clips of the actions, and of none. text_KD: see OwnModel.texts; None: none are read.
        none_folder: where clips of none would lie, for messages. notes: what was odd about the clips.
        encoded: how many of the clips were encoded for this.
    """

    def __init__(self, model: OwnModel, texts: Mapping[str, str], learned: Sequence[Encoded], text_KD: Tensor | None, *,
                 none_folder: str = "none/", notes: Sequence[str] = (), encoded: int = 0):
        self.model, self.texts, self.none_folder, self.encoded = model, dict(texts), none_folder, encoded
        self.notes, self.text_KD = tuple(notes), text_KD
        self.names = list(self.texts)
        self._calibrations: dict[tuple[Wishes, bool], Calibration] = {}
        self.clips = [one for one in learned if one.clip.action is not None]
        self.of_none = [one for one in learned if one.clip.action is None]
        if missing := [name for name in self.names if name not in {one.clip.action for one in self.clips}]:
            raise OwnClipsError(f"{missing[0]}: expected at least one clip of each action, found none that can be read")

    @cached_property
    def matcher(self) -> Matcher:
        """Gives what scores clips against the actions."""
        labels = torch.tensor([self.names.index(str(one.clip.action)) for one in self.clips], device=self.model.device)
        features = self.model.placed(stacked(self.clips))
        return Matcher(self.model.head, features, labels, self.text_KD, self.model.scoring)

    @cached_property
    def held_out(self) -> HeldOut:
        """Gives the distances of each clip with itself held out."""
        return self.matcher.held_out()

    @cached_property
    def _nearest_of_none(self) -> np.ndarray:
        return self._distances(self.of_none).min(axis=1) if self.of_none else np.zeros(0)

    def _distances(self, clips: Sequence[Encoded]) -> np.ndarray:
        return self.matcher.distances(self.model.placed(stacked(clips)))

    @cached_property
    def median_seconds(self) -> float:
        """Gives the median length of the clips of the actions."""
        return statistics.median(one.clip.seconds for one in self.clips)

    def calibration(self, wishes: Wishes = AS_USUAL, long: bool = False) -> Calibration:
        """Return when an answer is "unknown", in clips or in `long` videos, and how distances become probabilities.

        Raises OwnClipsError where one action has too few clips to say yes or no.
        """
        if (wishes, long) in self._calibrations:  # each answer asks for it
            return self._calibrations[wishes, long]
        found = calibrate(self.held_out, self._nearest_of_none, wishes, KEEP_LONG if long else KEEP,
                          self.model.reference(self.matcher.shots_K))
        if len(self.names) == 1 and found.threshold is None:
            raise OwnClipsError(f"{self.names[0]}: one action needs at least {clips_needed(found.keep)} clips to say "
                                f"yes or no, found {len(self.clips)}; or give a second action")
        self._calibrations[wishes, long] = found
        return found

    def check(self, wishes: Wishes = AS_USUAL) -> Check:
        """Return what the clips say about the answers to come. `print` shows it."""
        held, right = self.held_out, self.held_out.right_n
        said: dict[str, str | None] = {one.clip.name: None for one in self.clips}
        for row, clip in enumerate(held.clips_n):
            said[self.clips[clip].clip.name] = self.names[int(held.distances_nK[row].argmin())]
        facts = tuple(ActionFacts(name, self.texts[name], self.matcher.shots_K[k], int(right[held.labels_n == k].sum()),
                                  int((held.labels_n == k).sum())) for k, name in enumerate(self.names))
        return Check(facts, self.calibration(wishes), self.none_folder, said,
                     (*self.model.warnings, *self.notes, *self._warnings()))

    def _warnings(self) -> list[str]:
        """Say what is odd about the clips."""
        shots = dict(zip(self.names, self.matcher.shots_K, strict=True))
        found = [f"{', '.join(alone)}: one clip, so it cannot be checked; give another"
                 for alone in [[name for name, count in shots.items() if count == 1]] if alone]
        found += [f"{one.clip.name}: {one.clip.seconds:.0f} s, where the median is {self.median_seconds:.1f} s; trim "
                  "it to the action" for one in self.clips if one.clip.seconds > TRIM * self.median_seconds]
        found += [f"{one.clip.name}: {one.clip.distinct} different frames of {self.model.reading.frames}"
                  for one in self.clips if one.clip.distinct < self.model.reading.frames]
        same = {text: [name for name in self.names if self.texts[name] == text] for text in self.texts.values()}
        found += [f"{' and '.join(own)}: read as the same words, {text!r}; actions.yaml can give them others"
                  for text, own in same.items() if len(own) > 1 and self.model.reader is not None]
        return found + [f"{name}: no letter that CLIP's text tower has read much of; give it English words in "
                        "actions.yaml" for name, text in self.texts.items()
                        if self.model.reader is not None and not any(c.isascii() and c.isalpha() for c in text)]

    def answer(self, query: Encoded, wishes: Wishes = AS_USUAL) -> Answer:
        """Return what is said of a clip that was encoded."""
        found, clip = self.calibration(wishes), query.clip
        distances_K = self._distances([query])[0]
        nearest = int(distances_K.argmin())
        margin = None if found.threshold is None else found.threshold - float(distances_K[nearest])
        shares = self._by_name(probabilities(-distances_K / (found.temperature or 1.0), "distance"))
        unknown = margin is not None and margin < 0
        return Answer(clip.name, clip.seconds, None if unknown else self.names[nearest], unknown,
                      self._by_name(distances_K), margin, None if found.temperature is None else shares, shares,
                      query.times, same_as_support=same_clip(self.clips, clip.sha256), notes=tuple(self._odd(query)))

    def _by_name(self, values_K: np.ndarray) -> dict[str, float]:
        return dict(zip(self.names, map(float, values_K), strict=True))

    def _odd(self, query: Encoded) -> list[str]:
        """Say what is odd about a clip that is asked about."""
        (height, width), wanted = query.clip.size, self.model.reading.frames
        aspects = [one.clip.size[1] / one.clip.size[0] for one in self.clips]
        ratio = width / height / statistics.median(aspects)
        notes = [f"shape {width} x {height}, unlike your clips': frames are resized to a square, so it looks different"
                 ] if max(ratio, 1 / ratio) > ASPECT else []
        return notes + ([f"{query.clip.distinct} different frames of {wanted}"] if query.clip.distinct < wanted else [])

    def pictures(self, pixels_TCHW: Tensor) -> np.ndarray:
        """Return the frames that the model's input was made of, uint8 [T, H, W, C]."""
        return pixels(pixels_TCHW, self.model.reading.pixels.mean, self.model.reading.pixels.std)

    def explain(self, query: Encoded) -> Alignment | None:
        """Say how the frames of a clip meet those of each action; None: the method has nothing to draw."""
        return self.matcher.explain(self.model.placed(query.features))

    def is_long(self, seconds: float, wish: str = "auto") -> bool:
        """Return whether a video of so many seconds gets a timeline, `wish` being auto, always or never."""
        if wish not in ("auto", "always", "never"):
            raise OwnClipsError(f"--timeline: expected auto, always or never, found {wish!r}")
        return wish == "always" or wish == "auto" and seconds > LONG * self.median_seconds

    def timeline_answer(self, path: Path, name: str, seconds: float, wishes: Wishes = AS_USUAL,
                        progress: Callable[[float], None] | None = None) -> Answer:
        """Return what is seen in a long video, from when to when. Raises VideoDecodeError."""
        found = timeline(self.model, self.matcher, path, self.names, window=self._window, seconds=seconds,
                         threshold=self.calibration(wishes, long=True).threshold, progress=progress)
        return Answer(name, seconds, segments=found.segments, windows=found.windows)

    @property
    def _window(self) -> float:
        """Gives the length of a window of long videos, seconds."""
        return min(max(self.median_seconds, LEAST_SECONDS), MOST_SECONDS)

    def follow(self, frames: Iterable[tuple[float, np.ndarray]], wishes: Wishes = AS_USUAL) -> Iterator[Strip]:
        """Yield what a running camera shows, window by window (see runs/own/timeline.py).

        Args:
            frames: (seconds, uint8 RGB [H, W, 3]) in order, as they come.
        """
        return follow(self.model, self.matcher, frames, self.names, window=self._window,
                      threshold=self.calibration(wishes, long=True).threshold)

    def predict(self, query: Any, *, fps: float | None = None, wishes: Wishes = AS_USUAL, timeline: str = "auto",
                jobs: int | None = None) -> Any:
        """Return the Answer for a clip, or a list of them for several.

        Args:
            query: a file; a folder of frames; a folder of videos; uint8 RGB [L, H, W, 3]; or a list of these.
            fps: frames a second of pictures in memory. wishes: of the threshold. timeline: auto, always or never.
            jobs: processes that decode.

        A clip that cannot be read has its `error`. Raises OwnClipsError where nothing can be asked about.
        """
        if isinstance(query, np.ndarray):
            clip = from_array(query, fps, self.model.reading)
            return self.answer(encoded(self.model, "array", None, clip), wishes)
        if isinstance(query, (list, tuple)):
            if not query:
                raise OwnClipsError("expected something to ask about, found an empty list")
            return [answer for one in query for answer in _listed(self.predict(
                one, fps=fps, wishes=wishes, timeline=timeline, jobs=jobs))]
        path = Path(query)
        named = named_queries([path])
        found = {path: answer for path, answer, _ in self.answers(named, wishes, timeline, jobs)}
        answers = [found[one] for one in named]
        return answers[0] if list(named) == [path] else answers

    def answers(self, named: Mapping[Path, str], wishes: Wishes = AS_USUAL, timeline: str = "auto",
                jobs: int | None = None) -> Iterator[tuple[Path, Answer, Encoded | None]]:
        """Yield (path, Answer, the clip) of clips, each as soon as it is there; None: one that is read otherwise.

        Args:
            named: path to what it is called.
        """
        self.is_long(0.0, timeline)  # a wrong word is told before anything is decoded
        for path, clip in read_clips(list(named), self.model.reading, jobs, "asking"):
            name = named[path]
            if isinstance(clip, VideoDecodeError):
                yield path, Answer(name, error=clip.reason), None
                continue
            if self.is_long(clip.seconds, timeline):
                try:
                    yield path, self.timeline_answer(path, name, clip.seconds, wishes), None
                except VideoDecodeError as error:
                    yield path, Answer(name, clip.seconds, error=error.reason), None
                continue
            query = encoded(self.model, name, None, clip)
            yield path, self.answer(query, wishes), query

    def add(self, action: str | None, item: Item | str) -> "Actions":
        """Return these actions with one clip more, which alone is encoded; None: of none of them.

        Raises VideoDecodeError where it cannot be read, OwnClipsError where it is there already.
        """
        item = Path(item) if isinstance(item, str) else item
        if action is not None and not action.strip():
            raise OwnClipsError("expected the name of an action, found an empty one")
        name = f"{action or 'none'}/{item.name if isinstance(item, Path) else f'array {len(self.clips)}'}"
        more, errors, _ = learn_clips(self.model, [Wanted(item, name, action)])
        for error in errors.values():
            raise error
        if same := same_clip([*self.clips, *self.of_none], more[0].clip.sha256):
            raise OwnClipsError(f"{name}: the same video as {same}")
        texts = self.texts if action is None or action in self.texts else {**self.texts, action: words(action)}
        return self._with(texts, [*self.clips, *self.of_none, *more])

    def without(self, clip: str) -> "Actions":
        """Return these actions without the clip of that name. Raises OwnClipsError where there is none, or no other."""
        left = [one for one in (*self.clips, *self.of_none) if one.clip.name != clip]
        if len(left) == len(self.clips) + len(self.of_none):
            raise OwnClipsError(f"{clip}: expected the name of one of {len(left)} clips, such as {left[0].clip.name}")
        still = {one.clip.action for one in left}
        return self._with({name: text for name, text in self.texts.items() if name in still}, left)

    def _with(self, texts: Mapping[str, str], learned: Sequence[Encoded]) -> "Actions":
        text_KD = self.text_KD if dict(texts) == self.texts else self.model.texts(list(texts.values()))
        return Actions(self.model, texts, learned, text_KD, none_folder=self.none_folder)

    def save(self, path: str | Path) -> None:
        """Write the actions into one file, a pack: no pictures, no paths. Raises FeatureStoreError, DiskError."""
        text = None if self.text_KD is None else self.text_KD.cpu()
        pack_of(self.model, [*self.clips, *self.of_none], self.texts, text, self.model.source).save(Path(path))


def same_clip(clips: Sequence[Encoded], sha256: str) -> str | None:
    """Return the name of the clip with this content; None: there is none."""
    return next((one.clip.name for one in clips if one.clip.sha256 == sha256), None)


def named_queries(queries: Sequence[Path]) -> dict[Path, str]:
    """Return the clips that queries name, files or folders of them, and what each is called."""
    found: dict[Path, str] = {}
    for query in queries:
        for path in query_clips(query):
            found.setdefault(path, str(path.relative_to(query)) if path != query else path.name)
    return found


def _listed(found: Answer | list[Answer]) -> list[Answer]:
    return found if isinstance(found, list) else [found]
