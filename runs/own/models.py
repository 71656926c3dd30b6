"""Finds the model that own clips are compared with: a checkpoint's, or a tower that was not trained for few shots.

Nothing is ever put in place of what was asked for: weights that are missing are fetched, or that is an error.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.builder import pixel_settings
from datasets.decoding import choose_decoder
from models.builder import OFFICIAL, FewShotModel, build_head, class_texts, with_encoder
from models.encoders import clip, image, weight_files
from models.encoders.base import Text
from models.heads.base import Features, Head
from models.inference import for_evaluation
from models.registries import HEADS
from runs.evaluation.features import weights_hash
from runs.own.clips import Reading
from utils import checkpoint
from utils.config.effects import settings
from utils.config.fields import PLACE, SCORING, SPEED, TRAINING
from utils.config.layers import POOL
from utils.config.loader import Resolved, resolve_config, resolve_values
from utils.config.options import option_keys, with_options
from utils.config.schema import Config
from utils.config.show import to_dict
from utils.device import choose_device
from utils.errors import ConfigError, OwnClipsError
from utils.json_files import read_json

DEFAULT = "ViT-B/16"
REFERENCE = "reference.json"  # beside a checkpoint: thresholds of its validation classes, by scoring and shots
MEASURED_ON_OTHERS = "24 to 26 % right on 15 real actions, 5 at a time, where guessing gets 20 %"
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Says which model is wanted; without a checkpoint and weights it is CLIP's ViT-B/16, not trained for few shots.

    Args:
        checkpoint: a file of a training. cfg: the YAML it was trained with, where the file does not hold it.
        weights: a tower by name, or a file of one. text: whether class names are read. scoring: None: the head's.
        device: auto, cpu or cuda. overrides: KEY VALUE pairs, alternating. tower: an Encoder.config, of a pack.
    """

    checkpoint: Path | None = None
    cfg: Path | None = None
    weights: str | None = None
    text: bool = True
    scoring: str | None = None
    device: str = "auto"
    overrides: Sequence[str] = ()
    tower: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OwnModel:
    """Holds a model that own clips are compared with.

    Args:
        head: in evaluation mode, on `device`. reader: reads names for it; None: it reads no text.
        scoring: how answers are scored. reading: how clips become its input. device: where it is.
        facts: what features, texts and scores depend on, for packs. name: what it is, in words.
        checkpoint: its file. source: how it was asked for. warnings: what to know before relying on it.
    """

    head: Head
    cfg: Config
    reader: Text | None
    scoring: str
    reading: Reading
    device: torch.device
    facts: Mapping[str, Any]
    name: str
    checkpoint: Path | None
    source: Mapping[str, Any]
    warnings: tuple[str, ...]

    @cached_property
    def encoder(self) -> Head:
        """Gives what encodes clips in the head's place, once the first is to be encoded."""
        return for_evaluation(self.head, self.device, (self.reading.frames, self.reading.pixels.crop))

    @property
    def trained(self) -> bool:
        """Gives whether it was trained for few shots."""
        return self.checkpoint is not None

    def reference(self, shots_K: Sequence[int]) -> float | None:
        """Return the threshold that the checkpoint's own validation classes gave for so many clips of each action.

        None: no test wrote one beside the checkpoint, or not for so few clips.
        """
        if self.checkpoint is None:
            return None
        known = (read_json(self.checkpoint.with_name(REFERENCE)) or {}).get(self.scoring, {})
        fitting = [int(shots) for shots in known if int(shots) <= min(shots_K)]
        return float(known[str(max(fitting))]) if fitting else None

    def placed(self, features: Features) -> Features:
        """Return features on the model's device."""
        return {name: value.to(self.device) for name, value in features.items()}

    def texts(self, names: Sequence[str]) -> Tensor | None:
        """Return the text features [K, D] of words; None where no text is read. Raises WeightsError, ConfigError."""
        if self.reader is None:
            return None
        return class_texts(self.reader, {"own": list(names)}, self.cfg)["own"].to(self.device)


