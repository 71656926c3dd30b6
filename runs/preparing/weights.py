"""prepare.py weights: OpenAI's CLIP weights in the cache, fetched or taken from a file; their SHA-256 is checked."""

import argparse
import difflib
import sys
from pathlib import Path

from models.encoders.clip_weights import OPENAI, WEIGHTS_DIR, address, cache_path
from utils.download import copy_checked, fetch
from utils.errors import DownloadError, HashError, WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"backbone: {', '.join(OPENAI)}".replace("%", "%%"))
    parser.add_argument("--list", action="store_true", help="show every backbone: its file, SHA-256 and address")
    parser.add_argument("--dir", metavar="DIR", help=f"directory of the weights (default {WEIGHTS_DIR}; a run "
                        "finds another one by VIDEO.HEAD.WEIGHTS_DIR)")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take them from this file")


def run(arguments: argparse.Namespace) -> int:
    """Put one backbone's weights in their place, or list all. Raises WeightsError."""
    if arguments.list:
        sys.stdout.write("".join(_row(name, arguments.dir) for name in OPENAI))
        return 0
    name = _resolve(arguments.name)
    path, expected = cache_path(name, arguments.dir), OPENAI[name][0]
    before = path.stat().st_mtime_ns if path.is_file() else None
    _put(name, path, expected, arguments.source)
    state = "was there already" if path.stat().st_mtime_ns == before else "written"
    sys.stdout.write(f"{name}: {path}, SHA-256 {expected} ({state})\n")
    return 0


def _row(name: str, directory: str | None) -> str:
    path = cache_path(name, directory)
    return (f"{name}\n  {path} ({'here, not checked' if path.is_file() else 'not here'})\n  SHA-256 {OPENAI[name][0]}\n"
            f"  {address(name)}\n")


def _resolve(name: str | None) -> str:
    """The backbone meant by `name`; also by its file's name, without regard to case."""
    if name is None:
        raise WeightsError(f"NAME: expected one of {', '.join(OPENAI)}, or --list, found neither")
    spellings = {known.casefold(): known for known in OPENAI}
    spellings |= {Path(file).stem.casefold(): known for known, (_, file) in OPENAI.items()}
    if name.casefold() in spellings:
        return spellings[name.casefold()]
    near = difflib.get_close_matches(name.casefold(), spellings, n=1)
    advice = f"; did you mean {spellings[near[0]]}?" if near else ""
    raise WeightsError(f"NAME: expected one of {', '.join(OPENAI)}, found {name!r}{advice}")


def _put(name: str, path: Path, expected: str, source: Path | None) -> None:
    try:
        if source is not None:
            copy_checked(source, path, expected)
        else:
            fetch(address(name), path, expected)
    except HashError as error:
        raise WeightsError(f"these are not the weights of {name}: {error}") from error
    except DownloadError as error:
        hand = "" if source is not None else (
            f"\nOn a machine with network fetch\n  {address(name)}\n    SHA-256 {expected}\n    as {path}\nor give the "
            "file with --from FILE")
        raise WeightsError(f"{error}{hand}") from error
