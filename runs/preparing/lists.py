"""Make the split lists of a data set: derive, import or fetch them; they are checked before they are written.

DATASET is a published one. For your own videos give --videos DIR, where DIR/<class>/... holds video files or folders of
frames, and say which classes are for training, validation and test: by name (--classes my.yaml), or by shares and
a seed (--split 0.7,0.15,0.15). datasets/README.md shows such a file.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from datasets.annotations import resolve_video
from runs.evaluation.identity import foreign_names, list_name
from runs.preparing.folder_lists import derive
from runs.preparing.imported_lists import import_lists, locate
from runs.preparing.own_lists import CLASS_FILE, own_lists, shares
from runs.preparing.published_lists import STORE, clean, fetch_published, file_hash
from runs.preparing.split_lists import SPLITS, SplitList, check_folders, check_lists, install
from runs.preparing.video_files import plain, stem
from utils.config.class_names import CLASSES, read_class_names
from utils.config.layers import POOL
from utils.episode import VideoRecord
from utils.errors import ListError

PUBLISHED_WAY = 5  # TRAIN.WAY of every published setting
DATASETS = ("kinetics100", "ssv2_full", "ssv2_small", "ucf101", "hmdb51")
PROJECTS = POOL.parent / "projects" / "CLIPFSAR"
EXAMPLES = """examples:
  python runs/prepare.py lists ucf101 --videos data/ucf101/videos
  python runs/prepare.py lists --videos data/mine --split 0.7,0.15,0.15 --out data/mine_lists
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("dataset", nargs="?", choices=DATASETS, metavar="DATASET", help=", ".join(DATASETS))
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory of the lists; default: where the data set's "
                        "settings look for them, configs/projects/CLIPFSAR/DATASET, and DIR_lists for your own videos")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="UCF101, HMDB51, your own videos: derive the lists "
                        "from this folder, which holds a folder a class; with --from: DATA_ROOT_DIR, to look paths up "
                        "in")
    parser.add_argument("--classes", type=Path, metavar="YAML", help="your own videos: the class folders of train, val "
                        "and test, as lists, or with the class names to show")
    parser.add_argument("--split", type=shares, metavar="SHARES", help="your own videos: share the class folders out, "
                        "such as 0.7,0.15,0.15 for train, val and test")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of --split (default 0)")
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
    """Return DATA.ANNO_DIR of the data set's own settings, in this checkout."""
    return PROJECTS / dataset


def list_format(dataset: str) -> str:
    """Return the list format (datasets.annotations.LIST_FORMATS) of a published data set."""
    return "ids" if dataset.startswith("ssv2") else "paths"


def run(arguments: argparse.Namespace) -> None:
    """Make, check and write the three lists. Raises ListError, AnnotationError or ConfigError; then none is written."""
    if arguments.dataset is None:
        _run_own(arguments)
        return
    if arguments.classes or arguments.split:
        raise ListError(f"--classes, --split: they are for your own videos; leave {arguments.dataset} out")
    dataset = arguments.dataset
    out = arguments.out or default_directory(dataset)
    names = read_class_names(CLASSES / f"{dataset}.yaml").splits
    lists, notes = _obtain(arguments, names, out)
    records = check_lists(lists, names, arguments.shot + arguments.query, list_format(dataset),
                          partial(_identity, dataset in ("ucf101", "hmdb51")))
    for made in lists:
        check_folders(made, records[made.split], names[made.split])
        if problem := foreign_names(made.split, made.digest, names[made.split]):
            raise ListError(f"{made.origin}: expected a list of {dataset}: {problem}")
        notes += _order(dataset, made)
    _tell(lists, records, out, install(lists, out, force=arguments.force), notes)
    clean(out)
    if out.resolve() != (Path.cwd() / "configs/projects/CLIPFSAR" / dataset).resolve():
        sys.stdout.write(f"runs find these lists with DATA.ANNO_DIR {out.resolve()}\n")


