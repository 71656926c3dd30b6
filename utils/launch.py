"""Start ranks as processes, be one of them, and say what ended them."""

import logging
import os
import signal
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

import psutil
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, get_error_handler
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from utils.cores import cores
from utils.distributed import Ranks, is_of_exchange, join_ranks, leave_ranks, lost_rank, rank_of_environment
from utils.errors import FewShotError, LaunchError, LostRankError, RankError, described
from utils.signals import LAUNCHER, STOPPING, Stopped, deaf, handling, number_of

LOST_SECONDS = 5  # a rank that lost another ends this much later, so that the launcher sees the other's end first
_STOPPED = {sign * number + (128 if sign > 0 else 0): number for number in STOPPING for sign in (1, -1)}
_OWN = "clip-fsar-"  # start of the names of our own launches


def start_ranks(command: Sequence[str], count: int) -> None:
    """Run a command `count` times, as the ranks of this machine, and wait for their end.

    When one ends badly the others are ended: by SIGTERM, after 30 s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT) by SIGKILL. A
    SIGINT, SIGTERM or SIGHUP to this process goes to all of them in the same way.

    Raises RankError, Stopped, LaunchError.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own; the cause is raised below
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())  # they look whether it is still there
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    with TemporaryDirectory(prefix="clip_fsar_ranks_", ignore_cleanup_errors=True) as reports:  # torch would leave it
        config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0, local_addr="localhost",
                              run_id=_OWN + uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                              logs_specs=DefaultLogsSpecs(log_dir=reports))
        try:
            elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as error:
            raise _cause(error.failures, count) from error
        except SignalException as stop:
            _outlive_ranks()
            raise Stopped(int(stop.sigval)) from stop
        except (RendezvousError, torch.distributed.DistError) as error:
            raise LaunchError(f"the {count} ranks could not be started: {error}") from error


def _outlive_ranks() -> None:
    """Wait for the ranks' ends, which torch no longer does when more signals come meanwhile: they save first."""
    with handling(STOPPING, signal.SIG_IGN):
        ranks = psutil.Process().children()
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.terminate()
        _, alive = psutil.wait_procs(ranks, timeout=float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")))
        for rank in alive:
            rank.kill()


def _order(failure: ProcessFailure) -> int:
    """Return how unlikely a failure is the first cause: killed, reported error, any other end, stop, lost rank."""
    if said := _recorded(failure):
        return 4 if said.startswith(LostRankError.__name__) else 1
    if failure.exitcode in _STOPPED:
        return 3
    return 0 if failure.exitcode < 0 and failure.exitcode != -signal.SIGABRT else 2


def _recorded(failure: ProcessFailure) -> str:
    """Return what a rank reported of its end; "": nothing."""
    message = failure.error_file_data["message"] if os.path.isfile(failure.error_file) else ""
    return message["message"] if isinstance(message, dict) else message


def _cause(failures: Mapping[int, ProcessFailure], count: int) -> RankError | Stopped:
    """Return why the ranks ended: the error of the one that ended first of itself."""
    rank, failure = min(failures.items(), key=lambda item: (_order(item[1]), item[0]))
    said = _recorded(failure)
    if not said and failure.exitcode in _STOPPED:
        return Stopped(_STOPPED[failure.exitcode])
    if said:
        text = said.splitlines()[0].rstrip(".:")
    elif failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        text = f"killed by {name}" + (" (by hand, or as memory ran out)" if name == "SIGKILL" else "")
    else:
        text = f"exit status {failure.exitcode}"
    return RankError(f"rank {rank} of {count} has ended the run: {text}", reported=bool(said))


@contextmanager
def as_rank(gpus: bool) -> Iterator[Ranks]:
    """Be one of a launcher's ranks while the block lasts.

    Whatever goes wrong is recorded for the launcher. Raises RankError in place of other errors.
    """
    rank, world, _ = rank_of_environment()
    try:
        ranks = join_ranks(gpus)
        yield ranks
        ranks.barrier()
        leave_ranks()
    except KeyboardInterrupt as stop:
        deaf()  # the launcher passes on what the terminal has sent already
        leave_ranks()
        if rank == 0 and not os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(_OWN):
            raise
        raise SystemExit(128 + number_of(stop)) from stop  # rank 0 of torchrun, or the launcher, prints the message
    except Exception as caught:
        error = lost_rank(caught) if is_of_exchange(caught) else caught
        if isinstance(error, LostRankError):
            with suppress(KeyboardInterrupt):
                time.sleep(LOST_SECONDS)
        get_error_handler().record_exception(error)
        if not gpus:  # with nccl, leaving may hang on the lost rank
            leave_ranks()
        if isinstance(error, (FewShotError, OSError)):
            raise RankError(f"rank {rank} of {world}: {described(error)}") from caught
        raise
