"""Hours of training, a worker that is killed, a disk that is full: nothing grows, nothing is lost, and it is said."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from datasets.workers import untold_where_lost, worker_error
from tests.conftest import REPOSITORY
from tests.runs.processes import run_until, spoil
from tests.runs.training.trouble import SHARED, full_disk, kill, patient, small_shared_memory, watch
from utils import checkpoint

pytestmark = pytest.mark.slow

CONSTANT = ("SOLVER.STEPS", "[0]", "SOLVER.LRS", "[1]", "SOLVER.BASE_LR", "1e-4")
WORKERS = ("DATA_LOADER.NUM_WORKERS", "2")
POINTS = (110, 170, 230, 290)  # iterations at which is noted what the run holds
GROWTH = 2.5 * 2**20  # bytes; 50 kB an iteration would be 3 MB from each point to the next


def test_three_hundred_iterations_hold_what_a_hundred_hold(tiny_project):
    """With workers, and a validation every 20 iterations."""
    project, notes = tiny_project("long", NUM_TRAIN_TASKS=300, VAL_FRE_ITER=20), []
    path = project.parent / "usage.jsonl"
    status, text = run_until(project, *CONSTANT, *WORKERS, "LOG_PERIOD", "10",
                             prepare=partial(watch, path, POINTS))
    assert status == 0, text
    notes = [json.loads(line) for line in path.read_text().splitlines()]
    first, last = notes[0], notes[-1]
    # What leaks does so all the time. glibc's arenas and caches grow now and then: 11 MiB at once have been seen.
    assert min(after["bytes"] - before["bytes"] for before, after in pairwise(notes)) < GROWTH, notes
    assert (first["workers"], last["workers"]) == (2, 2), notes
    assert last["threads"] == first["threads"], notes
    # an item of six tensors or so may be under way: what is kept for good would be 20 and more
    assert abs(last["files"] - first["files"]) <= 14 and abs(last["shared"] - first["shared"]) <= 14, notes
    assert not [name for name in os.listdir(SHARED) if f"_{first['process']}_" in name]
    left = {p.name for p in (project.parent / "long").rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"}
    assert left == {".run.lock"}
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(project) in " ".join(p.info["cmdline"] or ())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_videos, write_tiny_project) -> Path:
    """OUTPUT_DIR of a run without interruption."""
    project = write_tiny_project(tmp_path_factory.mktemp("whole"), tiny_videos, "whole")
    status, text = run_until(project, *CONSTANT)
    assert status == 0, text
    return project.parent / "whole"


@pytest.mark.parametrize("status, said", [
    (-signal.SIGSEGV, "loader worker 7 was killed by SIGSEGV: perhaps by a damaged video, which `python "
                      "runs/prepare.py check --cfg X.yaml --every-frame` would find; without workers: "),
    (3, "a loader worker ended before its time (exit status 3); without workers the cause may show: "),
    (0, "a loader worker ended before its time (torch's words); without workers the cause may show: ")])
def test_other_ends_of_workers_in_words(status, said):
    workers = [SimpleNamespace(exitcode=None, pid=6), SimpleNamespace(exitcode=status, pid=7)]
    assert str(worker_error(RuntimeError("torch's words\nand more"), workers)) == (
        said + "DATA_LOADER.NUM_WORKERS (here 2; 0 decodes in the main process)")


def test_a_worker_says_nothing_of_a_connection_that_the_main_process_broke_off(capsys):
    for error in (ConnectionResetError(104, "reset"), EOFError()):
        untold_where_lost(type(error), error, None)
    assert capsys.readouterr().err == ""
    untold_where_lost(ValueError, ValueError("told"), None)
    assert "ValueError: told" in capsys.readouterr().err


def test_an_error_in_the_main_process_does_not_wait_for_workers(tiny_project):
    status, text = run_until(tiny_project("nan"), *CONSTANT, *WORKERS, prepare=partial(patient, spoil, "nan", 3))
    assert status == 1 and "NonFiniteLossError: iteration 2: the loss is not finite" in text, text


def _assert_same_weights(first: Path, second: Path) -> None:
    a, b = (checkpoint.read(d / "checkpoints" / "checkpoint_epoch_00003.pyth")["model_state"] for d in (first, second))
    assert all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("prepare, said", [
    (partial(patient, kill, signal.SIGKILL), r"was killed by SIGKILL: by hand, or as memory ran out ("),
    (partial(patient, kill, signal.SIGBUS), "was killed by SIGBUS; /dev/shm, "),
    (partial(patient, small_shared_memory), "found no room for its clips in shared memory (unable to ")],
    ids=["memory", "bus", "room"])
def test_a_worker_that_ends_is_told_of_and_nothing_is_lost(whole, tiny_project, prepare, said):
    project = tiny_project("lost")
    status, text = run_until(project, *CONSTANT, *WORKERS, prepare=prepare)
    last = text.rstrip().splitlines()[-1]
    assert status == 1 and last.startswith("WorkerError: ") and said in last and "Traceback" not in text, text
    assert last.endswith("DATA_LOADER.NUM_WORKERS (here 2; 0 decodes in the main process)")
    saved = checkpoint.read(project.parent / "lost" / "checkpoints" / "checkpoint_last.pyth")
    done = saved["resume"]["iteration"]
    assert done <= 4
    if "SIGKILL" not in said:
        return  # the same way on for all of them
    status, text = run_until(project, *CONSTANT, *WORKERS)
    assert status == 0 and f"going on from {project.parent}" in text and f"(iteration {done})" in text, text
    _assert_same_weights(whole, project.parent / "lost")


@pytest.mark.parametrize("moment, file, latest", [
    (("atomic_save", 3, 1 << 16), "checkpoints/checkpoint_best.pyth", "epoch_00001"),
    (("atomic_save", 4, 1 << 16), "checkpoints/checkpoint_last.pyth", "epoch_00001"),
    (("atomic_save", 5, 1 << 16), "checkpoints/checkpoint_epoch_00002.pyth", "last"),
    (("write", 5, 1 << 10), "log.jsonl", "epoch_00001"),
    (("plot_curves", 2, 1 << 12), "curves.png", "last"),
    (("write_predictions", 1, 1 << 10), "predictions.parquet", "epoch_00003")],
    ids=["best", "last", "numbered", "log", "curves", "results"])
def test_a_full_disk_spoils_nothing(whole, tiny_project, moment, file, latest):
    project = tiny_project("full")
    directory = project.parent / "full"
    status, text = run_until(project, *CONSTANT, prepare=partial(full_disk, *moment))
    last = text.rstrip().splitlines()[-1]
    kind = "CheckpointError" if "pyth" in file else "DiskError"
    assert status == 1 and last.startswith(f"{kind}: {directory}/{file}: could not be written (File too large)"), text
    assert "MiB are free there" in last and "untouched" in last and "Traceback" not in text
    assert not [p for p in directory.rglob("*.tmp")]
    for line in (directory / "log.jsonl").read_text().splitlines():
        json.loads(line)
    for saved in (directory / "checkpoints").glob("*.pyth"):
        checkpoint.read(saved)
    assert checkpoint.CheckpointStore(directory / "checkpoints").latest().stem == f"checkpoint_{latest}"
    status, text = run_until(project, *CONSTANT)
    assert status == 0 and f"checkpoint_{latest}" in text or "training is complete" in text, text
    _assert_same_weights(whole, directory)


def test_too_little_room_is_saidbeforehand(tmp_path):
    store = checkpoint.CheckpointStore(tmp_path / "checkpoints")
    assert store.room_missing(1) == ""
    said = store.room_missing(1 << 50)
    assert said.startswith(f"{store.directory}: the checkpoints may take 5,368,709,120.0 MiB more (1,073,741,824.0 MiB "
                           "each, TRAIN.KEEP_CHECKPOINTS 2), ")
    assert said.endswith(" MiB are free: the run may end for want of room")


def test_ranks_end_with_their_launcher_before_they_have_imported_anything(tiny_project):
    project = tiny_project("left")
    launcher = subprocess.Popen([sys.executable, "runs/run.py", "--cfg", project, "NUM_PROCESSES", "2", "OUTPUT_DIR",
                                 project.parent / "left"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline, ranks = time.monotonic() + 120, []
    while len(ranks) < 2:
        assert launcher.poll() is None and time.monotonic() < deadline
        ranks = psutil.Process(launcher.pid).children()
    launcher.kill()
    launcher.wait()
    _, alive = psutil.wait_procs(ranks, timeout=60)
    found = [rank.as_dict(["status", "cmdline", "ppid"]) for rank in alive if rank.is_running()]
    for rank in alive:
        rank.kill()
    assert not [facts for facts in found if facts["status"] != psutil.STATUS_ZOMBIE]  # ended, but nobody has looked


def test_however_often_a_signal_comes_the_launcher_outlives_its_ranks(tiny_project, tmp_path):
    """A terminal sends it to all, and the launcher to the ranks again. They save; nothing stays, in no folder."""
    project, temporary = tiny_project("often", NUM_TRAIN_TASKS=4000, VAL_FRE_ITER=4000), tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen([sys.executable, "runs/run.py", "--cfg", project, *CONSTANT, "NUM_PROCESSES", "2"],
                               cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)})
    for line in process.stderr:
        if line.startswith("iteration 2/"):
            break
    ranks = psutil.Process(process.pid).children()
    for _ in range(6):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.01)
    process.wait(60)
    alive = [rank for rank in ranks if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]
    said = process.stderr.read()
    last = project.parent / "often" / "checkpoints" / "checkpoint_last.pyth"
    assert process.returncode == 143 and len(ranks) == 2 and not alive
    assert said.endswith(f"is saved in {last}\n\nstopped by SIGTERM; the same command goes on from {last}\n")
    assert not [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # torch's cache
