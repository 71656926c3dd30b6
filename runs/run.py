"""Train and test from one configuration: python runs/run.py --cfg X.yaml [--print-config] [KEY VALUE ...]"""

import argparse
import re
import sys
from pathlib import Path

# The generic package names (datasets, models, utils) must resolve to this checkout, whatever else is installed.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.command import command  # noqa: E402
from utils.config import resolve_config  # noqa: E402
from utils.config.show import describe_notes, format_config  # noqa: E402


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """--cfg, --print-config, KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="runs/run.py", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train on the train list, select on the val list, test once on the test list.",
        epilog="Every key: configs/pool/base.yaml, or --print-config.\n\n"
               "example: python runs/run.py --cfg configs/projects/demo/CLIPFSAR_Demo_1shot.yaml TRAIN.SHOT_TEST 5")
    parser.add_argument("--cfg", required=True, metavar="YAML", help="project file (configs/projects/...)")
    parser.add_argument("--print-config", action="store_true",
                        help="print every key with the layer its value came from, and stop")
    parser.add_argument("--profile", type=int, metavar="N", help="instead of a run: print where the time of N "
                        "training steps goes, and trace as many; nothing is saved but OUTPUT_DIR/profile")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that win over the files")
    given = sys.argv[1:] if arguments is None else arguments
    # argparse takes -1e-5 for an option; with a blank in front it is a value, and YAML does not mind.
    return parser.parse_intermixed_args([f" {item}" if re.match(r"-[\d.]", item) else item for item in given])


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, 1 after a message that says what to do, 130 or 143 after SIGINT or SIGTERM."""
    parsed = parse_arguments(arguments)

    def run() -> None:
        resolved = resolve_config(parsed.cfg, parsed.overrides)
        if parsed.print_config:
            sys.stdout.write(format_config(resolved))
            sys.stderr.write(describe_notes(resolved))
            return
        from runs.session.launch import launch  # torch and the data sets load only when there is something to run

        launch(resolved, parsed.overrides, sys.argv[1:] if arguments is None else arguments, parsed.profile)

    return command(run)


if __name__ == "__main__":
    sys.exit(main())
