"""Build a split's episodes from the configuration, which no other file of this package knows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from datasets import transforms
from datasets.annotations import check_classes, file_stamp, list_hash, read_split_list, resolve_video
from datasets.cache.store import CacheRequest, FrameCache, open_frame_cache
from datasets.clips import ClipDataset
from datasets.decoding import choose_decoder
from datasets.episodes import EpisodeSampler
from datasets.few_shot import DATASETS, FewShotDataset
from datasets.frame_sampling import FrameSampling, sample_frames
from datasets.loader import ItemLoader
from datasets.videos import Videos
from utils.config.class_names import names_by_split
from utils.config.schema import Config
from utils.episode import VideoRecord
from utils.errors import VideoDecodeError


@dataclass(frozen=True, slots=True)
class SplitData:
    """Hold what a run needs of a split; nothing is decoded yet."""

    name: str  # train, val or test
    dataset: FewShotDataset
    records: list[VideoRecord]
    class_names: tuple[str, ...]  # one a class index
    list_path: Path
    list_hash: str  # see annotations.list_hash
    sampler: EpisodeSampler
    episodes: int  # over all ranks
    drawn: bool  # whether the frames of a clip are random (outside training: dataset.draws choices)
    pixels: dict[str, Any]  # every setting that decides a clip's pixels outside training

    @property
    def temporal_draws(self) -> int | str | None:
        """Return how many choices of frames a clip has; "fresh": new ones each time; None: its frames are fixed."""
        return (self.dataset.draws or "fresh") if self.drawn else None


def episode_sizes(cfg: Config, split: str) -> dict[str, int]:
    """Return way, shot and query of a split's episodes."""
    train = cfg.TRAIN
    if split == "train":
        return {"way": train.WAY, "shot": train.SHOT, "query": train.QUERY_PER_CLASS}
    return {"way": train.WAY_TEST or train.WAY, "shot": train.SHOT_TEST or train.SHOT,
            "query": train.QUERY_PER_CLASS_TEST}


def list_file(cfg: Config, split: str) -> Path:
    """Return where the list of a split lies."""
    return Path(cfg.DATA.ANNO_DIR) / f"{split}_few_shot.txt"


def class_names_of(cfg: Config, split: str, records: Sequence[VideoRecord]) -> tuple[str, ...]:
    """Return the class names of a split; "class 0", "class 1", ... of its list where the configuration has none."""
    most = max((record.class_index for record in records), default=-1)
    return names_by_split(cfg).get(split) or tuple(f"class {index}" for index in range(most + 1))


def pixel_settings(cfg: Config, split: str) -> transforms.PixelSettings:
    """Return how a split's frames become input. DATA.MEAN_FROM SOLVER: mean and std that a file put under SOLVER."""
    data = cfg.DATA
    mean, std = (cfg.SOLVER.MEAN, cfg.SOLVER.STD) if data.MEAN_FROM == "SOLVER" else (None, None)
    scale, crop = ((data.TRAIN_JITTER_SCALES, data.TRAIN_CROP_SIZE) if split == "train" else
                   (data.TEST_SCALE, data.TEST_CROP_SIZE))
    return transforms.PixelSettings(scale, crop, data.MEAN if mean is None else mean, data.STD if std is None else std)


def _transforms(cfg: Config, split: str) -> tuple[transforms.ClipTransform, transforms.ClipTransform]:
    """Return the transforms of supports and queries."""
    pixels, aug, erase = pixel_settings(cfg, split), cfg.AUGMENTATION, cfg.AUGMENTATION.RANDOM_ERASING
    if split != "train":
        return (transforms.test_transform(pixels),) * 2
    least, most = erase.AREA_RANGE
    return transforms.train_transforms(pixels, transforms.Augmentation(
        transforms.Jitter(aug.BRIGHTNESS, aug.CONTRAST, aug.SATURATION, aug.HUE, aug.GRAYSCALE),
        transforms.Erasing(erase.PROB, erase.MODE, (least, most), erase.MIN_ASPECT) if erase.ENABLE else None,
        random_flip=aug.RANDOM_FLIP, color_aug=aug.COLOR_AUG, support_query_diff=aug.SUPPORT_QUERY_DIFF,
        support_query_diff_support=aug.SUPPORT_QUERY_DIFF_SUPPORT))


