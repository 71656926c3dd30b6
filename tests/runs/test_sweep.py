"""Sweeps: each combination once, checked before anything runs, resumed after a kill, and put into a table."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runs.sweeps import execute, grid
from tests.conftest import REPOSITORY, called
from tests.runs.result_files import RESULT

main, pytestmark = called("sweep"), pytest.mark.slow

# Stands for runs/run.py: notes when it ran and with what, writes results.json; RANDOM_SEED decides how it ends.
STUB = """
import json, os, sys, time
pairs = dict(zip(sys.argv[3::2], sys.argv[4::2]))
out, seed = pairs["OUTPUT_DIR"], int(pairs.get("RANDOM_SEED", 0))
with open(os.path.join(out, "trace"), "a") as trace:
    def note(what):
        facts = [what, time.time(), os.environ.get("OMP_NUM_THREADS"), sys.argv[1:], os.getpid()]
        print(json.dumps(facts), file=trace, flush=True)
    note("start")
    print("working on", seed, flush=True)
    if seed == 13:
        sys.exit("\\n".join(f"line {n}" for n in range(40)) + "\\nboom")
    time.sleep({77: 60}.get(seed, seed / 20))
    result = json.loads(RESULT)
    result.update(seed=seed, shot=int(pairs.get("TRAIN.SHOT", 1)), protocol=pairs.get("PROTOCOL", "upstream"))
    with open(os.path.join(out, "results.json"), "w") as file:
        json.dump(result, file)
    note("end")
