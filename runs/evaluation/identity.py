"""Name what a number was measured on: split lists and data sets."""

from collections.abc import Iterable, Sequence
from functools import cache

from utils.config.class_names import CLASSES, names_by_split, pool_names, read_class_names
from utils.config.layers import POOL, read_layer
from utils.config.schema import Config


@cache
def _known_lists() -> dict[tuple[str, str], str]:
    """Return the names of the published lists by (split, hash)."""
    values = read_layer(POOL / "lists.yaml").values
    return {(split, digest): name for name, splits in values.items() for split, digest in splits.items()}


def list_name(split: str, digest: str) -> str:
    """Name a split list by its hash (annotations.list_hash): a published one, else custom-<first 8 digits>."""
    return _known_lists().get((split, digest), f"custom-{digest[:8]}")


def foreign_names(split: str, digest: str, names: Sequence[str]) -> str | None:
    """Say what is wrong if a published list of one data set meets the class names of another; None: nothing.

    Lists hold class indices only, and SSv2-Full and SSv2-Small have equally many classes: nothing else would tell.
    """
    own = list_name(split, digest)
    data_set = own.split("@")[0]
    if data_set not in pool_names() or _data_set_with(split, names, [data_set]):
        return None
    other = _data_set_with(split, names, pool_names())
    return other and f"this is {own}, whose class indices are those of {data_set}, but the {split} class names are " \
                     f"{other}'s"


def data_set_name(cfg: Config) -> str:
    """Name the class file of the pool whose test classes these are, DATA.CLASSES before others; else custom."""
    candidates = sorted(pool_names(), key=lambda name: name != cfg.DATA.CLASSES)
    return _data_set_with("test", names_by_split(cfg).get("test"), candidates) or "custom"


def _data_set_with(split: str, names: Sequence[str] | None, candidates: Iterable[str]) -> str | None:
    """Return the first of the pool's class files with these classes in a split."""
    wanted = names and tuple(names)
    return next((name for name in candidates
                 if read_class_names(CLASSES / f"{name}.yaml").splits.get(split) == wanted), None)
