"""Make a benchmark ready to run: python runs/prepare.py COMMAND --help"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.errors import FewShotError, described  # noqa: E402

# Command to (what it does, an example); its module is runs/preparing/<command>.py.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("render the demo's videos and split lists; nothing is downloaded",
             "python runs/prepare.py demo --out data/demo"),
    "lists": ("make, import or fetch the split lists of a data set, checked",
              "python runs/prepare.py lists ucf101 --videos data/ucf101/videos"),
    "weights": ("fetch CLIP's or ImageNet weights, or take them from a file, checked",
                "python runs/prepare.py weights ViT-B/16"),
    "check": ("find, open and decode every listed video; say what is missing, unreadable, too short",
              "python runs/prepare.py check --cfg X.yaml --write-lists data/checked"),
    "probe": ("show what the decoder sees in a video and which frames each sampling takes",
              "python runs/prepare.py probe video.mp4 --cfg X.yaml --out video.png"),
    "cache": ("decode and resize the frames of every listed video once, for DATA.FRAME_CACHE",
              "python runs/prepare.py cache --cfg X.yaml --out data/frames"),
}


def build_parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, each with its example; a command's module loads where `given` names it."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="runs/prepare.py", description=__doc__, formatter_class=shape,
        epilog="examples:\n" + "\n".join(f"  {example}" for _, example in COMMANDS.values()))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, example) in COMMANDS.items():
        own = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}",
                                  formatter_class=shape)
        if name in given:
            module = importlib.import_module(f"runs.preparing.{name}")
            module.add_arguments(own)
            own.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command's exit status; 1 after a message, 130 when interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(given)
    parsed, more = parser.parse_known_args(given)
    if more and (any(item.startswith("--") for item in more) or not hasattr(parsed, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:  # KEY VALUE pairs behind an option
        parsed.overrides += more
    try:
        return parsed.run(parsed)
    except (FewShotError, OSError) as error:
        sys.stderr.write(f"\n{described(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on where it stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
