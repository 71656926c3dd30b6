"""Rewrites a golden file so that what a generator drew is kept as its place in the generator's sequence:
python tests/golden/shrink.py PUBLISHED.npz SMALL.npz

Nothing is lost: every array is read back and compared bit by bit before the command ends.
"""

import json
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.golden.arrays import RECIPES, GoldenFile, clips, digest, drawn, uniform

LENGTH = 8_000_000  # of the sequence of seed 0 that is searched: it begins with the tower and its text half
SMALLEST = 64  # values; below it an array is stored as it is
GROUPS = {"train": 12, "eval": 7}  # classes of a case's split, by its mode: as many are shuffled before it is drawn


def ranges(data, name: str) -> set[tuple[float, float]]:
    """The ranges that torch's layers draw a weight from, by its shape, or a bias, by its weight's; and (0, 2)."""
    sibling = name.removesuffix("bias") + "weight"
    weight = data[sibling if name.endswith(".bias") and sibling in data.files else name]
    outputs, inputs = weight.shape[0], int(np.prod(weight.shape[1:]))
    bounds = {float(np.float32(bound)) for bound in (inputs**-0.5, (6 / (inputs + outputs)) ** 0.5)}
    return {(0.0, 2.0)} | {(-bound, bound) for bound in bounds}


def uniform_recipe(data, name: str) -> dict | None:
    """Where in the sequence of seed 0 an array was drawn from a range, or None."""
    array = data[name]
    if array.dtype != np.float32 or array.size < SMALLEST:
        return None
    for low, high in ranges(data, name):
        expected = (float(array.flat[0]) - low) / (high - low) * 2**24
        for first in np.flatnonzero(np.abs(drawn(0, LENGTH) - expected) <= 2).tolist():
            found = uniform(drawn(0, LENGTH)[first:first + array.size], low, high)
            if found.size == array.size and np.array_equal(found, array.reshape(-1)):
                return {"uniform": [first, low, high]}
    return None


def clips_recipe(data, name: str) -> dict | None:
    """How the clips of a case were drawn, or None: after seeding with the length of the case's name, and shuffling
    classes, supports and queries; the supports' noise first."""
    case, _, what = name.partition("/in/")
    if what not in ("support_set_x16", "target_set_x16"):
        return None
    labels = {kind: data[f"{case}/in/real_{kind}_labels"].astype(int).tolist() for kind in ("support", "target")}
    size, kind = data[name].size // len(labels[what[:-8]]), what[:-8]
    first = GROUPS[json.loads(str(data[f"{case}/options"]))["mode"]] - 1 + sum(len(v) - 1 for v in labels.values())
    first += len(labels["support"]) * size if kind == "target" else 0
    found = np.rint(clips(len(case), first, labels[kind], size)).astype(np.int8)
    flat = data[name].reshape(-1)
    places = np.flatnonzero(found != flat).tolist()  # rounded otherwise in float32
    if len(places) > 10:
        return None
    return {"clips": [len(case), first, labels[kind]], "fixes": [[place, int(flat[place])] for place in places]}


def shrink(published: Path, out: Path) -> None:
    """Write the small form of a published file."""
    data, stored, recipes, seen = np.load(published), {}, {}, {}
    for name in data.files:
        array = data[name]
        key = digest(array)
        recipe = uniform_recipe(data, name) or clips_recipe(data, name)
        if array.size >= SMALLEST and key in seen:
            recipes[name] = {"equals": seen[key]}
        elif recipe:
            recipes[name] = {**recipe, "shape": list(array.shape), "sha256": key}
        else:
            stored[name] = array
        seen.setdefault(key, name)
    np.savez_compressed(out, **{RECIPES: np.array(json.dumps(recipes))}, **stored)
    small = GoldenFile(out)
    assert sorted(small.files) == sorted(data.files)
    assert all(digest(small[name]) == digest(data[name]) for name in data.files)
    sys.stdout.write(f"{published.stat().st_size} -> {out.stat().st_size} bytes: {len(recipes)} of {len(data.files)} "
                     "arrays are drawn anew or equal another\n")


if __name__ == "__main__":
    shrink(Path(sys.argv[1]), Path(sys.argv[2]))
