"""The command as a user runs it: train, select, test; kill and resume; refuse what is wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch

from datasets.decoding import choose_decoder
from runs.clip_fsar import COMMANDS
from runs.session.session import run
from tests.conftest import REPOSITORY, run_command
from utils import checkpoint
from utils.config import resolve_config
from utils.errors import CheckpointError, LaunchError, NonFiniteLossError

pytestmark = pytest.mark.slow


def test_train_select_test(tiny_project):
    project = tiny_project()
    done = run_command("--cfg", project)
    assert done.returncode == 0, done.stderr
    out = project.parent / "run"
    results = json.loads((out / "results.json").read_text())
    assert results["episodes"] == 6 and results["selected_on"] == "val" and results["protocol"] == "upstream"
    assert sum(c["queries"] for c in results["per_class"].values()) == 18
    assert len(results["episodes_sha256"]) == 64
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["TRAIN"]["WAY"] == 3 and record["sources"]["TRAIN.WAY"].endswith("run.yaml")
    assert set(record["lists"]) == {"train", "val", "test"}
    assert record["decoder"] == results["decoder"] == choose_decoder("auto") and "torchcodec" in record["versions"]
    assert (out / "curves.png").stat().st_size > 1000 and list((out / "tensorboard").iterdir())
    kinds = [json.loads(line)["kind"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert kinds.count("train") == 8 and kinds.count("validation") == 3
    assert "Test accuracy" in done.stdout and "95 % interval over 6 episodes" in done.stdout
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "checkpoint_best.pyth", "checkpoint_epoch_00002.pyth", "checkpoint_epoch_00003.pyth"]
    state = checkpoint.read(out / "checkpoints" / "checkpoint_epoch_00003.pyth")
    assert {"epoch", "model_state", "optimizer_state", "cfg"} <= set(state) and json.loads(state["cfg"])
    assert all(name.startswith("head.") for name in state["model_state"])
    again = run_command("--cfg", project, "TRAIN.ENABLE", "false", "TEST.ENABLE", "true")
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "results.json").read_text()) == results


def test_nonfinite_loss_stops_with_the_videos_or_is_skipped(tiny_project):
    project = tiny_project("nan", NUM_TRAIN_TASKS=3)
    broken = ["SOLVER.BASE_LR", "1e30"]
    expected = (r"iteration \d: the loss is not finite \(.*few_shot nan.*\) at learning rate 1e\+30. Videos of the "
                r"episode:\n  support:(\n    videos/\S+){3}\n  query:(\n    videos/\S+){3}\nTRAIN.ON_NONFINITE: skip")
    with pytest.raises(NonFiniteLossError, match=expected):
        run(resolve_config(project, [*broken, "TRAIN.NUM_TRAIN_TASKS", "6", "TRAIN.VAL_FRE_ITER", "100"]))
    run(resolve_config(project, [*broken, "TRAIN.ON_NONFINITE", "skip", "OUTPUT_DIR", str(project.parent / "skip"),
                                 "TRAIN.NUM_TRAIN_TASKS", "6", "TRAIN.VAL_FRE_ITER", "100"]))
    records = [json.loads(x) for x in (project.parent / "skip" / "log.jsonl").read_text().splitlines()]
    assert records[-2]["skipped"] > 0


def test_missing_gpus_say_what_to_do(tiny_project):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(LaunchError, match=r"asks for 4 CUDA device\(s\), this machine has 0. Add NUM_GPUS 0"):
        run(resolve_config(tiny_project(), ["NUM_GPUS", "4"]))


def test_selection_on_test_is_labelled(tiny_project):
    done = run_command("--cfg", tiny_project("ontest", EVAL_SPLIT="test", NUM_TRAIN_TASKS=2))
    assert done.returncode == 0 and "(selected on test)" in done.stdout


@pytest.mark.parametrize("extra", [["TRAIN.PRECISION", "bf16", "TRAIN.CLIP_GRAD_NORM", "1.0"],
                                   ["TRAIN.PRECISION", "fp16", "TRAIN.GRAD_CHECKPOINT", "true",
                                    "TRAIN.EPISODES_PER_STEP", "2"],
                                   ["TRAIN.PRECISION", "tf32", "TRAIN.CHANNELS_LAST", "false", "OPTIMIZER.FUSED",
                                    "false"],
                                   ["TRAIN.EVAL_TEXT", "true"], ["TRAIN.COMBINE", "true", "PROTOCOL", "clean"],
                                   ["TRAIN.SHOT_TEST", "2", "TRAIN.MERGE_BEFORE", "true", "BN.FREEZE", "true"]])
def test_options_run(tiny_project, extra):
    found = run(resolve_config(tiny_project("options", NUM_TRAIN_TASKS=2), extra))
    assert 0 <= found["accuracy"] <= 1


def test_a_training_on_the_cpu_keeps_its_memory_unless_told_otherwise(tiny_project, memory_kept):
    project = tiny_project("kept", NUM_TRAIN_TASKS=1)
    run(resolve_config(project))
    assert memory_kept == [True]
    run(resolve_config(project, ["TRAIN.ENABLE", "false", "TEST.ENABLE", "true"]))
    run(resolve_config(project, ["TRAIN.KEEP_MEMORY", "false", "TRAIN.ONEDNN", "true", "TRAIN.AUTO_RESUME", "false"]))
    assert memory_kept == [True]


def test_a_checkpoint_of_another_shape_lists_what_does_not_fit(tiny_project):
    project = tiny_project("depth", NUM_TRAIN_TASKS=2)
    run(resolve_config(project))
    with pytest.raises(CheckpointError, match="missing head.context2.layers.1.0.norm.weight"):
        run(resolve_config(project, ["TRAIN.TRANSFORMER_DEPTH", "2", "TRAIN.ENABLE", "false", "TEST.ENABLE", "true"]))


def test_print_config_and_errors_on_the_command_line(tiny_project):
    done = run_command("--cfg", tiny_project(), "--print-config")
    assert done.returncode == 0 and "WAY: 3" in done.stdout
    done = run_command("--cfg", tiny_project(), "TRAIN.SHOTS", "5")
    assert done.returncode == 1 and "TRAIN.SHOT" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", sorted([*COMMANDS, "prepare demo", "prepare check"]))
def test_the_checkout_comes_first(tmp_path, command):
    """Packages of our names that are installed, or lie in the current directory, are never imported."""
    for name in ("datasets", "models", "runs", "utils"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    first, *more = command.split()
    script = REPOSITORY / "runs" / ("benchmarks/run.py" if first == "benchmark" else f"{first}.py")
    done = subprocess.run([sys.executable, script, *more, "--help"], cwd=tmp_path, text=True, capture_output=True,
                          env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0 and f"usage: runs/{script.relative_to(REPOSITORY / 'runs')}" in done.stdout, done.stderr


def test_the_installed_program_finds_its_commands(tmp_path):
    """What the entry point of setup.py calls; sys.path begins with the folder of the installed script."""
    (tmp_path / "utils.py").write_text("raise SystemExit('the wrong utils')")
    code = f"import sys; sys.path[:0] = ['bin', {str(REPOSITORY)!r}]; from runs.clip_fsar import start; start()"
    for arguments, status, text in ((["run", "--cfg", "none.yaml"], 1, "none.yaml"),
                                    (["--help"], 0, "python runs/sweep.py"), (["runn"], 2, "invalid choice: 'runn'"),
                                    ([], 2, "arguments are required: COMMAND")):
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, text=True, capture_output=True)
        assert done.returncode == status and text in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_output_that_nobody_reads_ends_the_command(tiny_project):
    """As in `python runs/run.py ... --print-config | head -1`: no traceback, and the status of a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "runs/run.py", "--cfg", tiny_project(), "--print-config"], cwd=REPOSITORY,
                          stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141 and "Error" not in done.stderr, done.stderr


@pytest.mark.parametrize("group, name", [("prepare", "check"), ("benchmark", "step")])
def test_a_signal_that_comes_while_a_command_is_loaded_is_heeded(group, name):
    module = "runs.benchmarks.run" if group == "benchmark" else f"runs.{group}"
    code = (f"import os, signal, sys, time; import {module} as group; from runs.clip_fsar import start\n"
            "group.load = lambda name: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(20))\n"
            f"start({group!r}, {name!r})")
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 143 and ended.stderr == "\nstopped by SIGTERM; what was saved before is untouched\n"
