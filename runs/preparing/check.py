"""Find every listed video of a configuration, open it, and decode a frame near its end.

This writes into --out: manifest.parquet (a row a listed video), check.txt (the page of numbers), progress.jsonl (what a
killed check goes on from). Exit status: 0 all good; 1 a video is missing, unreadable or not where it is listed, or a
class or a split is too small for an episode. Videos shorter than T frames are counted, not refused: frames repeat.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from tqdm import tqdm

from datasets.annotations import list_hash, read_split_list
from datasets.builder import class_names_of, episode_sizes, list_file
from datasets.decoding import choose_decoder
from runs.evaluation.identity import foreign_names
from runs.preparing.check_lists import write_lists
from runs.preparing.check_report import Checked, Needs, page, problems
from runs.preparing.examine import FileToExamine, VideoFacts, examine
from runs.preparing.locate import Located, locate, lying
from runs.preparing.pool import Failure, guarded
from runs.preparing.split_lists import SPLITS
from utils.command import printable
from utils.config import load_config
from utils.config.schema import Config
from utils.cores import cores
from utils.episode import VideoRecord
from utils.errors import AnnotationError, LaunchError
from utils.files import whole_file
from utils.foreign import parse_json
from utils.json_files import add_sum, check_sum

FORMAT = 1  # raise it when the same file gives other facts
LIMIT = 60.0  # seconds a file


@dataclass(frozen=True, slots=True)
class Listed:
    """Holds a line of a list, with its class name, and where its video lies."""

    split: str
    record: VideoRecord
    class_name: str
    located: Located


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--cfg", required=True, help="project file whose lists and videos are checked")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that replace the file's")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--out", type=Path, help="where the manifest and the page go (default: OUTPUT_DIR/check)")
    parser.add_argument("--write-lists", type=Path, metavar="DIR", help="write lists without the bad videos there")
    parser.add_argument("--drop-short", action="store_true", help="videos shorter than T frames count as bad")
    parser.add_argument("--every-frame", action="store_true", help="decode all frames: finds damage in the middle")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one a core)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a file (default %(default)g)")


def read_lists(cfg: Config, splits: Iterable[str]) -> list[Listed]:
    """Return the lines of the lists, with where their videos lie. Raises AnnotationError, ConfigError, LaunchError."""
    root = Path(cfg.DATA.DATA_ROOT_DIR)
    lines: list[tuple[str, VideoRecord, str]] = []
    if not root.is_dir():
        raise LaunchError(f"DATA.DATA_ROOT_DIR: expected the directory of the videos, found no directory {root}")
    for split in splits:
        path = list_file(cfg, split)
        records = read_split_list(path, split, cfg.TRAIN.DATASET_FEW)
        names = class_names_of(cfg, split, records)
        if problem := foreign_names(split, list_hash(path), names):
            raise AnnotationError(f"{path}: {problem}")
        for record in records:
            if record.class_index >= len(names):
                raise AnnotationError(f"{path}, line {record.line}: expected a class index below {len(names)}, as many "
                                      f"as there are class names, found {record.class_index}")
            lines.append((split, record, names[record.class_index]))
    located = locate(root, [record for _, record, _ in lines], cfg.TRAIN.DATASET_FEW,
                     prefer_folder=cfg.DATA.DECODER == "frames", others=_others(cfg, splits))
    return [Listed(*line, one) for line, one in zip(lines, located, strict=True)]


def _others(cfg: Config, splits: Iterable[str]) -> list[VideoRecord]:
    """Return the records of the splits that we were not asked to check. Lists that cannot be read are skipped."""
    found: list[VideoRecord] = []
    for split in set(SPLITS) - set(splits):
        with suppress(AnnotationError):
            found += read_split_list(list_file(cfg, split), split, cfg.TRAIN.DATASET_FEW)
    return found


class Progress:
    """Keeps what is known of files, line by line, so that an interrupted check goes on behind the last whole line.

    Args:
        path: the file of these lines.
        settings: what the findings depend on; a file of other settings is begun anew.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.known: dict[str, VideoFacts] = {}
        head = json.dumps(settings)
        first, *more = path.read_bytes().split(b"\n")[:-1] or [b""] if path.is_file() else [b""]
        for line in more if first == head.encode() else ():
            with suppress(ValueError, TypeError, KeyError):  # a damaged line: its file is examined again
                entry = check_sum(parse_json(line))
                self.known[entry["key"]] = VideoFacts(**entry["facts"])
        lines = [head, *(self._line(key, facts) for key, facts in self.known.items())]
        with whole_file(path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the check runs)

    @staticmethod
    def key(root: Path, found: str) -> str:
        """Name a file as it is now: with another size or time it is another file."""
        state = (root / found).stat()
        return f"{found}|{state.st_size}|{state.st_mtime_ns}"

    @staticmethod
    def _line(key: str, facts: VideoFacts) -> str:
        return json.dumps(add_sum({"key": key, "facts": asdict(facts)}))

    def add(self, key: str, facts: VideoFacts) -> None:
        """Keep what was found in a file."""
        self.known[key] = facts
        self.file.write(self._line(key, facts) + "\n")
        self.file.flush()


