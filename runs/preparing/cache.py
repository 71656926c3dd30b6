"""Decode and resize every listed video once, into a directory that DATA.FRAME_CACHE names."""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.annotations import list_hash, read_split_list, resolve_video
from datasets.builder import list_file, pixel_settings
from datasets.cache.codec import MODES, QUALITY, Codec
from datasets.cache.index import Entry
from datasets.cache.store import FrameCache
from datasets.cache.writer import CacheWriter, Encoded, VideoToCache, encode_video, undecodable
from datasets.decoding import choose_decoder, open_video, read_frames
from datasets.transforms import resize_frames
from runs.preparing.pool import Failure, guarded
from runs.preparing.split_lists import SPLITS
from utils.config import load_config
from utils.config.schema import Config
from utils.cores import cores
from utils.episode import VideoRecord
from utils.errors import ConfigError, FrameCacheError, VideoDecodeError

ESTIMATE_AFTER = 8  # videos, from which the disk space is estimated
SAMPLE_VIDEOS, SAMPLE_FRAMES = 16, 8  # decoded again to compare
LIMIT = 300.0  # seconds a video
NAMED = 20  # bad videos named on the screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--cfg", required=True, metavar="YAML", help="project file: its lists, videos, sizes, decoder")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory of the cache")
    parser.add_argument("--mode", choices=MODES, default="jpeg", help="how frames are stored (default jpeg)")
    parser.add_argument("--quality", type=int, metavar="Q", help=f"of JPEG, 1 to 100 (default {QUALITY})")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes (default: one a CPU core)")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS",
                        help="that decoding and storing a whole video may take (default %(default)g)")
    parser.add_argument("--verify", action="store_true",
                        help="first read all that is stored; what is damaged is named and made anew")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that win over the files")


@dataclass(frozen=True, slots=True)
class Plan:
    """Says what is to be in the cache: lists as its index records them, videos, and the decoder that reads them."""

    lists: dict[str, dict]
    videos: list[VideoToCache]
    decoder: str


def make_plan(cfg: Config) -> Plan:
    """Plan every video of the lists in DATA.ANNO_DIR, with the sizes its lists need."""
    data, lists = cfg.DATA, {}
    sizes: dict[str, set[tuple[int, int]]] = {}
    records: dict[str, VideoRecord] = {}
    decoder = choose_decoder(data.DECODER)
    for split in SPLITS:
        path = list_file(cfg, split)
        if split != "test" and not path.exists():  # a test needs no other list; without its own there is nothing to do
            continue
        size, listed = pixel_settings(cfg, split).frame_size, read_split_list(path, split, cfg.TRAIN.DATASET_FEW)
        lists[split] = {"sha256": list_hash(path), "size": list(size), "videos": len(listed), "complete": False}
        for record in listed:
            sizes.setdefault(record.path, set()).add(size)
            records.setdefault(record.path, record)
    videos = []
    for listed_path, record in records.items():
        file: Path | None = None
        problem = ""
        try:
            file = resolve_video(Path(data.DATA_ROOT_DIR), record, cfg.TRAIN.DATASET_FEW,
                                 prefer_folder=decoder == "frames")
        except VideoDecodeError as error:
            problem = error.reason
        videos.append(VideoToCache(listed_path, file, tuple(sorted(sizes[listed_path])), problem))
    # Lists go class by class: in any order, the first videos tell how much space all will take.
    random.Random(0).shuffle(videos)
    return Plan(lists, videos, decoder)


def _verified(writer: CacheWriter) -> set[tuple[str, tuple[int, int]]]:
    """Read all that is stored; return (path, size) of the damaged videos, and name each on the screen."""
    damaged = set()
    for entry in tqdm(list(writer.index.entries()), desc="verifying", unit="video", disable=None, leave=False):
        if problem := writer.damaged(entry):
            sys.stderr.write(f"{problem}\n")
            damaged.add((entry.path, entry.size))
    sys.stdout.write(f"verified: {len(damaged)} damaged videos\n")
    return damaged


