"""Encodes own clips, each once: what a hidden file of their folder holds of the same content is taken from there."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.heads.base import Features
from runs.own.clips import ReadClip, from_array, hashes, read_clips
from runs.own.models import OwnModel
from runs.own.packs import OwnClip, Pack, read_pack
from utils.errors import DiskError, FeatureStoreError, OwnClipsError, VideoDecodeError

CACHE = ".cache"
_LOGGER = logging.getLogger(__name__)
Item = Path | tuple[np.ndarray, float]  # a file or folder of frames, or pictures and how many a second


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Holds a clip's facts, its features (each [1, ...], on the CPU), and when its frames were shown."""

    clip: OwnClip
    features: Features
    times: tuple[float, ...] = ()
    pixels: Tensor | None = None


@torch.inference_mode()
def encode(model: OwnModel, pixels_TCHW: Tensor) -> Features:
    """Return what the head keeps of one clip, each [1, ...], float32 on the CPU.

    A clip passes alone, so its features are the same to the last bit whatever else is encoded.
    """
    encoded = model.encoder.clip_features(model.encoder.encode(pixels_TCHW.unsqueeze(0).to(model.device)))
    return {name: value.float().cpu() for name, value in encoded.items()}


def encoded(model: OwnModel, name: str, action: str | None, clip: ReadClip) -> Encoded:
    """Return a clip that was read as the model sees it."""
    return Encoded(OwnClip(name, clip.sha256, clip.seconds, clip.size, clip.distinct, action),
                   encode(model, clip.pixels), clip.times, clip.pixels)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names a clip that is to be learned from: where it is, what it is called, and its action (None: none)."""

    item: Item
    name: str
    action: str | None


def cache_file(model: OwnModel, folder: Path) -> Path:
    """Return where the features of a folder's clips are kept for a model."""
    key = hashlib.sha256(json.dumps(model.facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return folder / CACHE / f"{key}.pack"


def _kept(path: Path | None) -> dict[str, Encoded]:
    """Return the clips that a hidden file holds, by content; none where it is not there, damaged or not readable."""
    if path is None or not path.is_file():
        return {}
    try:
        pack = read_pack(path)
    except (OwnClipsError, OSError) as error:
        _LOGGER.warning("%s: its clips are encoded anew", error)
        return {}
    return {one.clip.sha256: one for one in clips_of(pack)}


def clips_of(pack: Pack) -> list[Encoded]:
    """Return the clips of a pack."""
    return [Encoded(clip, {name: value[row:row + 1] for name, value in pack.features.items()})
            for row, clip in enumerate(pack.clips)]


def learn_clips(model: OwnModel, wanted: Sequence[Wanted], cache: Path | None = None, jobs: int | None = None,
                title: str = "clips", progress: Callable[[float], None] | None = None
                ) -> tuple[list[Encoded], dict[str, VideoDecodeError], int]:
    """Return the clips in the order they are wanted, why others cannot be read, and how many were encoded.

    Args:
        cache: a pack of clips that were encoded before, which is written anew with these. jobs: see read_clips.
        progress: see Recognizer.learn.
    """
    kept = _kept(cache)
    paths = [one.item for one in wanted if isinstance(one.item, Path)]
    known = hashes(paths) if kept else {}
    unread = list(dict.fromkeys(path for path in paths if known.get(path) not in kept))
    done: dict[Path, Encoded | VideoDecodeError] = {path: kept[sha] for path, sha in known.items() if sha in kept}
    try:
        for count, (path, clip) in enumerate(read_clips(unread, model.reading, jobs, title), 1):
            done[path] = clip if isinstance(clip, VideoDecodeError) else replace(
                encoded(model, path.name, None, clip), pixels=None)
            if progress is not None:
                progress(count / len(unread))
    finally:  # what was encoded is kept, whatever ends this
        now = {one.clip.sha256: one for one in done.values() if not isinstance(one, VideoDecodeError)}
        if cache is not None and now and now.keys() != kept.keys():
            with suppress(OSError, DiskError, FeatureStoreError):  # a folder that cannot be written: each time anew
                pack_of(model, list(now.values()), {}, None, {}).save(cache)
    learned, errors = [], {}
    for one in wanted:
        if not isinstance(one.item, Path):
            learned.append(encoded(model, one.name, one.action, from_array(*one.item, model.reading)))
        elif isinstance(found := done[one.item], VideoDecodeError):
            errors[one.name] = found
        else:
            learned.append(replace(found, clip=replace(found.clip, name=one.name, action=one.action)))
    read = sum(not isinstance(done[path], VideoDecodeError) for path in unread)
    return learned, errors, read + len(wanted) - len(paths)


def pack_of(model: OwnModel, learned: Sequence[Encoded], texts: Mapping[str, str], text_KD: Tensor | None,
            source: Mapping[str, object]) -> Pack:
    """Return clips as a pack."""
    return Pack(model.facts, source, texts, [one.clip for one in learned], stacked(learned), text_KD)


def stacked(learned: Sequence[Encoded]) -> Features:
    """Return the features of clips, name to [N, ...]."""
    return {name: torch.cat([one.features[name] for one in learned]) for name in learned[0].features}
