"""prepare.py lists: a data set's split lists, derived from its videos, imported or fetched; checked, written."""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.annotations import parse_split_list
from runs.evaluation.identity import foreign_names, list_name
from runs.preparing.folder_lists import derive
from runs.preparing.imported_lists import import_lists, locate
from runs.preparing.published_lists import STORE, clean, fetch_published, file_hash
from runs.preparing.split_lists import SPLITS, SplitList, check_lists, install, list_format
from utils.config.class_names import CLASSES, read_class_names
from utils.config.layers import POOL
from utils.errors import ListError

DATASETS = ("kinetics100", "ssv2_full", "ssv2_small", "ucf101", "hmdb51")
PROJECTS = POOL.parent / "projects" / "CLIPFSAR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("dataset", choices=DATASETS, metavar="DATASET", help=", ".join(DATASETS))
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory of the lists; default: where the data set's "
                        "settings look for them, configs/projects/CLIPFSAR/DATASET")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="UCF101, HMDB51: derive the lists from this folder, "
                        "which holds a folder a class; with --from: DATA_ROOT_DIR, to look paths up in")
    parser.add_argument("--partial", action="store_true", help="with --videos: go on where a class has other "
                        "videos than published")
    parser.add_argument("--from", dest="source", metavar="PATH|URL", help="import lists: a directory, or a path or "
                        "address with {split} in it; published format, or 'class name/video id' lines (CMN, TRX)")
    for split in SPLITS:
        parser.add_argument(f"--{split}", metavar="PATH|URL", help=f"import this file as the {split} list")
    parser.add_argument("--shot", type=_count, default=5, metavar="N", help="support videos a class must have beside "
                        "the queries (default 5)")
    parser.add_argument("--query", type=_count, default=1, metavar="N",
                        help="query videos a class must have (default 1)")
    parser.add_argument("--force", action="store_true", help="overwrite other lists that are there")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {text!r}")
    return int(text)


def default_directory(dataset: str) -> Path:
    """DATA.ANNO_DIR of the data set's own settings, in this checkout."""
    return PROJECTS / dataset


def run(arguments: argparse.Namespace) -> int:
    """Make, check and write the three lists. Raises ListError or AnnotationError; then no list is written."""
    dataset = arguments.dataset
    out = arguments.out or default_directory(dataset)
    names = read_class_names(CLASSES / f"{dataset}.yaml").splits
    lists, notes = _obtain(arguments, names, out)
    check_lists(dataset, lists, names, arguments.shot + arguments.query)
    for made in lists:
        if problem := foreign_names(made.split, made.digest, names[made.split]):
            raise ListError(f"{made.origin}: expected a list of {dataset}: {problem}")
        notes += _order(dataset, made)
    written = install(lists, out, force=arguments.force)
    clean(out)
    sys.stdout.write("".join(f"{_line(dataset, made, out, written[made.split])}\n" for made in lists))
    sys.stdout.write("".join(f"note: {note}\n" for note in notes))
    if out.resolve() != (Path.cwd() / "configs/projects/CLIPFSAR" / dataset).resolve():
        sys.stdout.write(f"runs find these lists with DATA.ANNO_DIR {out.resolve()}\n")
    return 0


def _obtain(arguments: argparse.Namespace, names: Mapping[str, Sequence[str]],
            out: Path) -> tuple[list[SplitList], list[str]]:
    given = {split: getattr(arguments, split) for split in SPLITS}
    if arguments.partial and not (arguments.videos and not arguments.source):
        raise ListError("--partial: expected --videos, and no --from, found none to derive lists from")
    if arguments.source or any(given.values()):
        return import_lists(arguments.dataset, locate(arguments.source, given), names, out / STORE,
                            videos=arguments.videos)
    if arguments.videos:
        return derive(arguments.dataset, arguments.videos, names, partial=arguments.partial)
    return fetch_published(arguments.dataset, out), []


def _order(dataset: str, made: SplitList) -> list[str]:
    """A note where a published list is in an order of its own: episodes are drawn by place in the list."""
    known = list_name(made.split, made.digest)
    found = hashlib.sha256(made.text.encode()).hexdigest()
    if known.split("@")[0] != dataset or found == file_hash(dataset, made.split):
        return []
    return [f"{made.split}: the lines of {known} in another order than published: the same videos, other episodes"]


def _line(dataset: str, made: SplitList, out: Path, new: bool) -> str:
    records = parse_split_list(made.lines, made.origin, made.split, list_format(dataset))
    classes = len({record.class_index for record in records})
    return (f"{made.split:<5} {out / made.file_name}: {len(records)} videos, {classes} classes, "
            f"{list_name(made.split, made.digest)} ({'written' if new else 'was there already'})")