def missing_videos(writer: CacheWriter, plan: Plan, damaged: set[tuple[str, tuple[int, int]]]) -> list[VideoToCache]:
    """Return the videos that are not stored whole, or were stored from another file.

    Where a file is gone, what is stored of it is kept.
    """
    stored = {(entry.path, entry.size): entry for entry in writer.index.entries() if entry.error is None}

    def done(video: VideoToCache, entry: Entry | None) -> bool:
        if entry is None or (entry.path, entry.size) in damaged:
            return False
        return video.file is None or entry.stamp == video.stamp()

    return [video for video in plan.videos
            if not all(done(video, stored.get((video.listed, size))) for size in video.sizes)]


Task = tuple[VideoToCache, str, Codec, Path]  # arguments of encode_video


def _encode(task: Task) -> list[Encoded] | FrameCacheError:
    try:
        return encode_video(*task)
    except FrameCacheError as error:  # the disk's, not the video's: it ends the command, not this process
        return error


def encoded_videos(writer: CacheWriter, videos: Sequence[VideoToCache], workers: int, limit: float
                   ) -> Iterator[list[Encoded]]:
    """Yield the videos as they are encoded; a few a worker are under way or wait to be stored.

    One that crashes its decoder, or takes over `limit` seconds, is one that cannot be decoded.
    """
    tasks = [(video, writer.decoder, writer.codec, writer.spool(number)) for number, video in enumerate(videos)]
    for task, found in guarded(_encode, tasks, workers=max(1, min(workers, len(tasks))), limit=limit):
        if isinstance(found, FrameCacheError):
            raise found
        yield undecodable(task[0], task[3], found.reason) if isinstance(found, Failure) else found


def space_needed(done: int, stored: int, total: int, directory: Path) -> str:
    """Say how much disk space `total` videos will take, of which `done` took `stored` bytes.

    Raises FrameCacheError where there is not as much.
    """
    each, free = stored / done, shutil.disk_usage(directory).free
    text = (f"about {each * total / 1e9:.2f} GB for {total:,} videos ({each / 1e6:.2f} MB a video, from the first "
            f"{done}); {free / 1e9:.1f} GB free")
    if each * (total - done) > free:
        raise FrameCacheError(f"{directory}: not enough space: {text}. A lower --quality or a smaller frame size takes "
                              "less")
    return text


def fill(writer: CacheWriter, videos: Sequence[VideoToCache], workers: int, limit: float) -> int:
    """Encode and store videos; return the bytes stored."""
    stored = 0
    with tqdm(total=len(videos), desc="cache", unit="video", disable=None) as bar:
        for done, video in enumerate(encoded_videos(writer, videos, workers, limit), start=1):
            stored += writer.add(video)
            bar.update()
            if done == min(ESTIMATE_AFTER, len(videos)):
                tqdm.write(space_needed(done, stored, len(videos), writer.directory), file=sys.stderr)
    return stored


def differences(writer: CacheWriter, plan: Plan) -> tuple[int, float, int] | None:
    """Decode and resize a sample of the stored frames again, and compare.

    Returns:
        the largest and the mean difference in grey levels, and the number of frames; None where no file is left.
    """
    entries = {(entry.path, entry.size): entry for entry in writer.index.entries() if entry.error is None}
    sample = [(file, video.listed, video.sizes[0]) for video in plan.videos
              if (file := video.file) is not None and (video.listed, video.sizes[0]) in entries]
    found = []
    for file, listed, size in sample[:SAMPLE_VIDEOS]:
        cached = FrameCache(writer.directory, writer.codec, {listed: entries[listed, size]})
        there, clip = cached.clip(listed), open_video(file, writer.decoder)
        try:
            wanted = np.linspace(0, clip.num_frames - 1, SAMPLE_FRAMES).astype(int)
            decoded = resize_frames(read_frames(clip, wanted, file), size)
            found.append(np.abs(read_frames(there, wanted, file).astype(np.int16) - decoded))
        finally:
            clip.close()
    if not found:
        return None
    return max(int(part.max()) for part in found), float(np.mean([part.mean() for part in found])), \
        SAMPLE_FRAMES * len(found)


