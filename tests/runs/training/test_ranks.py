"""Several ranks: what one rank would find, whoever dies, whatever their number after a restart. CPU, gloo.

Most ranks are forked from a process that has imported everything (tests.runs.processes); the commands of users are run
at the end.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runs.training import state
from tests.conftest import REPOSITORY, TINY_TOWER, called
from tests.runs.processes import run_until
from utils import checkpoint
from utils.config import resolve_config
from utils.distributed import Ranks
from utils.errors import ConfigError

pytestmark = pytest.mark.slow

main = called("run")

CONSTANT = ("SOLVER.STEPS", "[0]", "SOLVER.LRS", "[1]", "SOLVER.BASE_LR", "1e-4")
TEST_ONLY = ("TRAIN.ENABLE", "false", "TEST.ENABLE", "true")
KEY_BIAS = "attn.in_proj_bias"  # its key part has no gradient but rounding, which Adam blows up to its learning rate


def _state(directory: Path, name: str = "checkpoint_epoch_00002.pyth") -> dict:
    return checkpoint.read(directory / "checkpoints" / name)


def _difference(first: dict, second: dict) -> float:
    """The largest difference of two states' weights."""
    a, b = first["model_state"], second["model_state"]
    assert a.keys() == b.keys()
    return max((value.float() - b[name].float()).abs().max().item() for name, value in a.items()
               if not name.endswith(KEY_BIAS))


def _records(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def _run(project: Path, name: str, *settings: str, **moment) -> tuple[int, str, Path]:
    """(exit status, output, OUTPUT_DIR) of a run of a project in a directory of its own."""
    directory = project.parent / name
    status, text = run_until(project, "OUTPUT_DIR", str(directory), *settings, **moment)
    return status, text, directory


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_videos, write_tiny_project) -> Path:
    """Four iterations of two ranks, two of them a step."""
    return write_tiny_project(tmp_path_factory.mktemp("ranks"), tiny_videos, "tiny", NUM_TRAIN_TASKS=4, VAL_FRE_ITER=2,
                              BATCH_SIZE=2, BATCH_SIZE_PER_TASK=2, NUM_TEST_TASKS=37)


@pytest.fixture(scope="module")
def two(project) -> Path:
    """OUTPUT_DIR of two ranks without interruption."""
    status, text, directory = _run(project, "two", *CONSTANT, "NUM_PROCESSES", "2")
    assert status == 0, text
    return directory


@pytest.mark.parametrize("reduction, divisor", [("mean", "4"), ("sum", "2")])
def test_two_ranks_learn_what_one_rank_learns(project, two, reduction, divisor):
    """2 ranks x 2 iterations a step, 1 rank x 4: the same loss curve and weights."""
    pair = two if reduction == "mean" else None
    if pair is None:
        status, text, pair = _run(project, "sum", *CONSTANT, "NUM_PROCESSES", "2", "TRAIN.RANK_GRADIENTS", "sum")
        assert status == 0, text
    status, text, one = _run(project, f"one_{reduction}", *CONSTANT, "TRAIN.NUM_TRAIN_TASKS", "8",
                             "TRAIN.VAL_FRE_ITER", "4", "TRAIN.BATCH_SIZE_PER_TASK", "4", "TRAIN.BATCH_SIZE", divisor)
    assert status == 0, text
    a, b = _state(one), _state(pair)
    assert _difference(a, b) < 1e-6
    assert (a["resume"]["episodes"], b["resume"]["episodes"], b["resume"]["iteration"]) == (8, 8, 4)
    scale = int(divisor) / 2
    curves = [[record["loss"] for record in _records(d) if record["kind"] == "train"] for d in (one, pair)]
    assert [scale * loss for loss in curves[0][1::2]] == pytest.approx(curves[1], abs=1e-6)
    assert a["resume"]["window"]["accuracy"] == b["resume"]["window"]["accuracy"]


