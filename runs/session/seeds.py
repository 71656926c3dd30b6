"""Run the same setting with every seed of RANDOM_SEEDS, one run each, and join their results."""

import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from runs.session.session import run
from utils.config import resolve_config
from utils.config.loader import Resolved
from utils.distributed import ALONE, Ranks
from utils.json_files import write_json
from utils.lock import output_lock


def run_seeds(resolved: Resolved, overrides: Sequence[str], ranks: Ranks = ALONE) -> dict[str, Any]:
    """Train and test every seed of RANDOM_SEEDS in OUTPUT_DIR/seed_<n>; write and return the joint results.json.

    Args:
        resolved: the configuration as loaded. overrides: the KEY VALUE pairs it was loaded with.
        ranks: others than rank 0 return nothing.
    """
    with output_lock(Path(resolved.config.OUTPUT_DIR)) if ranks.main else nullcontext():
        return _run_seeds(resolved, overrides, ranks)


def _run_seeds(resolved: Resolved, overrides: Sequence[str], ranks: Ranks) -> dict[str, Any]:
    seeds, directory = resolved.config.RANDOM_SEEDS or (), Path(resolved.config.OUTPUT_DIR)
    results = []
    for number, seed in enumerate(seeds, start=1):
        if ranks.main:
            sys.stdout.write(f"\nSeed {seed} ({number} of {len(seeds)})\n")
        own = ["RANDOM_SEEDS", "null", "RANDOM_SEED", str(seed), "OUTPUT_DIR", str(directory / f"seed_{seed}")]
        results.append(run(resolve_config(resolved.path, [*overrides, *own]), ranks))
    if not ranks.main:
        return {}
    joint = join(seeds, results)
    write_json(directory / "results.json", joint)
    sys.stdout.write("\n" + in_words(joint) + f"\nWritten to {directory}/results.json\n")
    return joint


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    return {"accuracy": statistics.mean(values), "spread": statistics.stdev(values), "per_seed": list(values)}


def join(seeds: Sequence[int], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and spread (sample standard deviation) over seeds, and what the seeds' results have in common."""
    apart = ("accuracy", "scorings", "per_class", "interval95", "interval95_videos")
    same = {key: value for key, value in results[0].items()
            if key not in apart and all(other.get(key) == value for other in results)}
    return {
        **_over_seeds([one["accuracy"] for one in results]), "seeds": list(seeds),
        "interval95_per_seed": [one["interval95"] for one in results],
        "scorings": {name: _over_seeds([one["scorings"][name]["accuracy"] for one in results])
                     for name in results[0]["scorings"]},
        "runs": [f"seed_{seed}" for seed in seeds],
        **same,
    }


def in_words(joint: dict[str, Any]) -> str:
    """Return the joint result as the last lines of the screen."""
    each = ", ".join(f"{seed}: {value:.2%} +- {half:.2%}" for seed, value, half in zip(
        joint["seeds"], joint["per_seed"], joint["interval95_per_seed"], strict=True))
    return (f"Test accuracy {joint['accuracy']:.2%}, spread {joint['spread']:.2%} (sample standard deviation over "
            f"{len(joint['seeds'])} seeds).\nEach seed with its 95 % interval over episodes: {each}.")