def _run_own(arguments: argparse.Namespace) -> None:
    """Make the lists of own videos, and print the settings that use them."""
    if arguments.videos is None or (arguments.classes is None) == (arguments.split is None):
        raise ListError("expected DATASET, or for your own videos --videos DIR and one of --classes YAML and --split "
                        "SHARES; found " + (", ".join(f"--{name}" for name in ("videos", "classes", "split")
                                                      if getattr(arguments, name)) or "none of them"))
    given = {"from": arguments.source, "partial": arguments.partial,
             **{split: getattr(arguments, split) for split in SPLITS}}
    if unfit := [f"--{name}" for name, value in given.items() if value]:
        raise ListError(f"{', '.join(unfit)}: only for a published data set, found with your own videos")
    videos: Path = arguments.videos
    out = arguments.out or videos.parent / f"{videos.resolve().name}_lists"
    made = own_lists(videos, arguments.classes or arguments.split, arguments.seed)
    records = check_lists(made.lists, made.folders, arguments.shot + arguments.query, "paths", str)
    _look_for(videos, records)
    written = install(made.lists, out, force=arguments.force, beside={CLASS_FILE: made.class_file})
    _tell(made.lists, records, out, written, made.notes)
    way = min(map(len, made.folders.values()))
    few = f" TRAIN.WAY {way}" if 1 < way < PUBLISHED_WAY else ""
    if way < PUBLISHED_WAY:
        sys.stdout.write(f"number of classes in the smallest split: {way}; an episode can have no more ways, and needs "
                         "at least 2\n")
    sys.stdout.write(f"class names: {out / CLASS_FILE}\nuse them with:\n"
                     f"  DATA.DATA_ROOT_DIR {videos.resolve()} TRAIN.DATASET_FEW paths{few} \\\n"
                     f"  DATA.ANNO_DIR {out.resolve()} DATA.CLASSES {out.resolve() / CLASS_FILE}\n")


def _look_for(root: Path, records: Mapping[str, Sequence[VideoRecord]]) -> None:
    """Raise AnnotationError where a run would refuse a listed video: a link that leads out of the folder."""
    for own in records.values():
        for record in own:
            resolve_video(root, record, "paths")


def _obtain(arguments: argparse.Namespace, names: Mapping[str, Sequence[str]],
            out: Path) -> tuple[list[SplitList], list[str]]:
    """The lists of a published data set, and notes."""
    given = {split: getattr(arguments, split) for split in SPLITS}
    if arguments.partial and not (arguments.videos and not arguments.source):
        raise ListError("--partial: expected --videos, and no --from, found none to derive lists from")
    if arguments.source or any(given.values()):
        return import_lists(arguments.dataset, locate(arguments.source, given), names, out / STORE,
                            videos=arguments.videos)
    if arguments.videos:
        return derive(arguments.dataset, arguments.videos, names, partial=arguments.partial)
    return fetch_published(arguments.dataset, out), []


def _identity(within_class: bool, path: str) -> str:
    """What two paths of one video share, whatever folder it was put in: ids of Kinetics and SSv2 are unique, the names
    of UCF101 and HMDB51 within their class."""
    return f"{plain(PurePosixPath(path).parent.name) if within_class else ''}/{stem(path)}"


def _order(dataset: str, made: SplitList) -> list[str]:
    """A note where a published list is in an order of its own: episodes are drawn by place in the list."""
    known = list_name(made.split, made.digest)
    found = hashlib.sha256(made.text.encode()).hexdigest()
    if known.split("@")[0] != dataset or found == file_hash(dataset, made.split):
        return []
    return [f"{made.split}: the lines of {known} in another order than published: the same videos, other episodes"]


def _tell(lists: Sequence[SplitList], records: Mapping[str, Sequence[VideoRecord]], out: Path,
          written: Mapping[str, bool], notes: Sequence[str]) -> None:
    """Print a line a list, and the notes."""
    for made in lists:
        own = records[made.split]
        sys.stdout.write(f"{made.split:<5} {out / made.file_name}: {len(own)} videos, "
                         f"{len({record.class_index for record in own})} classes, {list_name(made.split, made.digest)} "
                         f"({'written' if written[made.split] else 'was there already'})\n")
    sys.stdout.write("".join(f"note: {note}\n" for note in notes))
