"""What a number is a number of: names of split lists and data sets."""

from collections.abc import Sequence
from functools import cache

from utils.config.class_names import CLASSES, names_by_split, pool_names, read_class_names
from utils.config.layers import POOL, read_layer
from utils.config.schema import Config


@cache
def _known_lists() -> dict[tuple[str, str], str]:
    """(split, hash) to the list's name."""
    values = read_layer(POOL / "lists.yaml").values
    return {(split, digest): name for name, splits in values.items() for split, digest in splits.items()}


def list_name(split: str, digest: str) -> str:
    """Name of a split list by its hash (annotations.list_hash): a published one's, else custom-<first 8 digits>."""
    return _known_lists().get((split, digest), f"custom-{digest[:8]}")


def foreign_names(split: str, digest: str, names: Sequence[str]) -> str | None:
    """What is wrong where a published list of one data set meets the class names of another; None: nothing.

    Lists hold class indices only, and SSv2-Full and SSv2-Small have equally many classes: nothing else would tell.
    """
    own = list_name(split, digest)
    data_set = own.split("@")[0]
    if data_set not in pool_names() or _pool_classes(data_set, split) == tuple(names):
        return None
    other = next((name for name in pool_names() if _pool_classes(name, split) == tuple(names)), None)
    return other and f"this is {own}, whose class indices are those of {data_set}, but the {split} class names are " \
                     f"{other}'s"


def _pool_classes(name: str, split: str) -> tuple[str, ...] | None:
    return read_class_names(CLASSES / f"{name}.yaml").splits.get(split)


def data_set_name(cfg: Config) -> str:
    """The class file of the pool whose test classes these are; else custom."""
    test = names_by_split(cfg).get("test")
    for name in ([cfg.DATA.CLASSES] if cfg.DATA.CLASSES in pool_names() else pool_names()):
        if read_class_names(CLASSES / f"{name}.yaml").splits.get("test") == test:
            return name
    return "custom"