@pytest.mark.parametrize("store", ["true", "false"])
def test_shards_of_an_evaluation_give_the_same_bytes(project, two, store):
    """37 episodes and 20 clips over 1, 2 and 3 ranks, with features and one by one."""
    best, found = str(two / "checkpoints" / "checkpoint_best.pyth"), []
    settings = (*TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH", best, "TEST.FEATURE_STORE", store, "TEST.ENCODE_BATCH", "3")
    for ranks in (1, 2, 3):
        directory = project.parent / "test"
        shutil.rmtree(directory, ignore_errors=True)
        status, text, _ = _run(project, "test", *settings, "NUM_PROCESSES", str(ranks))
        assert status == 0, text
        found.append([(directory / name).read_bytes() for name in (
            "results.json", "predictions.parquet", "confusion.csv")])
    assert found[0] == found[1] == found[2]


def test_features_are_kept_and_read_by_two_ranks(project, two, tmp_path):
    settings = (*TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH", str(two / "checkpoints" / "checkpoint_best.pyth"),
                "TEST.FEATURE_STORE_DIR", str(tmp_path), "NUM_PROCESSES", "2")
    found = []
    for said in ("kept in", "read from"):
        shutil.rmtree(project.parent / "kept", ignore_errors=True)
        status, text, directory = _run(project, "kept", *settings)
        assert status == 0 and f"features of 80 clips of the test list {said}" in text, text
        found.append((directory / "results.json").read_bytes())
    assert found[0] == found[1]


def test_a_rank_that_dies_ends_the_run_and_the_next_start_resumes(project, two):
    """Each start goes on from the validation at iteration 2, and ends in another way; the last one comes to the end."""
    for start, (moment, said) in enumerate((
            ("iteration:3", "killed by SIGKILL"),
            ("nan:1", "NonFiniteLossError: iteration 2: the loss is not finite"),
            ("typed:2", "VideoDecodeError: a.mp4: cannot be read"), ("bug:1", "ZeroDivisionError: a bug"),
            ("validation:1", "killed by SIGKILL"))):
        status, text, directory = _run(project, "dies", *CONSTANT, "NUM_PROCESSES", "2", moment=moment, rank=1)
        last = text.rstrip().splitlines()[-1]
        assert status == 1 and last.startswith(f"RankError: rank 1 of 2 has ended the run: {said}"), text
        assert "\nRankError: rank 0 of 2: LostRankError: " in text or "killed" in said
        assert ("going on from" in text) == (start > 0), text
    status, text, _ = _run(project, "dies", *CONSTANT, "NUM_PROCESSES", "2")
    assert status == 0 and "going on from" in text, text
    assert _difference(_state(two), _state(directory)) == 0


def _assert_same_end(two: Path, directory: Path) -> None:
    """Weights, figures of the last iterations, results."""
    assert _difference(_state(two), _state(directory)) == 0
    assert torch.equal(*(torch.tensor(_state(d)["resume"]["window"]["loss"]) for d in (two, directory)))
    results = [json.loads((d / "results.json").read_text()) for d in (two, directory)]
    assert {**results[0], "checkpoint": ""} == {**results[1], "checkpoint": ""}


def test_sigterm_saves_and_the_restart_continues_exactly(project, two):
    """To the launcher, as from Slurm, in the middle of a step; in a validation; to one rank alone."""
    for moment, rank, saved in (("parent iteration:1", 0, 1), ("parent validation:1", 0, 2), ("iteration:1", 1, 3)):
        status, text, directory = _run(project, "term", *CONSTANT, "NUM_PROCESSES", "2", moment=moment, rank=rank,
                                       number=signal.SIGTERM)
        assert status == 143 and "Traceback" not in text, text
        end = rf"\nstopped by SIGTERM; the same command goes on from {directory}/checkpoints/checkpoint_last.pyth\n$"
        assert re.search(end, text), text
        assert _state(directory, "checkpoint_last.pyth")["resume"]["iteration"] == saved
        assert ("going on from" in text) == (saved > 1), text
    status, text, _ = _run(project, "term", *CONSTANT, "NUM_PROCESSES", "2")
    assert status == 0 and "going on from" in text, text
    _assert_same_end(two, directory)


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_another_number_of_ranks_goes_on_with_the_next_episodes(project, before, after):
    """Stopped in the middle of a step: the gradients so far are carried over, and no episode comes twice."""
    name = f"from{before}to{after}"
    status, text, directory = _run(project, name, *CONSTANT, "NUM_PROCESSES", str(before), moment="iteration:3",
                                   number=signal.SIGTERM, **({"rank": 0} if before > 1 else {}))
    assert status == 143, text
    stopped = _state(directory, "checkpoint_last.pyth")["resume"]
    assert (stopped["iteration"], stopped["episodes"]) == (3, 3 * before) and stopped["gradients"]
    status, text, _ = _run(project, name, *CONSTANT, "NUM_PROCESSES", str(after))
    assert status == 0 and "(iteration 3)" in text, text
    assert _state(directory)["resume"]["episodes"] == 3 * before + after


@pytest.mark.parametrize("world, mean, first", [(1, True, 3.0), (1, False, 6.0), (4, True, 12.0), (4, False, 6.0)])
def test_another_number_of_ranks_steps_on_the_same_gradient(world, mean, first):
    """Two ranks had accumulated 2 and 4: their mean is 3 and their sum 6, and so it must be over the ranks that go on,
    where rank 0 holds all and the others nothing."""
    saved = {"gradients": {"weight": torch.tensor([2.0])}, "rank_gradients": [{"weight": torch.tensor([4.0])}]}
    held = [state._own_gradients(saved, Ranks(rank, world), mean) for rank in range(world)]
    assert held == [{"weight": torch.tensor([first])}] + [{}] * (world - 1)


def test_ranks_on_gpus_are_counted_by_gpus(project):
    with pytest.raises(ConfigError, match="3 ranks on the CPU need NUM_GPUS 0, found 2"):
        resolve_config(project, ["NUM_PROCESSES", "3", "NUM_GPUS", "2"])


@pytest.mark.parametrize("environment, said", [
    ({"WORLD_SIZE": "2"}, "LOCAL_RANK '', MASTER_ADDR '', MASTER_PORT ''"), ({"WORLD_SIZE": "y"}, "WORLD_SIZE 'y'"),
    ({"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "MASTER_PORT 'x'")])
def test_half_of_a_launchers_environment_is_refused(project, monkeypatch, capsys, environment, said):
    for name, value in {"RANK": "0", **environment}.items():
        monkeypatch.setenv(name, value)
    assert main(["--cfg", str(project)]) == 1
    told = capsys.readouterr().err
    assert "LaunchError: RANK and WORLD_SIZE are set" in told and said in told and "unset RANK WORLD_SIZE" in told


def test_a_rank_that_waits_says_so_and_heeds_signals(project):
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost",
                   "MASTER_PORT": "1"}
    code = ("import utils.distributed as d, sys; d.SAY_SECONDS = 0.1; from runs.clip_fsar import main; "
            f"sys.exit(main(['run', '--cfg', {str(project)!r}]))")
    waiting = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, text=True,
                               stderr=subprocess.PIPE)
    assert "rank 1 of 2 waits for the others at localhost:1\n" in iter(waiting.stderr.readline, "")
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(20) == -signal.SIGTERM
    waiting.stderr.close()


def test_a_rank_in_use_elsewhere_is_refused_by_name(project, two):
    from utils.lock import output_lock

    with output_lock(two):
        status, text, _ = _run(project, "two", *CONSTANT, "NUM_PROCESSES", "2")
    assert status == 1 and "rank 0 of 2 has ended the run: OutputDirError" in text, text


@pytest.fixture(scope="module")
def resnet(project) -> tuple[str, ...]:
    """Settings of a tower with batch norms."""
    path = project.parent / "resnet.json"
    path.write_text(json.dumps({**TINY_TOWER, "vision_cfg": {
        "image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}))
    return (*CONSTANT, "VIDEO.HEAD.BACKBONE_NAME", str(path))


def test_frozen_batch_norms_make_ranks_equal(project, resnet):
    """BN.FREEZE: no batch statistics, so two ranks learn what one rank learns, and the statistics stay."""
    settings = (*resnet, "BN.FREEZE", "true", "TRAIN.RANK_GRADIENTS", "sum")
    status, text, pair = _run(project, "frozen2", *settings, "NUM_PROCESSES", "2")
    assert status == 0, text
    status, text, one = _run(project, "frozen1", *settings, "TRAIN.NUM_TRAIN_TASKS", "8", "TRAIN.VAL_FRE_ITER", "4",
                             "TRAIN.BATCH_SIZE_PER_TASK", "4")
    assert status == 0, text
    a, b = _state(one), _state(pair)
    names = [name for name in a["model_state"] if "running" in name]
    assert names and all(torch.equal(a["model_state"][name], b["model_state"][name]) for name in names)
    curves = [[record["loss"] for record in _records(d) if record["kind"] == "train"] for d in (one, pair)]
    assert curves[0][1::2] == pytest.approx(curves[1], abs=1e-5)


def test_a_rank_lost_within_the_batch_norms_is_no_cause(project, resnet):
    status, text, _ = _run(project, "lost", *resnet, "BN.SYNC", "true", "NUM_PROCESSES", "2", moment="losses:2",
                           rank=1)
    assert status == 1 and "RankError: rank 0 of 2: LostRankError: an exchange" in text and "Traceback" not in text
    assert "RankError: rank 1 of 2 has ended the run: killed by SIGKILL" in text.rstrip().splitlines()[-1], text


@pytest.mark.parametrize("sync", ["true", "false"])
def test_an_episode_left_out_on_one_rank_stops_nobody(project, resnet, sync):
    """TRAIN.ON_NONFINITE skip; with BN.SYNC, whose statistics span the ranks, all leave it out."""
    status, text, directory = _run(project, f"skip_{sync}", *resnet, "BN.SYNC", sync, "TRAIN.ON_NONFINITE", "skip",
                                   "NUM_PROCESSES", "2", moment="nan:2", rank=1)
    assert status == 0 and "rank 1: iteration 1: the loss is not finite" in text and "Skipped (1 so far)" in text, text
    assert _state(directory)["resume"]["skipped"] == 1
    moved = _state(directory)["model_state"]["head.backbone.bn1.num_batches_tracked"]
    assert moved == 8  # supports, then queries, in each of four iterations


def test_the_command_of_a_user_starts_ranks(project, two):
    """`python runs/run.py` and its ranks as new interpreters."""
    directory = project.parent / "real"
    done = _command([sys.executable, "runs/run.py"], project, directory, "NUM_PROCESSES", "2")
    assert done.returncode == 0 and done.stdout.count("\nTest accuracy") == 1, done.stderr
    _assert_same_end(two, directory)


def test_torchrun_starts_ranks(project, two):
    """SIGTERM to torchrun itself; then the same command, in which a rank is killed, and torchrun starts all anew."""
    directory = project.parent / "torchrun"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = _command([*start, "tests/runs/training/one_rank.py"], project, directory, MOMENT="parent iteration:3",
                    MOMENT_RANK="1", MOMENT_SIGNAL=str(int(signal.SIGTERM)))
    last = directory / "checkpoints" / "checkpoint_last.pyth"
    assert done.returncode == 1 and f"stopped by SIGTERM; the same command goes on from {last}\n" in done.stderr
    assert _state(directory, last.name)["resume"]["iteration"] == 3
    done = _command([*start, "--max-restarts", "1", "tests/runs/training/one_rank.py"], project, directory,
                    MOMENT="iteration:1", MOMENT_RANK="1", MOMENT_SIGNAL=str(int(signal.SIGKILL)))
    assert done.returncode == 0 and done.stderr.count(f"going on from {last}") == 2, done.stderr
    assert "exitcode: -9" in done.stderr
    _assert_same_end(two, directory)


def _command(start: list[str], project: Path, directory: Path, *settings: str, **environment: str
             ) -> subprocess.CompletedProcess:
    """The project's run by a command of its own."""
    command = [*start, "--cfg", str(project), "OUTPUT_DIR", str(directory), *CONSTANT, *settings]
    return subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, timeout=200,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
