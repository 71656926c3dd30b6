"""Reads golden arrays, whether they are stored or drawn anew from the generator that made them (see README.md here)."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

RECIPES = "recipes"  # the entry of a file that says which of its arrays are not stored


@lru_cache(maxsize=2)
def drawn(seed: int, end: int) -> np.ndarray:
    """The first `end` numbers of 24 bits that a Mersenne Twister gives, which is what torch's CPU generator makes
    float32 values of."""
    return np.random.RandomState(seed).randint(0, 2**32, end, dtype=np.uint32) & np.uint32(0xFFFFFF)


def uniform(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    """What torch.empty(n).uniform_(low, high) makes of numbers of 24 bits: one rounding, to float32."""
    return (numbers / 2.0**24 * (high - low) + low).astype(np.float32)


def normal(numbers: np.ndarray) -> np.ndarray:
    """What torch.randn makes of numbers of 24 bits, a multiple of 16 of them, but for the rounding: float64."""
    first, second = np.moveaxis(numbers.reshape(-1, 2, 8) / 2.0**24, 1, 0)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)


def clips(seed: int, first: int, classes: list[int], size: int) -> np.ndarray:
    """Clips of `size` values each, in sixteenths, before they are rounded: the pattern of the clip's class and noise of
    its own, in equal parts. A class's pattern is drawn from the seed 1000 + class."""
    patterns = {one: normal(drawn.__wrapped__(1000 + one, size)) for one in sorted(set(classes))}
    noise = normal(drawn.__wrapped__(seed, first + len(classes) * size)[first:])
    return 16 * (0.7 * np.concatenate([patterns[one] for one in classes]) + 0.7 * noise)


def digest(array: np.ndarray) -> str:
    """A hash of an array's type, shape and values."""
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


class GoldenFile:
    """The arrays of a golden file by name, as numpy.load gives them: `files` lists the names. One that is drawn anew
    and has not the hash that was written down for it is a ValueError that names it."""

    def __init__(self, path: Path):
        self.path, self._stored = path, np.load(path)
        self._recipes = json.loads(str(self._stored[RECIPES])) if RECIPES in self._stored.files else {}
        self.files = [*(name for name in self._stored.files if name != RECIPES), *self._recipes]
        self._end = max((one["uniform"][0] + int(np.prod(one["shape"])) for one in self._recipes.values()
                         if "uniform" in one), default=0)

    def __getitem__(self, name: str) -> np.ndarray:
        recipe = self._recipes.get(name)
        if recipe is None:
            return self._stored[name]
        if "equals" in recipe:
            return self[recipe["equals"]]
        shape = tuple(recipe["shape"])
        if "uniform" in recipe:
            first, low, high = recipe["uniform"]
            found = uniform(drawn(0, self._end)[first:first + int(np.prod(shape))], low, high)
        else:
            seed, first, classes = recipe["clips"]
            found = np.rint(clips(seed, first, classes, int(np.prod(shape)) // len(classes))).astype(np.int8)
            for place, value in recipe["fixes"]:
                found[place] = value
        found = found.reshape(shape)
        if digest(found) != recipe["sha256"]:
            raise ValueError(f"{self.path}: {name}: what was drawn anew has not the hash of the published array")
        return found
