"""runs/run.py as one rank, where something happens to one of them: see processes.run_until."""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from runs import learner  # noqa: E402
from runs.run import main  # noqa: E402
from tests.runs.processes import install  # noqa: E402
from utils.errors import VideoDecodeError  # noqa: E402


def spoil(what: str, iteration: int) -> None:
    """Make the loss of an iteration (from 1) NaN, or raise in it: "nan", "typed" or "bug"."""
    original, calls = learner.step_losses, iter(range(1, 10**6))

    def wrapped(*arguments):
        losses, correct = original(*arguments)
        if next(calls) == iteration:
            if what == "typed":
                raise VideoDecodeError("a.mp4", "cannot be read")
            if what == "bug":
                raise ZeroDivisionError("a bug")
            losses = {name: loss * float("nan") for name, loss in losses.items()}
        return losses, correct

    learner.step_losses = wrapped


def arrange(moment: str) -> None:
    """What is to happen to this rank."""
    what, _, iteration = moment.partition(":")
    if what in ("nan", "typed", "bug"):
        spoil(what, int(iteration))
    else:
        install(moment, int(os.environ["MOMENT_SIGNAL"]))


if __name__ == "__main__":
    if os.environ.get("MOMENT_RANK") == os.environ["RANK"]:
        arrange(os.environ["MOMENT"])
    sys.exit(main())
