"""Keeps the clips of actions as a model sees them in one file: features, texts, names and what they depend on.

A pack holds no pictures and no paths. The same file, hidden in a folder of own clips, saves encoding them again.

N clips, K actions, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.heads.base import Features
from utils.config.effects import flat
from utils.errors import FeatureStoreError, OwnClipsError
from utils.feature_file import FeatureFile, read_feature_file

FORMAT, CLIP, TEXT = 1, "clip/", "text"


@dataclass(frozen=True, slots=True)
class OwnClip:
    """Holds the facts of one clip: its name without outer folders, content, length in seconds, height and width of its
    pictures, how many different frames were taken, and its action (None: none of them)."""

    name: str
    sha256: str
    seconds: float
    size: tuple[int, int]
    distinct: int
    action: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Holds what a pack file does.

    Args:
        facts: what the features depend on (OwnModel.facts). source: how the model was asked for.
        texts: action to the words that are read for it. clips: in the order of the features' rows.
        features: name to [N, ...], float32 on the CPU. text_KD: of the actions; None: no text is read.
    """

    facts: Mapping[str, Any]
    source: Mapping[str, Any]
    texts: Mapping[str, str]
    clips: Sequence[OwnClip]
    features: Features
    text_KD: Tensor | None

    def save(self, path: Path, more: Mapping[str, Tensor] | None = None) -> None:
        """Write the pack, whole or not at all, and more arrays with it. Raises FeatureStoreError, DiskError."""
        arrays = {**{f"{CLIP}{name}": value for name, value in self.features.items()}, **(more or {})}
        if self.text_KD is not None:
            arrays[TEXT] = self.text_KD
        facts = {"pack": FORMAT, "model": dict(self.facts), "source": dict(self.source), "texts": dict(self.texts),
                 "clips": [asdict(clip) for clip in self.clips]}
        with FeatureFile(path, facts) as file:
            for name, place in file.allocate({name: tuple(value.shape) for name, value in arrays.items()}).items():
                place.copy_(arrays[name])
            file.commit({})


def read_pack(path: Path) -> Pack:
    """Read a pack. Raises OwnClipsError: it is missing, damaged, of a newer format, or no pack."""
    try:
        arrays, facts = read_feature_file(path)
    except FeatureStoreError as error:
        raise OwnClipsError(f"{error}") from error
    if facts.get("pack") != FORMAT:
        found = f"format {facts['pack']}" if "pack" in facts else "stored features of another kind"
        raise OwnClipsError(f"{path}: expected a pack of format {FORMAT}, found {found}"
                            + ("; a newer version of this project reads it" if "pack" in facts else ""))
    clips = [OwnClip(one["name"], one["sha256"], one["seconds"], (one["size"][0], one["size"][1]), one["distinct"],
                     one["action"]) for one in facts["clips"]]
    features = {name.removeprefix(CLIP): torch.from_numpy(value.numpy().copy()) for name, value in arrays.items()
                if name.startswith(CLIP)}
    if not features or any(len(value) != len(clips) for value in features.values()):
        raise OwnClipsError(f"{path}: expected features of {len(clips)} clips, found "
                            f"{ {name: list(value.shape) for name, value in features.items()} }")
    text = arrays.get(TEXT)
    return Pack(facts["model"], facts["source"], facts["texts"], clips, features,
                None if text is None else torch.from_numpy(text.numpy().copy()))


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Say in which facts two models differ; a long value is cut."""
    def short(value: Any) -> str:
        text = str(value)
        return text if len(text) < 60 else f"{text[:57]}..."

    here, there = flat(wanted), flat(found)
    return [f"{name}: {short(there.get(name))} in the pack, {short(here.get(name))} here"
            for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