def device_of(name: str) -> torch.device:
    """Return the device of --device. Raises LaunchError where it is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise OwnClipsError(f"--device: expected auto, cpu or cuda, found {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise OwnClipsError("--device cuda: this machine has no CUDA device; expected auto or cpu")
    wanted = name == "cuda" or name == "auto" and torch.cuda.is_available()
    return choose_device(1 if wanted else 0)


def fitting_name(path: Path) -> str:
    """Return the backbone whose weights a file holds, found by their names and shapes.

    Raises WeightsError: the file is missing or holds no weights; OwnClipsError: they are of no backbone known here.
    """
    state = weight_files.read_state(path)
    for kind in (image, clip):
        if name := kind.fitting_name(state):
            return name
    raise OwnClipsError(f"{path}: expected weights of {', '.join((*weight_files.OPENAI, *weight_files.IMAGENET))}, "
                        f"found {len(state)} tensors that fit none of them; a checkpoint of a training goes with "
                        "--checkpoint")


def _of_weights(weights: str | None, overrides: Sequence[str]) -> Resolved:
    """Return the settings of a tower that was not trained for few shots."""
    name, file = weights or DEFAULT, None
    known = {*image.NAMES, *weight_files.OPENAI}
    if name not in known:
        if not Path(name).expanduser().is_file():
            raise OwnClipsError(f"--weights: expected {', '.join(sorted(known))} or a file of one of them, found "
                                f"{name!r}")
        name, file = fitting_name(Path(name)), name
    kind = "own_image" if name in image.NAMES else "own_clip"
    pairs = ["VIDEO.HEAD.BACKBONE_NAME", name, *(["VIDEO.HEAD.BACKBONE_WEIGHTS", file] if file else [])]
    return resolve_config(POOL / "run" / f"{kind}.yaml", [*pairs, *overrides])


def _of_checkpoint(path: Path, cfg: Path | None, state: Mapping[str, Any], overrides: Sequence[str]) -> Resolved:
    """Return the settings of a checkpoint: those of the YAML given, or those that it holds."""
    if cfg is not None:
        return resolve_config(cfg, overrides)
    if not isinstance(state.get("cfg"), str):
        raise OwnClipsError(f"{path}: holds no settings; give the YAML it was trained with: --cfg ...")
    values = json.loads(state["cfg"])
    values.get("DATA", {})["CLASSES"] = None  # a file that need not be here; the names it gave stand under TRAIN
    return resolve_values(values, f"{path}: cfg", overrides)


def _typed(resolved: Resolved, text: bool, has_weights: bool) -> tuple[Config, type[Head]]:
    """Return the configuration with the head's options and weights by name, and the head.

    Args:
        has_weights: a checkpoint gives the tower's weights, so none are fetched but for a text tower that is read.

    Raises ConfigError, RegistryError.
    """
    kind = HEADS[resolved.config.VIDEO.HEAD.NAME]
    resolved, wrong = with_options(resolved, kind.Options)
    if wrong:
        raise ConfigError(wrong)
    cfg = resolved.config
    head = with_encoder(cfg.VIDEO.HEAD)
    if has_weights and not (kind.reads_text and text):
        head = replace(head, BACKBONE_WEIGHTS="random")
    # TRAIN.ONEDNN changes the modules, which may be exported; what encodes here is faster without it.
    return replace(cfg, VIDEO=replace(cfg.VIDEO, HEAD=head), TRAIN=replace(cfg.TRAIN, ONEDNN=False)), kind


def _scoring(head: Head, wanted: str | None) -> str:
    """Return the name of the scoring. Raises OwnClipsError where the head has none of it."""
    known, name = [scoring.name for scoring in head.scorings], wanted or head.headline
    if name not in known:
        raise OwnClipsError(f"--scoring: expected one of {', '.join(known)}, found {name!r}")
    return name


def _name(cfg: Config, head: Head, path: Path | None) -> str:
    """Say in words what the model is."""
    tower = Path(cfg.VIDEO.HEAD.BACKBONE_NAME).name
    if path is not None:
        return f"{head.title} with {tower}, trained for few shots ({path.name})"
    file = cfg.VIDEO.HEAD.BACKBONE_WEIGHTS
    kind = f"weights of {Path(file).name}" if file and file not in OFFICIAL.values() else head.pretraining
    return f"{tower} ({kind}; not trained for few-shot recognition)"


def _facts(cfg: Config, head: Head, kind: type[Head], reading: Reading, text: str | None) -> dict[str, Any]:
    """Return what features and texts depend on: a pack of another model is refused by what differs here."""
    depends_on = settings(to_dict(cfg), TRAINING, SCORING, SPEED, PLACE, more=option_keys(kind.Options))
    own = {name: value for name, value in depends_on.items() if name.startswith("VIDEO.HEAD.OPTIONS.")}
    facts = {"head": cfg.VIDEO.HEAD.NAME, "backbone": Path(cfg.VIDEO.HEAD.BACKBONE_NAME).name, "options": own,
            "weights": weights_hash([head]), "text": text, "prompt": cfg.TEST.PROMPT if text else None,
            "frames": reading.frames, "pixels": asdict(reading.pixels), "decoder": reading.decoder}
    plain: dict[str, Any] = json.loads(json.dumps(facts))  # as a file gives them back
    return plain


def load_model(source: Source) -> OwnModel:
    """Build the model that is wanted, with its weights.

    Raises OwnClipsError, ConfigError, CheckpointError, WeightsError, LaunchError: each names what is missing or wrong.
    """
    device, path, state = device_of(source.device), source.checkpoint, {}
    if path is not None:
        if source.weights is not None:
            raise OwnClipsError("expected --checkpoint or --weights, found both")
        state = checkpoint.read(path)
        resolved = _of_checkpoint(path, source.cfg, state, source.overrides)
    elif source.cfg is not None:
        raise OwnClipsError("--cfg: is for a checkpoint (--checkpoint FILE); without one, KEY VALUE pairs change "
                            "settings")
    else:
        resolved = _of_weights(source.weights, source.overrides)
    cfg, kind = _typed(resolved, source.text, path is not None)
    reads_text = kind.reads_text and source.text
    _say_what_is_fetched(cfg)
    with torch.random.fork_rng(devices=[]):  # random weights, of those who ask for them, are the same in every process
        torch.manual_seed(cfg.RANDOM_SEED)
        head, encoder = build_head(cfg, source.tower)
    if path is not None:
        checkpoint.load_model_state(FewShotModel(head), state["model_state"], path)
    head.eval().to(device)
    reading = Reading(cfg.DATA.NUM_INPUT_FRAMES, pixel_settings(cfg, "test"), choose_decoder(cfg.DATA.DECODER))
    text = encoder.weights if reads_text else None
    return OwnModel(head, cfg, encoder.text if reads_text else None, _scoring(head, source.scoring), reading,
                    device, _facts(cfg, head, kind, reading, text), _name(cfg, head, path),
                    path, _source(source, cfg, encoder.config), _warnings(cfg, path))


def _say_what_is_fetched(cfg: Config) -> None:
    """Tell that published weights are fetched, before that takes its time."""
    head = cfg.VIDEO.HEAD
    name = image.NAMES.get(head.BACKBONE_NAME, head.BACKBONE_NAME)
    if head.BACKBONE_WEIGHTS not in OFFICIAL.values() or name not in (*weight_files.OPENAI, *weight_files.IMAGENET):
        return
    known = weight_files.published(name)
    if not known.path(head.WEIGHTS_DIR).is_file():
        _LOGGER.warning("fetching the weights of %s, once, from %s; nothing else is fetched, and your videos are sent "
                        "nowhere", name, known.address.split("/")[2])


def _source(source: Source, cfg: Config, tower: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a pack says of how its model was asked for; paths are left out."""
    return {"checkpoint": None if source.checkpoint is None else source.checkpoint.name,
            "weights": cfg.VIDEO.HEAD.BACKBONE_NAME, "file": cfg.VIDEO.HEAD.BACKBONE_WEIGHTS not in OFFICIAL.values(),
            "text": source.text, "overrides": list(source.overrides), "tower": tower}


def _warnings(cfg: Config, path: Path | None) -> tuple[str, ...]:
    """Say what to know before relying on a model."""
    if path is not None and cfg.VIDEO.HEAD.BACKBONE_WEIGHTS == "random" and "demo" in cfg.VIDEO.HEAD.BACKBONE_NAME:
        return (f"this model has seen the demo's rendered videos only. Of real videos it knows nothing: "
                f"{MEASURED_ON_OTHERS}",)
    return ()