"""


@pytest.fixture()
def stub(tmp_path, monkeypatch):
    """runs/run.py replaced by STUB."""
    path = tmp_path / "stub.py"
    path.write_text(STUB.replace("RESULT", repr(json.dumps(RESULT))))
    monkeypatch.setattr(grid, "RUN", path)
    return path


@pytest.fixture()
def project(tiny_project):
    """A project file that loads."""
    return tiny_project("tiny")


def _trace(directory: Path) -> list:
    return [json.loads(line) for line in (directory / "trace").read_text().splitlines()]


def _sweep(project: Path, *arguments: object) -> int:
    return main(["--cfg", str(project), "--out", str(project.parent / "sweep"), *map(str, arguments)])


def _started(out: Path) -> dict[str, int]:
    return {d.name: len([1 for what, *_ in _trace(d) if what == "start"]) for d in out.iterdir() if d.is_dir()}


@pytest.mark.parametrize("arguments, problems", [
    (["--grid", "TRAIN.SHOT=1,,3"], ["--grid TRAIN.SHOT: value 2 is empty; write '' for an empty text"]),
    (["--grid", "TRAIN.SHOT="], ["--grid TRAIN.SHOT: value 1 is empty; write '' for an empty text"]),
    (["--grid", "TRAIN.SHOT=1", "--grid", "TRAIN.SHOT=2", "--grid", "OUTPUT_DIR=a,b", "--grid", "PROTOCOL"],
     ["--grid TRAIN.SHOT: given twice; put all its values into one",
      "--grid OUTPUT_DIR: each combination gets its own directory; --out says where they lie",
      "--grid PROTOCOL: expected KEY=VALUE,VALUE,..."]),
    (["--grid", "TRAIN.SHOT=2,1,2"], ["--grid TRAIN.SHOT: value 2 given twice"]),
    (["--grid", "SOLVER.STEPS=[0,1"], ["--grid SOLVER.STEPS: no closing ] in '[0,1'"]),
    (["--grid", "TRAIN.WAT_TEST=3", "TRAIN.WAY_TEST", "4"],
     ["--grid TRAIN.WAY_TEST: also given as KEY VALUE pair; leave one out"]),
    (["OUTPUT_DIR", "x"], ["OUTPUT_DIR: each combination gets its own directory; --out says where they lie"]),
    (["--grid", "TRAIN.SHOT=1,1.0,2"], ["TRAIN.SHOT=1.0: the same settings as TRAIN.SHOT=1"]),
    (["--grid", "TRAIN.SHOT=1,x", "--grid", "PROTOCOL=cleen,clean", "TRAIN.WAYS", "3"],
     ["every combination: command line: TRAIN.WAYS: unknown key; did you mean TRAIN.WAY?",
      "TRAIN.SHOT=1,PROTOCOL=cleen and 1 more: command line: PROTOCOL: expected upstream or clean, found 'cleen'; did "
      "you mean clean?",
      "TRAIN.SHOT=x,PROTOCOL=cleen and 1 more: command line: TRAIN.SHOT: expected integer, found 'x'"]),
    (["--grid", "TRAIN.SHOT=1,2", "TRAIN.WAY=3"],
     ["every combination: command line: TRAIN.WAY=3: expected KEY VALUE pairs, found 3 items, so the last has no "
      "value; write TRAIN.WAY 3, without '='"]),
    (["--grid", "VIDEO.HEAD.OPTIONS.SMOTHING=0.5,1"],
     ["every combination: command line: VIDEO.HEAD.OPTIONS.SMOTHING: unknown option of this head; did you mean "
      "SMOOTHING?"]),
    (["--cfg", "nope.yaml"], ["nope: nope.yaml: no such file"]),
])
def test_problems_are_told_all_at_once_before_anything_runs(project, stub, capsys, arguments, problems):
    assert _sweep(project, *arguments) == 1
    text = "".join(f"\n  - {problem}" for problem in problems)
    head = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration:"
    assert capsys.readouterr().err == f"\nConfigError: {head}{text}\n"
    assert not (project.parent / "sweep").exists()


def test_runs_table_and_resume(project, stub, capsys):
    """All done; again: nothing runs; a marker lost, results lost or settings changed: that run is started again."""
    arguments = ["--grid", "TRAIN.SHOT=1,2", "--grid", "RANDOM_SEED=0,1"]
    out = project.parent / "sweep"
    assert _sweep(project, *arguments) == 0
    captured = capsys.readouterr()
    assert "4 of 4 combinations done, 0 failed" in captured.out and "61.0 +- 0.0 (2 seeds)" in captured.out
    assert (out / "table.md").read_text() in captured.out
    assert (out / "table.csv").read_text().startswith("method,backbone,scoring,")
    names = {f"TRAIN.SHOT={shot},RANDOM_SEED={seed}" for shot in (1, 2) for seed in (0, 1)}
    assert _started(out) == dict.fromkeys(names, 1)
    assert _trace(out / "TRAIN.SHOT=2,RANDOM_SEED=1")[0][2:4] == [os.environ.get("OMP_NUM_THREADS"), [
        "--cfg", str(project), "TRAIN.SHOT", "2", "RANDOM_SEED", "1", "OUTPUT_DIR",
        str(out / "TRAIN.SHOT=2,RANDOM_SEED=1")]]
    (out / "TRAIN.SHOT=1,RANDOM_SEED=0" / execute.MARKER).unlink()
    (out / "TRAIN.SHOT=1,RANDOM_SEED=1" / "results.json").unlink()
    (out / "TRAIN.SHOT=2,RANDOM_SEED=0" / execute.MARKER).write_text("{")
    assert _sweep(project, *arguments) == 0
    assert _started(out) == {**dict.fromkeys(names, 2), "TRAIN.SHOT=2,RANDOM_SEED=1": 1}
    assert _sweep(project, *arguments) == 0 and sum(_started(out).values()) == 7
    assert _sweep(project, *arguments, "--dry-run", "TRAIN.WAY", "2") == 0
    assert "4 combinations, 0 of them done" in capsys.readouterr().out and sum(_started(out).values()) == 7
    assert _sweep(project, *arguments, "--jobs", "4", "TRAIN.WAY", "2") == 0 and sum(_started(out).values()) == 11


def test_a_failure_is_told_and_stops_nothing(project, stub, capsys):
    out = project.parent / "sweep"
    assert _sweep(project, "--grid", "RANDOM_SEED=13,0,1") == 1
    captured = capsys.readouterr()
    assert "2 of 3 combinations done, 1 failed" in captured.out and "(2 seeds)" in captured.out
    told = captured.err[captured.err.index("failed: RANDOM_SEED=13 (exit status 1)"):]
    assert "    boom\n" in told and "    line 39\n" in told and "line 20\n" not in told
    assert f"directory: {out}/RANDOM_SEED=13" in told and f"failed: {out}/RANDOM_SEED=13 (exit status 1)" in told
    assert "done 2, failed 1, running 0" in captured.err
    assert "boom" in (out / "RANDOM_SEED=13" / "output.log").read_text()
    assert not (out / "RANDOM_SEED=13" / execute.MARKER).exists()
    assert _sweep(project, "--grid", "RANDOM_SEED=13,0,1") == 1
    assert _started(out) == {"RANDOM_SEED=13": 2, "RANDOM_SEED=0": 1, "RANDOM_SEED=1": 1}
    (project.parent / "file").write_text("")
    assert main(["--cfg", str(project), "--out", str(project.parent / "file")]) == 1
    assert "failed: tiny (cannot be started: " in capsys.readouterr().err


def test_jobs_share_the_cores(project, stub, monkeypatch):
    monkeypatch.setattr(execute, "cores", lambda: 8)
    assert _sweep(project, "--grid", "RANDOM_SEED=6,7,8,9", "--jobs", "2") == 0
    traces = [_trace(d) for d in (project.parent / "sweep").iterdir() if d.is_dir()]
    assert {omp for trace in traces for _, _, omp, *_ in trace} == {"4"}
    changes = sorted((at, 1 if what == "start" else -1) for trace in traces for what, at, *_ in trace)
    running = [sum(change for _, change in changes[:number]) for number in range(len(changes) + 1)]
    assert max(running) == 2


def _wait(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SWEEP = (f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}]\nfrom pathlib import Path\n"
         "from runs.sweeps import grid\ngrid.RUN = Path({stub!r})\n"
         "from runs.clip_fsar import main\nsys.exit(main(['sweep', *sys.argv[1:]]))")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_stops_the_children(project, stub, number):
    """Both children end, and the lock they held is free; what is done is skipped afterwards."""
    out = project.parent / "sweep"
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP.format(stub=str(stub)), "--cfg", project, "--out", out, "--jobs", "2", "--grid",
         "RANDOM_SEED=0,77",
         "--grid", "TRAIN.SHOT=1,2"], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a background job's children ignore it
    slow = [out / f"RANDOM_SEED=77,TRAIN.SHOT={shot}" for shot in (1, 2)]
    _wait(lambda: all((d / "trace").is_file() and _trace(d) for d in slow))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + number and "2 of 4 combinations done, 0 failed" in stdout
    assert f"stopped by {number.name}; the same command goes on: it skips what is done" in stderr
    assert "Traceback" not in stderr
    assert [what for d in slow for what, *_ in _trace(d)] == ["start", "start"]
    for directory in slow:
        with pytest.raises(ProcessLookupError):
            os.kill(_trace(directory)[0][4], 0)
    assert execute.is_done(grid.plan([project], ["RANDOM_SEED=0", "TRAIN.SHOT=1"], [], out)[0])


def test_a_killed_sweep_goes_on(project, stub, capsys):
    """Its run lives on: the next sweep waits for it, then has it go on, and starts nothing beside it."""
    out = project.parent / "sweep"
    process = subprocess.Popen([sys.executable, "-c", SWEEP.format(stub=str(stub)), "--cfg", project, "--out", out,
                                "--grid", "RANDOM_SEED=60,0"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    first, second = out / "RANDOM_SEED=60", out / "RANDOM_SEED=0"
    _wait(lambda: (first / "trace").is_file() and _trace(first))
    process.kill()
    process.wait()
    assert _sweep(project, "--grid", "RANDOM_SEED=60,0") == 0
    told = capsys.readouterr()
    assert told.err.count("RANDOM_SEED=60: another process is running it; waiting for its end") == 1
    assert "2 of 2 combinations done, 0 failed" in told.out
    assert [what for what, *_ in _trace(first)] == ["start", "end"] * 2
    assert _trace(second)[0][1] > _trace(first)[1][1]
    lock = execute.lock_file(first / execute.LOCK)
    (first / execute.MARKER).rename(first / "aside")  # another sweep does it meanwhile
    threading.Timer(1, lambda: ((first / "aside").rename(first / execute.MARKER), lock.close())).start()
    assert _sweep(project, "--grid", "RANDOM_SEED=60,0") == 0 and len(_trace(first)) == 4


NASTY = ["it's $HOME {}", '"a `b` \\\\ {}"', "'x, {}'", "!{} & ; | * ~"]


def test_slurm_script(project, stub, capsys, monkeypatch, tmp_path):
    """Run by bash as Slurm would: each task does its combination, with every value as it was typed."""
    file, out = tmp_path / "jobs" / "sweep.sh", project.parent / "sweep"
    arguments = ["--grid", f"TEST.PROMPT={','.join(NASTY)}", "--grid", "RANDOM_SEED=0,13", "--slurm", file]
    assert _sweep(project, *arguments, "--jobs", "3") == 0
    assert f"8 tasks, one a combination. Fill in partition, time and GPUs in {file}" in capsys.readouterr().out
    text = file.read_text()
    options = re.findall(r"^#SBATCH --(\S+?)=(.*)$", text, re.MULTILINE)
    assert options == [("job-name", "sweep"), ("array", "0-7%3"), ("output", f"{shlex.quote(str(out))}/slurm_%a.log")]
    assert re.findall(r"^##SBATCH --(\w+)", text, re.MULTILINE)[:3] == ["partition", "time", "gpus"]
    assert f"\ncd {REPOSITORY}\n" in text and out.is_dir()

    def task(number: object) -> subprocess.CompletedProcess:
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}
        return subprocess.run(["bash", file], cwd="/", env=environment, text=True, capture_output=True)

    for number, prompt in ((0, NASTY[0]), (2, NASTY[1]), (4, NASTY[2]), (6, NASTY[3])):
        done = task(number)
        assert done.returncode == 0 and not done.stderr, done.stderr
        directory = Path(done.stdout.removeprefix("done: ").strip())
        assert _trace(directory)[0][3][2:] == ["TEST.PROMPT", prompt, "RANDOM_SEED", "0", "OUTPUT_DIR", str(directory)]
    before = task(0)
    assert before.returncode == 0 and "done before: " in before.stdout
    failed = task(1)
    assert failed.returncode == 1 and "boom" in failed.stderr and "failed with exit status 1" in failed.stderr
    assert task(8).returncode == 2 and "no combination 8: the array is 0 to 7" in task(8).stderr
    monkeypatch.setattr(execute, "_start", lambda c, jobs: execute.Failure(c, "not again", []))
    assert _sweep(project, *arguments[:-2]) == 1
    assert "4 of 8 combinations done, 4 failed" in capsys.readouterr().out
    assert _sweep(project, "--slurm", file, "--dry-run") == 0
    assert "#SBATCH --array=0-0\n" in capsys.readouterr().out and file.read_text() == text
    assert main(["--cfg", str(project), "--slurm", "x", "--out", "a\nb"]) == 1
    assert "a line break cannot stand in an #SBATCH line" in capsys.readouterr().err


def test_real_runs(tiny_project, capsys):
    """The command itself, twice: the second time nothing runs and the table is written."""
    project = tiny_project("real", NUM_TRAIN_TASKS=2, NUM_VAL_TASKS=1, NUM_TEST_TASKS=2)
    out = project.parent / "sweep"
    command = [sys.executable, "runs/sweep.py", "--cfg", project, "--grid", "TRAIN.SHOT=1,2", "--jobs", "2", "--out",
               out, "TRAIN.WAY", "2"]
    first = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True)
    assert first.returncode == 0 and "2 of 2 combinations done, 0 failed" in first.stdout, first.stderr
    for shot in (1, 2):
        path = out / f"TRAIN.SHOT={shot}" / "results.json"
        found = json.loads(path.read_text())
        assert (found["shot"], found["way"], found["episodes"]) == (shot, 2, 2)
        assert "Test accuracy" in path.with_name("output.log").read_text()
    assert main(list(map(str, command[2:]))) == 0
    told = capsys.readouterr().out
    assert (out / "table.md").read_text() in told and "CLIP-FSAR tower, prototypes" in told
    assert all((out / f"TRAIN.SHOT={shot}" / "output.log").read_text().count("--- 2") == 1 for shot in (1, 2))
