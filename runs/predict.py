"""Say which of your own actions videos show, from a few example clips of each: my_actions/<action>/*.mp4

Without a checkpoint the model is CLIP as it is, not trained for few shots. KEY VALUE pairs, before the options, change
settings as in run.py.
Exit status: 0, 1 when nothing could be done, 2 wrong usage, 3 when some videos could not be read.
"""

import argparse
from pathlib import Path

EXAMPLES = ("examples: python runs/predict.py --support my_actions --query new.mp4\n"
            "          python runs/predict.py --support my_actions --save my.pack\n"
            "          python runs/predict.py --pack my.pack --query videos/ --out result")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which model is used, and what changes its settings."""
    model = parser.add_argument_group("the model")
    model.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained one; its settings come from it")
    model.add_argument("--cfg", type=Path, metavar="YAML", help="settings of a checkpoint that holds none, such as a "
                       "published one")
    model.add_argument("--weights", metavar="NAME|FILE", help="a tower not trained for few shots: ViT-B/16 (default), "
                       "RN50, ..., or without text MobileNetV2, resnet50, ...; or a file of one")
    model.add_argument("--text", choices=("on", "off"), default="on", help="whether the names of actions are read")
    model.add_argument("--scoring", metavar="NAME", help="how clips are compared, such as prototypes, fused, text")
    model.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that win over the model's own")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--support", type=Path, metavar="DIR", help="your clips: a folder an action; none/ holds clips "
                        "of none of them")
    parser.add_argument("--pack", type=Path, metavar="FILE", action="append", help="what --save wrote, in place of the "
                        "clips; several are joined")
    parser.add_argument("--query", type=Path, metavar="PATH", nargs="+", default=[], help="videos to name, or folders "
                        "of them")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the actions in a file, without pictures")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write predictions.json, predictions.csv and "
                        "index.html there")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="of standard output")
    parser.add_argument("--none", default="none", metavar="NAME", help="the folder of clips of none (default: none)")
    parser.add_argument("--strict", action="store_true", help="stop at an example that cannot be read")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that decode (default: one a core)")
    answers = parser.add_argument_group("unknown actions and long videos")
    answers.add_argument("--keep", type=float, metavar="SHARE", help="share of clips like yours that is answered "
                         "(default: 0.9; in long videos 0.8)")
    answers.add_argument("--threshold", type=float, metavar="X", help="largest distance that is answered")
    answers.add_argument("--balance", action="store_true", help="place the threshold by 20 or more clips of none")
    answers.add_argument("--timeline", choices=("auto", "always", "never"), default="auto", help="find actions in a "
                         "long video (auto: from 3 times the median of your clips)")
    add_model_arguments(parser)
    parser.add_argument("--reference", action="store_true", help="instead: measure on a checkpoint's validation list "
                        "how near clips lie to their own action, and keep it beside the checkpoint: it stands in where "
                        "someone has too few clips")


def usage_problem(parsed: argparse.Namespace) -> str | None:
    """Say what is wrong about the options, in place of doing anything; None: nothing."""
    if not getattr(parsed, "reference", False) and (parsed.support is None) == (parsed.pack is None):
        return "expected --support DIR or --pack FILE" + (", found both" if parsed.support else "")
    if parsed.out is not None and parsed.out.exists() and not parsed.out.is_dir():
        return f"--out: expected a folder, found the file {parsed.out}"
    if parsed.jobs is not None and parsed.jobs < 1:
        return f"--jobs: expected at least 1, found {parsed.jobs}"
    return None


def run(parsed: argparse.Namespace) -> int:
    """Learn, answer, write. Raises FewShotError."""
    from runs.own.predicting import predict  # torch loads only when there is something to do

    return predict(parsed)


if __name__ == "__main__":
    from clip_fsar import start

    start("predict")
