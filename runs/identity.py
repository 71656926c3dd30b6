"""What a number is a number of: names of split lists and data sets."""

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


def data_set_name(cfg: Config) -> str:
    """The class file of the pool whose test classes these are; else custom."""
    test = names_by_split(cfg).get("test")
    for name in ([cfg.DATA.CLASSES] if cfg.DATA.CLASSES in pool_names() else pool_names()):
        if read_class_names(CLASSES / f"{name}.yaml").splits.get("test") == test:
            return name
    return "custom"
