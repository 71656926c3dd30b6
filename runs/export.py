"""Write your own actions and their model as a folder that recognises them without torch, and prove it.

The folder holds ONNX files, the actions, and recognise.py, which needs numpy, onnxruntime and av. It is kept only if it
gives the numbers that torch gives. Packages for it: pip install -e '.[export]'
"""

import argparse
from pathlib import Path

EXAMPLES = ("examples: python runs/export.py --pack my.pack --out bundle\n"
            "          python runs/export.py --support my_actions --out bundle --int8\n"
            "          python bundle/recognise.py new.mp4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from runs.predict import add_model_arguments

    parser.add_argument("--support", type=Path, metavar="DIR", help="your clips: a folder an action; they are compared "
                        "as pictures, too")
    parser.add_argument("--pack", type=Path, metavar="FILE", action="append", help="what predict.py --save wrote, in "
                        "place of the clips; several are joined")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the folder to write, not there yet")
    parser.add_argument("--int8", action="store_true", help="write a second tower of 8-bit weights too, smaller and "
                        "faster, whose answers differ; what changes is measured (ViT only)")
    parser.add_argument("--static", action="store_true", help="fix all sizes, as runtimes of phones want it")
    parser.add_argument("--pt2", action="store_true", help="write the same modules for torch.export, too")
    parser.add_argument("--none", default="none", metavar="NAME", help="the folder of clips of none (default: none)")
    parser.add_argument("--strict", action="store_true", help="stop at an example that cannot be read")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that decode (default: one a core)")
    parser.add_argument("--keep", type=float, metavar="SHARE", help="share of clips like yours that is answered "
                        "(default: 0.9)")
    parser.add_argument("--threshold", type=float, metavar="X", help="largest distance that is answered")
    add_model_arguments(parser)


def usage_problem(parsed: argparse.Namespace) -> str | None:
    """Say what is wrong about the options, in place of doing anything; None: nothing."""
    from runs.predict import usage_problem as of_sources

    return of_sources(parsed)


def run(parsed: argparse.Namespace) -> int:
    """Write and prove. Raises FewShotError."""
    from runs.own.export.exporting import export  # torch loads only when there is something to do

    return export(parsed)


if __name__ == "__main__":
    from clip_fsar import start

    start("export")