def _compared(writer: CacheWriter, plan: Plan) -> str:
    found = differences(writer, plan)
    if found is None:
        return "no file is left to compare with"
    largest, mean, frames = found
    writer.index.set_meta(difference={"largest": largest, "mean": mean, "frames": frames})
    if writer.codec.mode == "lossless" and largest:
        raise FrameCacheError(f"{writer.directory}: expected the frames that decoding gives, found differences of up "
                              f"to {largest} grey levels: {writer.decoder} gives other frames in order than by index")
    return (f"against decoding and resizing, over {frames} frames: largest pixel difference {largest}, mean {mean:.3f} "
            "of 255 grey levels")


def run(arguments: argparse.Namespace) -> int:
    """Fill the cache that the command line asks for; 1 where videos cannot be decoded and DATA.ON_BAD_VIDEO is stop.

    Raises ConfigError, AnnotationError, FrameCacheError.
    """
    if arguments.workers < 1 or not arguments.limit > 0:
        raise ConfigError([f"--workers, --limit: expected 1 or more and above 0, found {arguments.workers} and "
                           f"{arguments.limit:g}"])
    quality = arguments.quality if arguments.mode == "lossless" or arguments.quality is not None else QUALITY
    try:
        codec = Codec(arguments.mode, quality)
    except ValueError as error:
        raise ConfigError([f"--quality: {error}"]) from error
    return fill_cache(load_config(arguments.cfg, arguments.overrides), arguments.out, codec, workers=arguments.workers,
                      limit=arguments.limit, verify=arguments.verify)


def fill_cache(cfg: Config, out: Path, codec: Codec, *, workers: int = cores(), limit: float = LIMIT,
               verify: bool = False) -> int:
    """Store every video of the configuration's lists that is not in the cache yet, and say on the screen what is there.

    Args:
        out: directory of the cache. codec: how frames are stored.
        workers: processes. limit: seconds that decoding and storing a whole video may take.
        verify: read what is stored first, and make anew what is damaged.

    Returns:
        The exit status: 1 where videos cannot be decoded and DATA.ON_BAD_VIDEO is stop.

    Raises:
        FrameCacheError: a cache of another kind, too little space, or frames that differ from the decoder's.
    """
    plan, start = make_plan(cfg), time.monotonic()
    with CacheWriter(out, codec, plan.decoder, repair=verify) as writer:
        missing = missing_videos(writer, plan, _verified(writer) if verify else set())
        lists = writer.index.meta()["lists"]
        writer.index.set_meta(lists={**lists, **plan.lists})
        sys.stdout.write(f"{', '.join(plan.lists)} list: {len(plan.videos):,} videos, "
                         f"{len(plan.videos) - len(missing):,} already stored\n")
        fill(writer, missing, workers, limit)
        compared = _compared(writer, plan)
        writer.index.set_meta(lists={**lists, **{split: {**own, "complete": True}
                                                 for split, own in plan.lists.items()}})
        return _tell(writer, plan, compared, time.monotonic() - start, cfg.DATA.ON_BAD_VIDEO)


def _tell(writer: CacheWriter, plan: Plan, compared: str, seconds: float, on_bad_video: str) -> int:
    wanted = {(video.listed, size) for video in plan.videos for size in video.sizes}
    entries = [entry for entry in writer.index.entries() if (entry.path, entry.size) in wanted]
    bad = [entry for entry in entries if entry.error is not None]
    size, good = sum(entry.length for entry in entries), max(1, len(entries) - len(bad))
    facts = ", ".join(f"{name} {value}" for name, value in writer.codec.settings.items())
    frames = sum(entry.frames for entry in entries)
    sys.stdout.write(f"{writer.directory}: {len(entries) - len(bad):,} videos, {frames:,} frames, "
                     f"{size / 1e9:.3f} GB ({size / good / 1e6:.2f} MB a video), {facts}, {seconds:.0f} s\n{compared}\n"
                     f"use it with DATA.FRAME_CACHE {writer.directory}\n")
    for entry in bad[:NAMED]:
        sys.stderr.write(f"cannot be decoded: {entry.path}: {entry.error}\n")
    if bad:
        sys.stderr.write(f"{len(bad)} videos cannot be decoded; a run that meets one does as DATA.ON_BAD_VIDEO says\n")
    return 1 if bad and on_bad_video == "stop" else 0
