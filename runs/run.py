"""Train on the train list, select on the val list, test once on the test list: python runs/run.py --cfg X.yaml

Every key is in configs/pool/base.yaml; --print-config shows the value of each.
"""

import argparse
import sys

EXAMPLES = "example: python runs/run.py --cfg configs/projects/demo/CLIPFSAR_Demo_1shot.yaml TRAIN.SHOT_TEST 5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --cfg, --print-config, --profile, KEY VALUE pairs."""
    parser.add_argument("--cfg", required=True, metavar="YAML", help="project file (configs/projects/...)")
    parser.add_argument("--print-config", action="store_true",
                        help="print every key with the layer its value came from, and stop")
    parser.add_argument("--profile", type=int, metavar="N", help="instead of a run: print where the time of N "
                        "training steps goes, and trace as many; nothing is saved but OUTPUT_DIR/profile")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that win over the files")


def run(parsed: argparse.Namespace) -> None:
    """Print the configuration, profile it, or run it. Raises FewShotError."""
    from runs.session.fresh import check_machine, unknown_head
    from utils.collecting import uncollected
    from utils.command import printed
    from utils.config import resolve_config
    from utils.config.show import describe_notes, format_config

    resolved = resolve_config(parsed.cfg, parsed.overrides)
    if parsed.print_config:
        printed(format_config(resolved))
        foreign = unknown_head(resolved)
        sys.stderr.write(describe_notes(resolved) + (f"note: {foreign}\n" if foreign else ""))
        return
    check_machine(resolved)
    with uncollected(loads="torch"):
        from runs.session.launch import launch  # torch and the data sets load only when there is something to run

    launch(resolved, parsed.overrides, parsed.given, parsed.profile)


if __name__ == "__main__":
    from clip_fsar import start

    start("run")
