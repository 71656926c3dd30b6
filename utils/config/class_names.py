"""Read a data set's class names, written once in configs/pool/classes, and fill them in where a project has none."""

from dataclasses import dataclass
from operator import attrgetter
from os.path import isfile  # False where a name is too long for a file, at which Path.is_file raises
from pathlib import Path
from typing import Any

from utils.config.layers import POOL, read_layer
from utils.config.schema import Config
from utils.errors import ConfigError
from utils.registry import nearest

CLASSES = POOL / "classes"
TARGETS = {"train": "TRAIN.CLASS_NAME", "val": "TRAIN.VAL_CLASS_NAME", "test": "TEST.CLASS_NAME"}


@dataclass(frozen=True)
class ClassNames:
    """Hold the names of each split of one class file, in the order of the class index."""

    file: str
    splits: dict[str, tuple[str, ...]]


def names_by_split(cfg: Config) -> dict[str, tuple[str, ...]]:
    """Return the class names of the splits that have them."""
    found = {split: attrgetter(key)(cfg) for split, key in TARGETS.items()}
    return {split: names for split, names in found.items() if names}


def pool_names() -> list[str]:
    """Return the class files of the pool by name: what DATA.CLASSES can say."""
    return sorted(path.stem for path in CLASSES.glob("*.yaml"))


def locate(classes: str, project: Path) -> Path:
    """Return the file DATA.CLASSES means: a name of the pool, else a path (from here, else from the project file)."""
    if not classes.endswith((".yaml", ".yml")) and "/" not in classes:
        if classes not in pool_names():
            known = f"known: {', '.join(pool_names())}, or a path to a .yaml file"
            advice = nearest(classes, pool_names()) or known
            raise ConfigError([f"DATA.CLASSES: no class file {classes!r}; {advice}"])
        return CLASSES / f"{classes}.yaml"
    places = [Path(classes), project.parent / classes]
    for path in places:
        if isfile(path):
            return path
    raise ConfigError([f"DATA.CLASSES: no such file: {' or '.join(dict.fromkeys(str(path)[:200] for path in places))}"])


def _split(name: str, split: Any, names: Any) -> list[str]:
    """Return what is wrong with one split's list."""
    if split not in TARGETS:
        return [f"{name}: {split}: expected train, val or test"]
    if not isinstance(names, list):
        return [f"{name}: {split}: expected a list of class names, found {names!r}"]
    return [f"{name}: {split}: class {index} is {item!r}, not text; put it in quotes"
            for index, item in enumerate(names) if not isinstance(item, str)]


def read_class_names(path: Path) -> ClassNames:
    """Read a class file, {any name: {train: [...], val: [...], test: [...]}}. Raises ConfigError naming the problem."""
    layer = read_layer(path)
    inner = list(layer.values.values())
    if len(inner) != 1 or not isinstance(inner[0], dict):
        raise ConfigError([f"{layer.name}: expected one data set with the lists train, val and test, found "
                           f"{len(inner)} entries ({', '.join(str(key) for key in list(layer.values)[:3])})"])
    given = {split: names for split, names in inner[0].items() if names is not None}
    problems = [text for split, names in given.items() for text in _split(layer.name, split, names)]
    if problems:
        raise ConfigError(problems)
    return ClassNames(layer.name, {split: tuple(names) for split, names in given.items()})


def match_train(train: tuple[str, ...]) -> ClassNames | None:
    """Return the pool's class file with exactly these training classes in this order, if there is one."""
    for name in pool_names():
        found = read_class_names(CLASSES / f"{name}.yaml")
        if "train" in found.splits and found.splits["train"] == train:
            return found
    return None


def fill(values: dict[str, Any], project: Path) -> tuple[dict[str, str], list[str]]:
    """Fill the class names that are null in `values` (in place); return the file of each key filled in, and notes.

    DATA.CLASSES decides; without it, training classes that are those of a pool file bring that file's val classes.
    """
    found: ClassNames | None = None
    wanted = list(TARGETS)
    if values["DATA.CLASSES"] is not None:
        found = read_class_names(locate(values["DATA.CLASSES"], project))
    elif values["TRAIN.CLASS_NAME"] is not None and values["TRAIN.VAL_CLASS_NAME"] is None:
        found, wanted = match_train(values["TRAIN.CLASS_NAME"]), ["val"]
    if found is None:
        return {}, []
    by_key = {TARGETS[split]: found.splits[split] for split in wanted
              if values[TARGETS[split]] is None and split in found.splits}
    if not by_key:
        return {}, [f"DATA.CLASSES: has no effect: the class names that {found.file} has are set by name"]
    values.update(by_key)
    notes = [] if values["DATA.CLASSES"] is not None else [
        f"{TARGETS['val']}: taken from {found.file}, which has the same training classes"]
    return dict.fromkeys(by_key, found.file), notes
