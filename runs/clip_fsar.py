"""CLIP-FSAR: few-shot action recognition. Every command is `clip-fsar COMMAND ...`, or a file of runs/."""

import argparse
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

# Command to (what it does, an example). A command is a module whose docstring is its help, with
# add_arguments(parser) and run(parsed), which returns an exit status or None. A module with COMMANDS of its own is a
# group of commands, which its load(name) gives.
COMMANDS = {
    "run": ("train on the train list, select on the val list, test once on the test list",
            "python runs/run.py --cfg configs/projects/demo/CLIPFSAR_Demo_1shot.yaml"),
    "prepare": ("make a data set ready: split lists, weights, checks, frame caches", "python runs/prepare.py --help"),
    "predict": ("say which of your own actions videos show, from a few clips of each",
                "python runs/predict.py --support my_actions --query new.mp4"),
    "serve": ("open a local page for your own clips: add some, by webcam too, and see what it does",
              "python runs/serve.py --dir my_actions"),
    "export": ("write your own actions as a folder that recognises them without torch",
               "python runs/export.py --pack my.pack --out bundle"),
    "table": ("put the results of runs into a table for a paper", "python runs/table.py output/A output/B"),
    "compare": ("compare two tests of the same episodes, query by query", "python runs/compare.py output/A output/B"),
    "sweep": ("run every combination of settings", "python runs/sweep.py --cfg X.yaml --grid TRAIN.SHOT=1,5"),
    "benchmark": ("measure how fast each part is", "python runs/benchmarks/run.py --quick"),
}


def load(name: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module("runs.benchmarks.run" if name == "benchmark" else f"runs.{name}")


def start(*names: str) -> NoReturn:
    """Run this process' command line, with `names` before its arguments, and exit with the command's status.

    datasets, models and utils are generic names: this checkout takes the place of the script's folder on sys.path, so
    that they mean its packages, whatever else is installed.
    """
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.signals import ended_once

    with ended_once():
        sys.exit(main([*names, *sys.argv[1:]]))


def _parser(module: Any, prog: str, example: str) -> argparse.ArgumentParser:
    """The parser of a command, or of a group, whose help lists its commands with their examples."""
    commands = getattr(module, "COMMANDS", {})
    lines = [f"  {name}: {text}\n    {example}\n" for name, (text, example) in commands.items()]
    epilog = "".join(["commands:\n", *lines]) if commands else getattr(module, "EXAMPLES", f"example: {example}")
    parser = argparse.ArgumentParser(prog=prog, description=module.__doc__, epilog=epilog,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    else:
        parser.add_argument("command", choices=commands, metavar="COMMAND", help=", ".join(commands))
    return parser


def main(arguments: list[str]) -> int:
    """Run the command that `arguments` begin with; returns its exit status (see utils.command)."""
    from utils.command import command, keep_screens  # utils is this checkout's once `start` has run
    from utils.signals import end_with_launcher

    end_with_launcher()
    keep_screens()

    def work() -> int | None:  # with the reading: a module may import torch, which takes its time
        module, parsed = read(arguments)
        status: int | None = module.run(parsed)
        return status

    return command(work)


def read(arguments: list[str]) -> tuple[Any, argparse.Namespace]:
    """Return a command's module and its arguments. Raises SystemExit: wrong usage, or --help, which is printed."""
    given, prog, example = list(arguments), "", ""
    module: Any = sys.modules[__name__]
    while given and given[0] in getattr(module, "COMMANDS", {}):
        name, example = given[0], module.COMMANDS[given[0]][1]
        module = module.load(given.pop(0))
        prog = f"{prog} {name}" if prog else f"{module.__name__.replace('.', '/')}.py"
    parser = _parser(module, prog or "clip-fsar", example)
    known = parser._option_string_actions
    for item in given:  # else argparse takes its value for another argument, and complains of that
        if re.match("--[a-z]", item) and not any(name.startswith(item.partition("=")[0]) for name in known):
            parser.error(f"unrecognized arguments: {item}")
    # argparse takes -1e-5 and -dash.mp4 for options; with a blank in front, for as long as it looks, they are values.
    marked = {f" {item}": item for item in given if re.match(r"-(?!-|h?$)", item)}
    parsed = parser.parse_intermixed_args([f" {item}" if f" {item}" in marked else item for item in given])
    for name, value in vars(parsed).items():
        values = [type(one)(marked.get(str(one), one)) if isinstance(one, (str, Path)) else one
                  for one in (value if isinstance(value, list) else [value])]
        setattr(parsed, name, values if isinstance(value, list) else values[0])
    if problem := getattr(module, "usage_problem", lambda _: None)(parsed):
        parser.error(problem)
    parsed.given = given
    return module, parsed


if __name__ == "__main__":
    start()
