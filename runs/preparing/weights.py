"""Put published weights into their cache, fetched or taken from a file; their SHA-256 is checked."""

import argparse
import difflib
import sys
from pathlib import Path

from models.encoders.weight_files import IMAGENET, OPENAI, Published, published
from utils.command import printed
from utils.download import copy_checked, fetch
from utils.errors import DownloadError, HashError, WeightsError

NAMES = (*OPENAI, *IMAGENET)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"backbone: {', '.join(NAMES)}".replace("%", "%%"))
    parser.add_argument("--list", action="store_true", help="show every backbone: its file, address and SHA-256, or "
                        "as many digits of it as are known")
    parser.add_argument("--dir", metavar="DIR", help="directory of the weights (default: ~/.cache/clip, or torch's "
                        "own for ImageNet weights; a run finds another one by VIDEO.HEAD.WEIGHTS_DIR)")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take them from this file")


def run(arguments: argparse.Namespace) -> int:
    """Put one backbone's weights in their place, or list all. Raises WeightsError."""
    if arguments.list:
        printed("".join(_row(name, arguments.dir) for name in NAMES))
        return 0
    name = _resolve(arguments.name)
    known = published(name)
    path = known.path(arguments.dir)
    before = path.stat().st_mtime_ns if path.is_file() else None
    _put(name, known, path, arguments.source)
    state = "was there already" if path.stat().st_mtime_ns == before else "written"
    sys.stdout.write(f"{name}: {path}, SHA-256 {known.sha256} ({state})\n")
    return 0


def _row(name: str, directory: str | None) -> str:
    known = published(name)
    path = known.path(directory)
    return (f"{name}\n  {path} ({'here, not checked' if path.is_file() else 'not here'})\n  SHA-256 {known.sha256}\n"
            f"  {known.address}\n")


def _resolve(name: str | None) -> str:
    """Return the backbone meant by `name`; also by its file's name, without regard to case."""
    if name is None:
        raise WeightsError(f"NAME: expected one of {', '.join(NAMES)}, or --list, found neither")
    spellings = {known.casefold(): known for known in NAMES}
    spellings |= {published(known).path(None).stem.casefold(): known for known in NAMES}
    if name.casefold() in spellings:
        return spellings[name.casefold()]
    near = difflib.get_close_matches(name.casefold(), spellings, n=1)
    advice = f"; did you mean {spellings[near[0]]}?" if near else ""
    raise WeightsError(f"NAME: expected one of {', '.join(NAMES)}, found {name!r}{advice}")


def _put(name: str, known: Published, path: Path, source: Path | None) -> None:
    try:
        if source is not None:
            copy_checked(source, path, known.sha256)
        else:
            fetch(known.address, path, known.sha256)
    except HashError as error:
        raise WeightsError(f"these are not the weights of {name}: {error}") from error
    except DownloadError as error:
        hand = "" if source is not None else (
            f"\nOn a machine with network fetch\n  {known.address}\n    SHA-256 {known.sha256}\n    as {path}\nor give "
            "the file with --from FILE")
        raise WeightsError(f"{error}{hand}") from error
