"""Choose where a run takes place: in this process, as one rank of a launcher, or in ranks that it starts."""

import sys
from collections.abc import Sequence
from pathlib import Path

from runs.session.preflight import check_names
from runs.session.seeds import run_seeds
from runs.session.session import going_on, run
from utils.config.loader import Resolved
from utils.device import choose_device
from utils.distributed import ALONE, Ranks
from utils.errors import RankError
from utils.signals import Stopped, under_launcher

RUN = str(Path(__file__).parents[1] / "run.py")


def launch(resolved: Resolved, overrides: Sequence[str], arguments: Sequence[str],
           profiled_steps: int | None = None) -> None:
    """Run a configuration, or profile some of its training steps.

    Args:
        overrides: the KEY VALUE pairs it was loaded with. arguments: the command line it came from, for the ranks.

    Raises RankError: another rank has failed, or this one; and as runs.session.session.run.
    """
    cfg = resolved.config
    if profiled_steps is not None:
        from runs.session.profiling import profile  # its plots take as long to import as a list takes to read

        profile(resolved, profiled_steps)
        return
    count = cfg.NUM_GPUS or cfg.NUM_PROCESSES
    if count == 1 and not under_launcher():
        _run(resolved, overrides, ALONE)
        return
    from utils.launch import as_rank, start_ranks  # torch's launcher, which one process does without

    if under_launcher():
        with as_rank(cfg.NUM_GPUS > 0) as ranks:
            _run(resolved, overrides, ranks)
        return
    check_names(resolved)
    choose_device(cfg.NUM_GPUS)
    try:
        start_ranks([sys.executable, RUN, *arguments], count)
    except Stopped as stop:
        raise Stopped(stop.number, going_on(cfg)) from stop
    except RankError as error:
        raise (error if error.reported else RankError(f"{error}; {going_on(cfg)}")) from error


def _run(resolved: Resolved, overrides: Sequence[str], ranks: Ranks) -> None:
    if resolved.config.RANDOM_SEEDS:
        run_seeds(resolved, overrides, ranks)
    else:
        run(resolved, ranks)
