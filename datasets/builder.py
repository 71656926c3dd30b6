"""Config -> episodes: the only file of this package that knows the configuration."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from datasets.annotations import check_classes, file_stamp, list_hash, read_split_list, resolve_video
from datasets.cache.store import FrameCache, Wanted, open_frame_cache
from datasets.clips import ClipDataset, Clips
from datasets.decoding import choose_decoder
from datasets.episodes import EpisodeSampler
from datasets.few_shot import DATASETS, FewShotDataset
from datasets.frame_sampling import frames_are_drawn, sample_frames
from datasets.raw_episode import RawEpisode
from datasets.transforms import (
    ClipTransform,
    Erasing,
    Jitter,
    frame_size,
    test_transform,
    train_query_transform,
    train_support_transform,
)
from datasets.workers import into_shared_memory, watched
from utils.config.class_names import TARGETS, names_by_split
from utils.config.schema import Config
from utils.episode import Episode, VideoRecord
from utils.errors import ConfigError, FewShotError, VideoDecodeError


@dataclass(frozen=True, slots=True)
class SplitData:
    """A split, ready to be decoded.

    Args:
        name: train, val or test.
        dataset: item -> Episode.
        records: the videos of the list.
        class_names: one a class index.
        list_path, list_hash: the list's file and its SHA-256 (see annotations.list_hash).
        sampler: draws the episodes.
        episodes: how many of them, over all ranks.
        drawn: whether the frames of a clip are random (outside training: dataset.draws choices).
        pixels: every setting that decides a clip's pixels outside training.
    """

    name: str
    dataset: FewShotDataset
    records: list[VideoRecord]
    class_names: tuple[str, ...]
    list_path: Path
    list_hash: str
    sampler: EpisodeSampler
    episodes: int
    drawn: bool
    pixels: dict[str, Any]

    @property
    def temporal_draws(self) -> int | str | None:
        """Choices of frames a clip has; "fresh": new ones each time; None: its frames are fixed."""
        return (self.dataset.draws or "fresh") if self.drawn else None


def episode_sizes(cfg: Config, split: str) -> dict[str, int]:
    """way, shot and query of a split's episodes."""
    train = cfg.TRAIN
    if split == "train":
        return {"way": train.WAY, "shot": train.SHOT, "query": train.QUERY_PER_CLASS}
    return {"way": train.WAY_TEST or train.WAY, "shot": train.SHOT_TEST or train.SHOT,
            "query": train.QUERY_PER_CLASS_TEST}


def list_file(cfg: Config, split: str) -> Path:
    """Where the list of a split lies."""
    return Path(cfg.DATA.ANNO_DIR) / f"{split}_few_shot.txt"


def _episode_count(cfg: Config, split: str) -> int:
    train = cfg.TRAIN
    return {"train": train.NUM_TRAIN_TASKS, "val": train.NUM_VAL_TASKS or train.NUM_TEST_TASKS,
            "test": train.NUM_TEST_TASKS}[split]


def class_names_of(cfg: Config, split: str) -> tuple[str, ...]:
    """Class names of a split; ConfigError where the configuration has none."""
    names = names_by_split(cfg).get(split)
    if names is None:
        raise ConfigError([f"{TARGETS[split]}: expected the class names of the {split} split, found none"])
    return names


def _pixel_statistics(cfg: Config) -> dict[str, Sequence[float]]:
    """mean and std: DATA's, or with DATA.MEAN_FROM SOLVER those that a file put under SOLVER."""
    from_solver = cfg.DATA.MEAN_FROM == "SOLVER"
    mean, std = (cfg.SOLVER.MEAN, cfg.SOLVER.STD) if from_solver else (None, None)
    return {"mean": mean if mean is not None else cfg.DATA.MEAN, "std": std if std is not None else cfg.DATA.STD}