def examine_all(progress: Progress, files: dict[str, FileToExamine], workers: int, limit: float
                ) -> Iterator[VideoFacts]:
    """Examine every file (by its key in `progress`) that is not known yet, and keep what is found before yielding it.

    Args:
        workers: processes. limit: seconds a file.
    """
    keys = {file: key for key, file in files.items() if key not in progress.known}
    for file, found in guarded(examine, list(keys), workers=workers, limit=limit):
        facts = VideoFacts(reason=found.reason) if isinstance(found, Failure) else found
        progress.add(keys[file], facts)
        yield facts


def _row(line: Listed, facts: VideoFacts, T: int) -> dict[str, Any]:
    """A row of the manifest."""
    found = line.located.found
    if found is None:
        status = "missing"
    elif not facts.readable:
        status = "unreadable"
    else:
        status = "short" if (facts.frames or 0) < T else "ok"
    return {"path": line.record.path, "split": line.split, "class": line.class_name,
            "class_index": line.record.class_index, "found": found,
            "as_listed": line.located.listed and found is not None, "frames": facts.frames, "fps": facts.fps,
            "width": facts.width, "height": facts.height, "codec": facts.codec, "status": status,
            "reason": line.located.reason or facts.reason}


def manifest(lines: list[Listed], facts: dict[str, VideoFacts], T: int) -> pd.DataFrame:
    """Return one row a listed video. `facts` goes by found path. Whole numbers may be missing (Int64)."""
    table = pd.DataFrame([_row(line, facts.get(line.located.found or "", VideoFacts()), T) for line in lines])
    return table.astype({**dict.fromkeys(("frames", "width", "height", "class_index"), "Int64"), "fps": "float64"})


def _processor_time() -> float:
    """Return the seconds of processor time of this process and of the ended ones that it started."""
    return sum(os.times()[:4])


def _measure(lines: list[Listed], cfg: Config, out: Path, arguments: argparse.Namespace
             ) -> tuple[dict[str, VideoFacts], str]:
    """Examine the files; return what was found by found path, and the line on how long it took."""
    root, decoder = Path(cfg.DATA.DATA_ROOT_DIR), choose_decoder(cfg.DATA.DECODER)
    progress = Progress(out / "progress.jsonl", {"format": FORMAT, "decoder": decoder,
                                                 "every_frame": arguments.every_frame, "limit": arguments.limit})
    keys = {found: Progress.key(root, found) for found in {line.located.found for line in lines} if found is not None}
    files = {key: FileToExamine(str(root / found), decoder, arguments.every_frame)
             for found, key in sorted(keys.items())}
    known = sum(key in progress.known for key in keys.values())
    workers, started, own = arguments.workers or cores(), time.perf_counter(), _processor_time()
    memory, done, work = 0, 0, 0.0
    try:
        with tqdm(total=len(files), initial=known, desc="checking", unit="video", disable=None) as bar:
            for facts in examine_all(progress, files, workers, arguments.limit):
                memory, done, work = max(memory, facts.memory), done + 1, work + facts.seconds
                bar.update()
    finally:
        progress.file.close()
    seconds = max(time.perf_counter() - started, 1e-9)
    used = _processor_time() - own
    text = (f"{done:,} files looked at with {decoder} in {seconds:.1f} s: {done / seconds:.0f} a second, "
            f"{used / seconds:.2f} cores busy, {work / seconds:.2f} of {workers} processes at work, at most "
            f"{memory / 1e6:.0f} MB in each"
            + (f"; {known:,} known from before" if known else ""))
    return {found: progress.known[key] for found, key in keys.items()}, text


def needs_of(cfg: Config, splits: Iterable[str]) -> dict[str, Needs]:
    """Return what an episode of each split takes."""
    sizes = {split: episode_sizes(cfg, split) for split in splits}
    return {split: Needs(size["way"], size["shot"] + size["query"]) for split, size in sizes.items()}


def run(arguments: argparse.Namespace) -> int:
    """Check, write the manifest and the page, print the page; 1 where anything is bad. Raises FewShotError."""
    if arguments.workers < 0 or not arguments.limit > 0:
        raise LaunchError(f"expected --workers of at least 1 (0: one a core) and --limit above 0, found "
                          f"{arguments.workers} and {arguments.limit:g}")
    cfg = load_config(arguments.cfg, arguments.overrides)
    out = arguments.out or Path(cfg.OUTPUT_DIR) / "check"
    out.mkdir(parents=True, exist_ok=True)
    lines = read_lists(cfg, arguments.splits)
    facts, speed = _measure(lines, cfg, out, arguments)
    checked = Checked(manifest(lines, facts, cfg.DATA.NUM_INPUT_FRAMES), needs_of(cfg, arguments.splits),
                      cfg.DATA.NUM_INPUT_FRAMES, arguments.drop_short)
    with whole_file(out / "manifest.parquet") as part:
        checked.table.to_parquet(part, index=False)
    depth = "every frame" if arguments.every_frame else "one frame near the end (--every-frame: all)"
    if not facts:
        speed += "\n" + lying(Path(cfg.DATA.DATA_ROOT_DIR), [line.record for line in lines], cfg.TRAIN.DATASET_FEW, ())
    text = page(checked, f"{speed}\nof each file {depth} was decoded")
    try:
        if arguments.write_lists:
            text += "\n" + write_lists(checked, arguments.write_lists, cfg)
    finally:  # also where no list can be written
        (out / "check.txt").write_text(printable(text), encoding="utf-8")
        sys.stdout.write(f"{text}\nWritten to {out}/manifest.parquet and check.txt\n")
    return 1 if problems(checked) else 0
