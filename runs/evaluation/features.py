"""Decode and encode the distinct clips of an evaluation, each once, whatever the number of episodes.

In evaluation a clip's features do not depend on its episode, so 10,000 episodes of 2,400 videos need 2,400 clips, not
100,000 (1-shot) or 300,000 (5-shot). Rows are (video, draw) pairs: one draw where frames are fixed, else
TEST.TEMPORAL_DRAWS. What is kept of a clip is what the head's `clip_features` gives: any names, any shapes.

R rows.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets.builder import SplitData, build_clip_loader
from datasets.clips import clips_of
from datasets.device_loader import on_device
from datasets.few_shot import FewShotDataset
from models.builder import FewShotModel
from models.heads.base import Features, Head, Role
from models.inference import for_evaluation
from utils.config.schema import Config
from utils.distributed import ALONE, Ranks
from utils.episode import EpisodeSpec
from utils.errors import FeatureStoreError, VideoDecodeError
from utils.feature_file import FeatureFile, read_feature_file, scratch

FORMAT = 6  # raise it when the same settings give other features
CHUNK = 64  # rows put in a role at once
# Pixels a forward pass: a CPU is slower with more, which fall out of its caches (on 2 cores at 224: RN50 0.22 s a clip
# by one or two, 0.28 s by fours, ViT-B/16 0.74 s one by one, 1.06 s by fours; a small tower at 112: 15 ms by fours,
# 19 ms one by one, 29 ms by sixteens).
PIXELS_A_PASS = {"cpu": 8 * 224 * 224, "cuda": 16 * 8 * 224 * 224}
BYTES_A_BAD_VIDEO = 1024  # room for its path and reason in a feature file
Shapes = dict[str, tuple[int, ...]]
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """Holds what a head keeps of clips.

    Args:
        rows: (video, draw) to row.
        features: name to [R, ...], on the CPU; perhaps memory-mapped.
        errors: why a video has no row.
        encoded: videos decoded and encoded to make it; 0 when it was read from disk.
    """

    rows: dict[tuple[int, int], int]
    features: Features
    errors: dict[int, VideoDecodeError]
    encoded: int

    def row_of(self, dataset: FewShotDataset, spec: EpisodeSpec, position: int, video: int) -> int:
        """Return the row of the clip at a position of an episode. Raises the VideoDecodeError of an unread video."""
        if video in self.errors:
            raise self.errors[video]
        return self.rows[video, dataset.draw(spec, position)]


def weights_hash(modules: Sequence[nn.Module]) -> str:
    """Return the SHA-256 (hex) of the modules' names, shapes, parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in (item for module in modules for item in module.state_dict().items()):
        digest.update(f"{name}{list(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _files_hash(split: SplitData) -> str:
    """Return the SHA-256 (hex) of size and time of every listed file: another file of a name is another clip."""
    digest = hashlib.sha256()
    for video, record in enumerate(split.records):
        try:
            size, time = split.dataset.videos.stamp(video)
            digest.update(f"{record.path}:{size}:{time}\n".encode())
        except VideoDecodeError:
            digest.update(f"{record.path}: missing\n".encode())
    return digest.hexdigest()


def store_facts(head: Head, split: SplitData) -> dict[str, Any]:
    """Return all that the stored features of a split depend on; its hash is the file's name."""
    return {"format": FORMAT, "split": split.name, "weights": weights_hash(head.feature_modules()),
            "head": head.feature_facts(), "list": split.list_hash, "files": _files_hash(split),
            "pixels": split.pixels, "on_bad_video": split.dataset.on_bad_video}


def build_store(model: FewShotModel, cfg: Config, split: SplitData, specs: Sequence[EpisodeSpec], device: torch.device,
                title: str, directory: Path | None = None, ranks: Ranks = ALONE) -> FeatureStore:
    """Encode the clips of `specs` with the model's tower; or read them from `directory`, or leave them there.

    Each rank encodes its share, and gets all features; rank 0 reads and writes `directory`.

    Raises VideoDecodeError (DATA.ON_BAD_VIDEO: stop), FeatureStoreError.
    """
    draws = clips_of(split.dataset, specs)
    if directory or split.dataset.on_bad_video == "replace":  # any clip may be asked for: later, or as a stand-in
        draws = dict.fromkeys(range(len(split.records)), tuple(range(split.dataset.draws or 1)))
    plan = EncodingPlan(cfg, split, draws, device, title, ranks)
    if directory is not None:
        return _kept_store(model, plan, directory)
    return FeatureStore(plan.rows, *_encode(model, plan, plan.scratch), len(draws))


@dataclass(frozen=True, slots=True)
class EncodingPlan:
    """Which clips are encoded, in which passes, and the row that each one gets.

    Args:
        draws: record index of each video to its draws, in the order of the rows.
    """

    cfg: Config
    split: SplitData
    draws: Mapping[int, tuple[int, ...]]
    device: torch.device
    title: str
    ranks: Ranks
    rows: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self):
        keys = ((video, draw) for video, draws in self.draws.items() for draw in draws)
        self.rows.update((key, row) for row, key in enumerate(keys))

    def scratch(self, shapes: Shapes) -> Features:
        """Return memory of this rank alone."""
        return {name: scratch(shape, Path(self.cfg.OUTPUT_DIR)) for name, shape in shapes.items()}

    def passes(self) -> list[list[int]]:
        """Group consecutive videos until a pass is full.

        The grouping does not depend on the number of ranks, so features are bit-identical for any number of them.
        """
        pixels = self.cfg.DATA.NUM_INPUT_FRAMES * self.cfg.DATA.TEST_CROP_SIZE**2
        size = self.cfg.TEST.ENCODE_BATCH or max(1, round(PIXELS_A_PASS[self.device.type] / pixels))
        groups: list[list[int]] = []
        clips = size
        for video, draws in self.draws.items():
            if clips >= size:
                groups.append([])
                clips = 0
            groups[-1].append(video)
            clips += len(draws)
        return groups

    def rows_of(self, videos: Sequence[int]) -> slice:
        """Return the rows of a pass."""
        first, last = videos[0], videos[-1]
        return slice(self.rows[first, self.draws[first][0]], self.rows[last, self.draws[last][-1]] + 1)


