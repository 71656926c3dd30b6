"""gpu.py: its parts on the CPU, tiny; what a failure, an end of the time or a machine without a GPU leaves."""

import os
import sys
import time
from functools import partial

import pytest
import torch

from runs.benchmarks import gpu_works, guarded
from runs.benchmarks.gpu import check_device
from runs.benchmarks.gpu_goals import (
    AGAINST_PLAIN,
    ALIGNMENT,
    FASTEST,
    GIB,
    MS,
    OTAM,
    PLAIN_STEP,
    SHARE,
    TFLOPS,
    WAYS,
    fastest_rows,
    goal_cells,
    report,
    step_part,
)
from runs.benchmarks.gpu_parts import Part, chosen, measure_parts, parts_of
from runs.benchmarks.record import Finding, Record, read_record
from runs.benchmarks.rows import Row
from runs.benchmarks.steps import StepOptions
from tests.conftest import called
from utils.errors import BenchmarkError

benchmark = called("benchmark")
TRIED = {"device": "cpu", "quick": True}


def works() -> list[Row]:
    return [Row("speed", "clips/s", [2.0])]


def raises() -> list[Row]:
    raise AttributeError("no such kernel")


def runs_out() -> list[Row]:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")


def ends() -> list[Row]:
    os._exit(9)


def hangs() -> list[Row]:
    time.sleep(600)
    return []


def test_a_work_that_fails_leaves_the_others_and_its_reason(tmp_path):
    """Each failure is in the record, and what comes after it is measured in a new process."""
    parts = [Part("one", 1, {"raises": raises, "works": works}), Part("two", 1, {"runs out": runs_out, "ends": ends}),
             Part("three", 1, {"works": works})]
    measure_parts(parts, tmp_path / "gpu.json", 10, TRIED)
    found = read_record(tmp_path / "gpu.json")
    assert [(part, row.name) for part, row in found.rows()] == [("one", "works: speed"), ("three", "works: speed")]
    assert found.findings["one"].settings == TRIED
    assert found.failed == {
        "one: raises": "AttributeError: no such kernel",
        "two: runs out": "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB",
        "two: ends": "its process ended with 9, as the system does where memory runs out"}
    told = " ".join(report(found).split())
    assert "| one: raises | not measured: AttributeError: no such kernel |" in told
    assert told.count("works: speed") == 2


def test_the_time_is_shared_and_what_it_does_not_reach_is_told(tmp_path):
    """A work that hangs costs its part's time; later parts have theirs, and a part without time says so."""
    parts = [Part("one", 1, {"hangs": hangs, "works": works}), Part("two", 9, {"works": works})]
    start = time.monotonic()
    record = measure_parts(parts, tmp_path / "gpu.json", 2, TRIED)
    assert 11 < time.monotonic() - start < 110  # not the 600 s of the one that hangs
    assert record.failed["one: hangs"].startswith("no time left: ended after 1")
    assert record.failed["one: works"] == "no time left" and list(record.findings) == ["two"]
    assert read_record(tmp_path / "gpu.json").failed == record.failed