def _transforms(cfg: Config, split: str) -> tuple[ClipTransform, ClipTransform]:
    """The transforms of supports and queries."""
    data, aug, erase = cfg.DATA, cfg.AUGMENTATION, cfg.AUGMENTATION.RANDOM_ERASING
    if split != "train":
        same = test_transform(scale=data.TEST_SCALE, crop=data.TEST_CROP_SIZE, **_pixel_statistics(cfg))
        return same, same
    common = {
        "scale": data.TRAIN_JITTER_SCALES, "crop": data.TRAIN_CROP_SIZE, **_pixel_statistics(cfg),
        "jitter": Jitter(aug.BRIGHTNESS, aug.CONTRAST, aug.SATURATION, aug.HUE, aug.GRAYSCALE),
        "erasing": Erasing(erase.PROB, erase.MODE, erase.AREA_RANGE, erase.MIN_ASPECT) if erase.ENABLE else None,
        "random_flip": aug.RANDOM_FLIP, "color_aug": aug.COLOR_AUG, "support_query_diff": aug.SUPPORT_QUERY_DIFF,
    }
    support = train_support_transform(**common, support_query_diff_support=aug.SUPPORT_QUERY_DIFF_SUPPORT)
    return support, train_query_transform(**common)


def split_frame_size(cfg: Config, split: str) -> tuple[int, int]:
    """Height and width that the frames of a split are resized to, pixels."""
    data = cfg.DATA
    if split == "train":
        return frame_size(data.TRAIN_JITTER_SCALES, data.TRAIN_CROP_SIZE)
    return frame_size(data.TEST_SCALE, data.TEST_CROP_SIZE)


def _frame_cache(cfg: Config, split: str, records: Sequence[VideoRecord], digest: str,
                 decoder: str) -> FrameCache | None:
    """DATA.FRAME_CACHE, checked against the split. Raises FrameCacheError."""
    data = cfg.DATA
    if data.FRAME_CACHE is None:
        return None
    listed = {record.path: record for record in records}

    def stamp(path: str) -> tuple[int, int] | None:
        try:
            return file_stamp(resolve_video(Path(data.DATA_ROOT_DIR), listed[path], cfg.TRAIN.DATASET_FEW,
                                            prefer_folder=decoder == "frames"))
        except (VideoDecodeError, OSError):  # gone: its frames are in the cache
            return None

    return open_frame_cache(Path(data.FRAME_CACHE), Wanted(
        split, digest, split_frame_size(cfg, split), decoder, tuple(listed), stamp))


def build_split(cfg: Config, split: str) -> SplitData:
    """Read and check a split ("train", "val" or "test"); decodes nothing.

    Raises:
        AnnotationError, EpisodeError, ConfigError, RegistryError: the list, or what is asked of it, is wrong.
        FrameCacheError: DATA.FRAME_CACHE is stale or damaged.
    """
    data, training, sizes = cfg.DATA, split == "train", episode_sizes(cfg, split)
    data_set = DATASETS[cfg.TRAIN.DATASET if training else cfg.TEST.DATASET]
    decoder = choose_decoder(data.DECODER)
    list_path, names = list_file(cfg, split), class_names_of(cfg, split)
    records = read_split_list(list_path, split, cfg.TRAIN.DATASET_FEW)
    check_classes(records, names, sizes["shot"] + sizes["query"], list_path)
    seed = cfg.RANDOM_SEED if training else cfg.TEST.EPISODE_SEED
    sampler = EpisodeSampler(records, split=split, seed=seed, **sizes)
    chosen = frame_settings(cfg)
    drawn = training or frames_are_drawn(T=chosen["T"], sampling_rate=chosen["sampling_rate"],
                                         test_sampling=chosen["test_sampling"])
    draws = None if training else cfg.TEST.TEMPORAL_DRAWS or None if drawn else 1
    support_transform, query_transform = _transforms(cfg, split)
    episodes = _episode_count(cfg, split)
    digest = list_hash(list_path)
    cache = _frame_cache(cfg, split, records, digest, decoder)
    dataset = data_set(
        records=records, root=Path(data.DATA_ROOT_DIR), list_format=cfg.TRAIN.DATASET_FEW, sampler=sampler,
        decoder=decoder, frames=partial(sample_frames, **chosen, training=training),
        support_transform=support_transform, query_transform=query_transform, length=episodes, draws=draws,
        on_bad_video=data.ON_BAD_VIDEO, cache=cache)
    # What is stored under these facts must be these pixels to the last bit, so they say more than the settings that
    # affect NUMBERS (decoder, device, draws), and less (nothing of the model).
    pixels = {**chosen, "decoder": decoder, "scale": data.TEST_SCALE, "crop": data.TEST_CROP_SIZE,
              **_pixel_statistics(cfg), "draws": draws, "seed": seed if drawn else None}
    if cache is not None:  # its rounding, and JPEG, are other pixels than decoding gives
        pixels["frame_cache"] = cache.facts
    if cfg.AUGMENTATION.USE_GPU and cfg.NUM_GPUS > 0:  # rounded otherwise; on the CPU the key changes no bit
        pixels["transformed_on"] = "cuda"
    return SplitData(split, dataset, records, names, list_path, digest, sampler, episodes, drawn, pixels)