def _kept_store(model: FewShotModel, plan: EncodingPlan, directory: Path) -> FeatureStore:
    """Return the features of all clips of a list from `directory`, put there first where they are missing."""
    ranks, facts = plan.ranks, store_facts(model.head, plan.split)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = directory / f"{plan.split.name}-{name[:32]}.safetensors"
    features: Features = {}
    errors: dict[int, VideoDecodeError] = {}
    if ranks.main and path.exists():
        try:
            features, errors = _read_store(path, facts, len(plan.rows))
        except FeatureStoreError as error:
            _LOGGER.warning("%s: its clips are encoded anew", error)
    encoded = ranks.broadcast(0 if features else len(plan.draws))
    if encoded and not ranks.main:
        features, errors = _encode(model, plan, plan.scratch)
    elif encoded:
        with FeatureFile(path, facts, spare=BYTES_A_BAD_VIDEO * encoded) as file:
            _, errors = _encode(model, plan, file.allocate)
            file.commit({"bad_videos": {str(video): [error.path, error.reason] for video, error in errors.items()}})
    if ranks.main:
        if encoded:
            features, errors = _read_store(path, facts, len(plan.rows))
        _LOGGER.info("features of %d clips of the %s list %s %s", len(plan.rows), plan.split.name,
                     "kept in" if encoded else "read from", path)
    if not encoded:
        shapes, errors = ranks.broadcast((_shapes(features), errors))
        features = features or plan.scratch(shapes)
        for part in (part for value in features.values() for part in value.split(CHUNK)):
            ranks.share(part, 0)
    return FeatureStore(plan.rows, features, errors, encoded)


def _read_store(path: Path, facts: dict[str, Any], rows: int) -> tuple[Features, dict[int, VideoDecodeError]]:
    """Return (features, errors by video) of a file with these facts and as many rows. Raises FeatureStoreError."""
    features, kept = read_feature_file(path, json.loads(json.dumps(facts)))
    if not features or any(len(value) != rows or value.dtype != torch.float32 for value in features.values()):
        raise FeatureStoreError(f"{path}: expected {rows} rows of float32, found {_shapes(features)}")
    return features, {int(video): VideoDecodeError(*error) for video, error in kept["bad_videos"].items()}


