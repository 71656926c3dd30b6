"""Writes modules as ONNX files, and as torch.export files: two formats that other runtimes take."""

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.errors import ExportError

NEEDED = ("onnx", "onnxscript", "onnxruntime")
ONE_FILE = 1_900_000_000  # bytes of weights that fit into an ONNX file with the graph; more lie in a file beside it


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Holds a module that is exported, and one example of each of its inputs.

    Args:
        name: of its files. inputs: name to (example, names of the leading dimensions that may vary; none: all are as
            in the example). output: the name of what it gives.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, tuple[Tensor, Sequence[str]]]
    output: str


def check_installed() -> None:
    """Raise ExportError where a package that export needs is not installed."""
    missing = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ExportError(f"export needs {', '.join(missing)}, not installed here: pip install -e '.[export]' in the "
                          "checkout (clip-fsar's extra)")


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what exporters say of their own workings from the screen."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch.export", "root")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def write_part(part: Part, directory: Path, pt2: bool) -> None:
    """Write NAME.onnx, and NAME.pt2 where that is wanted. Raises ExportError: the exporter cannot take the module."""
    module = part.module.eval()
    examples = tuple(example for example, _ in part.inputs.values())
    dims = {name: torch.export.Dim(name) for _, names in part.inputs.values() for name in names}
    shapes = [{at: dims[name] for at, name in enumerate(names)} for _, names in part.inputs.values()]
    big = sum(value.nbytes for value in module.state_dict().values()) > ONE_FILE
    with quietly(), torch.no_grad():
        try:
            program = torch.export.export(module, examples, dynamic_shapes=tuple(shapes))
            if pt2:
                torch.export.save(program, directory / f"{part.name}.pt2")
            torch.onnx.export(program, (), str(directory / f"{part.name}.onnx"), input_names=list(part.inputs),
                              output_names=[part.output], dynamic_shapes=tuple(shapes), dynamo=True, external_data=big,
                              verbose=False)
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"{part.name}: {type(module).__name__} cannot be exported: "
                              f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
                              ) from error