def frame_settings(cfg: Config) -> dict[str, Any]:
    """Arguments of sample_frames that decide the frames of a clip."""
    data = cfg.DATA
    return {"T": data.NUM_INPUT_FRAMES, "sampling_rate": data.SAMPLING_RATE, "test_sampling": data.TEST_SAMPLING,
            "target_fps": data.TARGET_FPS, "interval_tail": data.INTERVAL_TAIL}


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way out of a worker: torch would rebuild it from its text and lose its type."""

    error: FewShotError


class _Guarded(Dataset):
    """A data set whose FewShotErrors are items. `raw`: its items are not transformed."""

    def __init__(self, dataset: FewShotDataset | ClipDataset, raw: bool):
        self.dataset, self.read = dataset, dataset.raw if raw else dataset.__getitem__

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Episode | RawEpisode | Clips | _Failure:
        try:
            return into_shared_memory(self.read(index))
        except FewShotError as error:
            return _Failure(error)


class ItemLoader(DataLoader):
    """A DataLoader of single items (Episode or Clips) that raises a worker's FewShotError as it was, and a
    WorkerError when one has ended.

    `finish` is None; with AUGMENTATION.USE_GPU the items are not transformed (RawEpisode, or Clips of uint8), and it
    transforms one where its pixels are. device_loader.on_device sees to it.
    """

    finish: Callable[[Any], Any] | None = None

    def __iter__(self) -> Iterator[Episode] | Iterator[RawEpisode] | Iterator[Clips]:
        for item in watched(super().__iter__()):
            if isinstance(item, _Failure):
                raise item.error
            yield item


def _as_is(item: object) -> object:
    return item


def _one_thread(worker: int) -> None:
    """Workers share the cores: one thread each."""
    torch.set_num_threads(1)


def build_loader(cfg: Config, split: SplitData, *, start: int = 0, rank: int = 0, world: int = 1,
                 stop: int | None = None) -> ItemLoader:
    """A loader of the split's episodes, one at a time and in order.

    Args:
        cfg: the run's configuration.
        split: from `build_split`.
        start: number of the first episode, counted over all ranks.
        rank, world: this process gets episodes start + rank, start + rank + world, ...
        stop: the first episode that is left out; None: the split's count decides.

    Raises:
        VideoDecodeError (DATA.ON_BAD_VIDEO: stop), while iterating, in the caller's process.
    """
    return _loader(cfg, split.dataset.part(start, rank, world, stop))


def build_clip_loader(cfg: Config, split: SplitData, wanted: Mapping[int, Sequence[int]]) -> ItemLoader:
    """A loader of single videos of a validation or test split: record index to draws, in that order."""
    return _loader(cfg, ClipDataset(split.dataset, wanted))


def _loader(cfg: Config, source: FewShotDataset | ClipDataset) -> ItemLoader:
    loader, workers, raw = cfg.DATA_LOADER, cfg.DATA_LOADER.NUM_WORKERS, cfg.AUGMENTATION.USE_GPU
    # Workers are forked on Linux, before they open any video or touch CUDA, and run single-threaded. They live as long
    # as one pass over the episodes: every loader is iterated once, so keeping them longer would only hold memory.
    context = ("fork" if sys.platform.startswith("linux") else "spawn") if workers else None
    pin = loader.PIN_MEMORY and cfg.NUM_GPUS > 0 and torch.cuda.is_available()
    made = ItemLoader(_Guarded(source, raw), batch_size=None, shuffle=False, num_workers=workers, collate_fn=_as_is,
                      pin_memory=pin, worker_init_fn=_one_thread, multiprocessing_context=context,
                      generator=torch.Generator())  # its own: the loader then leaves the global generator alone
    made.finish = source.finish if raw else None
    return made