def _shapes(features: Features) -> Shapes:
    return {name: tuple(value.shape) for name, value in features.items()}


def _encode(model: FewShotModel, plan: EncodingPlan, allocate: Callable[[Shapes], Features]
            ) -> tuple[Features, dict[int, VideoDecodeError]]:
    """Return (features by name, errors by video) on every rank. `allocate` makes the arrays once shapes are known."""
    data = plan.cfg.DATA
    head = for_evaluation(model.eval().head, plan.device, (data.NUM_INPUT_FRAMES, data.TEST_CROP_SIZE))
    features: Features = {}
    errors: dict[int, VideoDecodeError] = {}
    own = plan.ranks.part(plan.passes())
    videos = {video: plan.draws[video] for group in own for video in group}
    items = iter(on_device(build_clip_loader(plan.cfg, plan.split, videos), plan.device))
    with tqdm(total=len(videos), desc=f"{plan.title}: encoding", unit="video", disable=plan.ranks.bar_off,
              leave=False) as bar:
        for group in (list(islice(items, len(group))) for group in own):
            bar.update(len(group))
            errors.update({clips.video: clips.error for clips in group if clips.error})
            group = [clips for clips in group if clips.error is None]
            if not group:
                continue
            of_group = _features(head, torch.cat([clips.pixels for clips in group]))
            features = features or allocate({name: (len(plan.rows), *value.shape[1:])
                                             for name, value in of_group.items()})
            rows = [plan.rows[clips.video, draw] for clips in group for draw in clips.draws]
            for name, value in of_group.items():
                features[name][rows] = value
    return _exchanged(plan, features, errors, allocate)


def _exchanged(plan: EncodingPlan, features: Features, errors: dict[int, VideoDecodeError],
               allocate: Callable[[Shapes], Features]) -> tuple[Features, dict[int, VideoDecodeError]]:
    """Return what all ranks have encoded, from what each of them has. Raises the first error if no clip was read."""
    of_ranks = plan.ranks.gather((_shapes(features), errors))
    bad = {video: error for _, own in of_ranks for video, error in own.items()}
    errors = {video: bad[video] for video in plan.draws if video in bad}
    shapes = next((shapes for shapes, _ in of_ranks if shapes), None)
    if shapes is None:
        raise next(iter(errors.values()))
    features = features or allocate(shapes)
    for number, videos in enumerate(plan.passes() if plan.ranks.world > 1 else ()):
        for value in features.values():
            plan.ranks.share(value[plan.rows_of(videos)], number % plan.ranks.world)
    return features, errors


@torch.inference_mode()
def _features(head: Head, clips_PTCHW: Tensor) -> Features:
    return {name: value.float().cpu() for name, value in head.clip_features(head.encode(clips_PTCHW)).items()}


@torch.inference_mode()
def features_in_role(model: FewShotModel, store: FeatureStore, split: SplitData, role: Role,
                     device: torch.device, directory: Path) -> Features:
    """Return what the head's `in_role` gives for every row of a store, on the CPU; perhaps memory-mapped from
    `directory`. What the head hands back unchanged is the store's own tensor, not a copy."""
    text_GD, total, head = model.text(split.name), len(store.rows), for_evaluation(model.head, device)
    classes = torch.tensor([split.records[video].class_index for video, _ in store.rows], device=device)
    made: Features = {}
    for first in range(0, total, CHUNK):
        part = slice(first, first + CHUNK)
        given = {name: value[part].to(device) for name, value in store.features.items()}
        text_PD = text_GD[classes[part]] if role == "support" and text_GD is not None else None
        for name, value in head.in_role(given, text_PD, role).items():
            if value is given.get(name):
                made[name] = store.features[name]
                continue
            if first == 0:
                made[name] = scratch((total, *value.shape[1:]), directory)
            made[name][part] = value.cpu()
    return made