def _frame_cache(cfg: Config, split: str, records: Sequence[VideoRecord], digest: str,
                 decoder: str) -> FrameCache | None:
    """Open DATA.FRAME_CACHE and check it against the split. Raises FrameCacheError."""
    data = cfg.DATA
    if data.FRAME_CACHE is None:
        return None
    listed = {record.path: record for record in records}

    def stamp(path: str) -> tuple[int, int] | None:
        try:
            return file_stamp(resolve_video(Path(data.DATA_ROOT_DIR), listed[path], cfg.TRAIN.DATASET_FEW,
                                            prefer_folder=decoder == "frames"))
        except (VideoDecodeError, OSError):  # the file is gone, but its frames are in the cache
            return None

    return open_frame_cache(Path(data.FRAME_CACHE), CacheRequest(
        split, digest, pixel_settings(cfg, split).frame_size, decoder, tuple(listed), stamp))


def build_split(cfg: Config, split: str) -> SplitData:
    """Read and check a split ("train", "val" or "test"); decodes nothing.

    Raises AnnotationError, EpisodeError, ConfigError, RegistryError: the list, or what is asked of it, is wrong;
    FrameCacheError: DATA.FRAME_CACHE is stale or damaged.
    """
    data, training, sizes = cfg.DATA, split == "train", episode_sizes(cfg, split)
    data_set = DATASETS[cfg.TRAIN.DATASET if training else cfg.TEST.DATASET]
    decoder = choose_decoder(data.DECODER)
    list_path = list_file(cfg, split)
    records = read_split_list(list_path, split, cfg.TRAIN.DATASET_FEW)
    names = class_names_of(cfg, split, records)
    check_classes(records, names, sizes["shot"] + sizes["query"], list_path)
    seed = cfg.RANDOM_SEED if training else cfg.TEST.EPISODE_SEED
    sampler = EpisodeSampler(records, split=split, seed=seed, **sizes)
    sampling = FrameSampling(data.NUM_INPUT_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.TEST_SAMPLING,
                             data.INTERVAL_TAIL)
    drawn = training or sampling.drawn_in_test
    draws = None if training else cfg.TEST.TEMPORAL_DRAWS or None if drawn else 1
    support_transform, query_transform = _transforms(cfg, split)
    episodes = {"train": cfg.TRAIN.NUM_TRAIN_TASKS, "val": cfg.TRAIN.NUM_VAL_TASKS or cfg.TRAIN.NUM_TEST_TASKS,
                "test": cfg.TRAIN.NUM_TEST_TASKS}[split]
    digest = list_hash(list_path)
    cache = _frame_cache(cfg, split, records, digest, decoder)
    dataset = data_set(
        videos=Videos(records, Path(data.DATA_ROOT_DIR), cfg.TRAIN.DATASET_FEW, decoder, cache), sampler=sampler,
        frames=partial(sample_frames, sampling=sampling, training=training), support_transform=support_transform,
        query_transform=query_transform, length=episodes, draws=draws, on_bad_video=data.ON_BAD_VIDEO)
    # What is stored under these facts must be these pixels to the last bit, so they say more than the settings that
    # affect NUMBERS (decoder, device, draws), and less (nothing of the model).
    pixels = {**asdict(sampling), **asdict(pixel_settings(cfg, "test")), "decoder": decoder, "draws": draws,
              "seed": seed if drawn else None}
    if cache is not None:  # rounded, and perhaps JPEG: not the pixels of decoding
        pixels["frame_cache"] = cache.pixel_settings
    if cfg.AUGMENTATION.USE_GPU and cfg.NUM_GPUS > 0:  # a GPU rounds differently; on the CPU the key changes no bit
        pixels["transformed_on"] = "cuda"
    return SplitData(split, dataset, records, names, list_path, digest, sampler, episodes, drawn, pixels)


def build_loader(cfg: Config, split: SplitData, *, start: int = 0, rank: int = 0, world: int = 1,
                 stop: int | None = None, shield: bool = False) -> ItemLoader:
    """Return a loader of the split's episodes start + rank, start + rank + world, ... in order.

    Args:
        stop: the first episode that is left out; None: the split's count decides.
        shield: see ItemLoader.

    While iterating it raises VideoDecodeError (DATA.ON_BAD_VIDEO: stop) in the caller's process.
    """
    return _loader(cfg, split.dataset.part(start, rank, world, stop), shield)


def build_clip_loader(cfg: Config, split: SplitData, draws: Mapping[int, Sequence[int]]) -> ItemLoader:
    """Return a loader of single videos of a validation or test split: record index to draws, in that order."""
    return _loader(cfg, ClipDataset(split.dataset, draws))


def _loader(cfg: Config, source: FewShotDataset | ClipDataset, shield: bool = False) -> ItemLoader:
    pin = cfg.DATA_LOADER.PIN_MEMORY and cfg.NUM_GPUS > 0 and torch.cuda.is_available()
    return ItemLoader(source, raw=cfg.AUGMENTATION.USE_GPU, workers=cfg.DATA_LOADER.NUM_WORKERS, pin_memory=pin,
                      shield=shield)