def test_without_a_gpu_there_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "gpu.json"
    assert benchmark(["gpu", "--out", out]) == 1
    assert ("BenchmarkError: --device cuda: expected a GPU that torch can use, found none. Run it on a machine with one"
            in capsys.readouterr().err)
    assert benchmark(["gpu", "--device", "cpu", "--out", out]) == 1
    assert "--device cpu: expected --quick beside it" in capsys.readouterr().err and not out.exists()
    check_device("cpu", quick=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device("cuda", quick=False)


def test_parts_are_chosen_by_name(tmp_path):
    parts = parts_of("cuda", False, tmp_path)
    assert [part.name for part in chosen(parts, ["step", "ranks"])] == ["step, ViT-B/16", "step, RN50", "ranks"]
    assert chosen(parts, [""]) == parts and set(parts[2].works) == set(WAYS)
    with pytest.raises(BenchmarkError, match="--only: expected some of tests; rates; step, ViT-B/16; .*, found 'stop'"):
        chosen(parts, ["step", "stop"])


def test_every_way_is_one_that_a_run_takes(tmp_path):
    from runs.benchmarks.steps import configuration, overrides

    for changes in WAYS.values():
        configuration(StepOptions(**changes), overrides(StepOptions(**changes)), tmp_path)


def _step(way: str, ms: float, share: float) -> list[Row]:
    return [Row(f"{way}: {what}", unit, [figure]) for what, unit, figure in (
        (MS, "ms", ms), (TFLOPS, "TFLOP/s", 300.0), (SHARE, "%", share), (GIB, "GiB", 20.0))]


def test_goals_stand_beside_what_was_measured():
    """They are judged by the fastest way; OTAM by its fastest form."""
    rows = [*_step(PLAIN_STEP, 500, 7), *_step("bf16", 120, 30), *_step("bf16, compiled", 80, 46)]
    otam = [Row(f"plain: {MS}", "ms", [4.0]), Row(f"Triton: {MS}", "ms", [0.4])]
    record = Record({}, {}, None, {step_part("ViT-B/16"): Finding({}, rows, 1), ALIGNMENT: Finding({}, otam, 1),
                                   step_part("RN50"): Finding({}, _step("fp32", 9, 5), 1)})
    found = {row.name: row.figure for row in fastest_rows(record)}
    assert found == pytest.approx({
        f"ViT-B/16: {SHARE}": 46, f"ViT-B/16: {AGAINST_PLAIN}": 6.25, f"ViT-B/16: {OTAM}": 0.5,
        f"ViT-B/16: {OTAM}, plain": 5, f"ViT-B/16: {OTAM}, Triton": 0.5, f"RN50: {SHARE}": 5,
        f"RN50: {OTAM}": 100 * 0.4 / 9, f"RN50: {OTAM}, plain": 100 * 4 / 9, f"RN50: {OTAM}, Triton": 100 * 0.4 / 9})
    record.findings[FASTEST] = Finding({}, fastest_rows(record), 0)
    assert list(goal_cells(record)) == [
        (f"ViT-B/16: {SHARE}", "at least 45 %", "46.0 %", "met", "bf16, compiled"),
        (f"ViT-B/16: {AGAINST_PLAIN}", "at least 5 times", "6.25 times", "met", "bf16, compiled"),
        (f"ViT-B/16: {OTAM}", "at most 1 %", "0.500 %", "met", "bf16, compiled"),
        (f"RN50: {AGAINST_PLAIN}", "at least 3 times", "not measured", "", ""),
        (f"RN50: {OTAM}", "at most 1 %", "4.44 %", "not met", "fp32")]
    assert "| bf16, compiled | 80.0 | 300 | 46.0 | 6.25 | 20.0 |" in " ".join(report(record).split())


def test_two_ranks_need_two_gpus(tmp_path, monkeypatch):
    with pytest.raises(BenchmarkError, match="^no GPU$"):
        gpu_works.two_ranks(tmp_path, "cpu", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BenchmarkError, match="^one GPU$"):
        gpu_works.two_ranks(tmp_path, "cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(gpu_works.bench_ranks, "measure", lambda data, **given: given)
    assert gpu_works.two_ranks(tmp_path, "cuda", 5) == {"counts": [1, 2], "gpus": 3, "turns": 1, "iterations": 5}


@pytest.mark.slow
def test_a_decoder_that_is_not_installed_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    there, missing = (partial(gpu_works.decoding, name, tmp_path, StepOptions(way=1, query=1), gpu_works.QUICK)
                      for name in ("pyav", "decord"))
    assert guarded.outcome(there).reason is None
    reason = guarded.outcome(missing).reason
    assert reason.startswith("LaunchError: DATA.DECODER decord: the decord package cannot be imported")


@pytest.mark.slow
def test_every_part_runs_tiny_on_the_cpu(tmp_path):
    """Each work has rows or a reason; the reasons are the GPU's. Compiled ones take a compiler half a minute."""
    parts = [Part(part.name, part.weight, {name: work for name, work in part.works.items() if "compiled" not in name})
             for part in parts_of("cpu", True, tmp_path / "data")]
    record = measure_parts(parts, tmp_path / "gpu.json", 10, TRIED)
    assert set(record.failed.values()) == {"the Triton kernels run on a GPU only", "no GPU"}
    measured = {f"{part}: {row.name}" for part, row in record.rows()}
    for part in parts:
        for name in part.works:
            assert (f"{part.name}: {name}" in record.failed) != any(
                one.startswith(f"{part.name}: {name}: ") for one in measured), name
    figures = {row.name: row.figure for _, row in record.rows()}
    assert figures["marked gpu: failed"] == 0 and figures["marked gpu: skipped"] + figures["marked gpu: passed"] >= 10
    assert all(figures[f"{PLAIN_STEP}: {what}"] > 0 for what in (MS, TFLOPS, SHARE, GIB))
    assert figures["transforms on the CPU: training from the loader"] > 0
    assert any("scoring 10,000 episodes, from 20" in name for name in figures)
    assert "goal, on an H100 or H200" in report(record)
