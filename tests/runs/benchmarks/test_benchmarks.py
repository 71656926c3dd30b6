"""Each benchmark on something tiny, and the command that runs them all."""

import json
import shutil
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from runs.benchmarks import (
    bench_alignment,
    bench_check,
    bench_decode,
    bench_encode,
    bench_evaluation,
    bench_export,
    bench_heads,
    bench_kinds,
    bench_loader,
    bench_ranks,
    bench_start,
    long_clips,
    run,
    suite,
)
from runs.benchmarks.record import read_record
from runs.benchmarks.rows import Row
from runs.benchmarks.steps import StepOptions
from tests.conftest import TINY_TOWER, called
from tests.runs.benchmarks.parts import part
from utils.errors import BenchmarkError, RegistryError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
benchmark = called("benchmark")


@pytest.fixture()
def short_clips(monkeypatch):
    monkeypatch.setattr(long_clips, "SECONDS", 1)
    monkeypatch.setattr(bench_decode, "CLIPS", 2)


def named(rows: list[Row]) -> dict[str, Row]:
    found = {row.name: row for row in rows}
    assert len(found) == len(rows), "two rows of one name"
    return found


def test_alignment():
    shares = []
    rows = named(bench_alignment.measure(shares.append, queries=2, ways=2, frames=3, rounds=2, repeats=1))
    name = "OTAM of 3 frames against cell by cell"
    slow, fast = rows[f"{name}: cell by cell"], rows[f"{name}: OTAM"]
    assert rows[name].values == pytest.approx([a / b for a, b in zip(slow.values, fast.values, strict=True)])
    assert len(rows[name].values) == 2 and fast.better == "lower" and shares[-1] == 1


def test_encoding():
    rows = named(bench_encode.measure(backbones=["small"], rivals=False, cpu_threads=1, rounds=2, repeats=1))
    plain, ours = rows["small, plain"].values, rows["small, as it is"].values
    assert rows["small, as it is against plain"].values == pytest.approx([a / b for a, b in zip(plain, ours,
                                                                                                strict=True)])
    made, _ = bench_encode.works_of("small", rivals=True)
    assert list(made) == ["plain", "as it is", "onnxruntime", "compile"]
    with torch.inference_mode():
        expected, *others = (work() for work in made.values())
    for found in (others[0]["frames"], torch.from_numpy(others[1][0])[None]):
        torch.testing.assert_close(found, expected["frames"], rtol=1e-4, atol=1e-4)


def test_a_start(tmp_path):
    """Each line is a number, and what torch is not imported for takes a part of what importing it takes."""
    shares = []
    rows = named(bench_start.measure(tmp_path, shares.append, backbone="small", videos=640, workers=1, turns=1))
    assert rows["start until the first episode"].figure > 1 and shares == [1]
    assert all(0 < rows[name].figure < 0.5 for name in ("--help", "--print-config", "a wrong setting"))
    with pytest.raises(BenchmarkError, match="ended with 3: of its own accord"):
        bench_start._until("import sys; sys.stderr.write('of its own accord'); sys.exit(3)")


@pytest.mark.slow
def test_exported_towers(monkeypatch):
    """A ratio of each form of the tower, and one of the imports, by statements that take no time here."""
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(bench_export, "RUNNER", "pass")
    monkeypatch.setattr(bench_export, "TORCH", "pass")
    shares = []
    rows = named(bench_export.measure(shares.append, backbones=["small"], frames=1, rounds=2, repeats=1))
    assert set(rows) == {"small, 1 frames, one thread: bundle against torch",
                         "small, 1 frames, one thread: bundle of 8-bit weights against torch",
                         "import of the runner's packages against torch's"}
    assert all(row.relative and len(row.values) == 2 and min(row.values) > 0 for row in rows.values())


def test_decoding_and_loading(tmp_path, short_clips):
    shares = []
    rows = named(bench_decode.measure(tmp_path, shares.append, clips=2, quality=90, rounds=2))
    for source in ("pyav", "cache, jpeg 90", "cache, lossless"):
        rate, base = (rows[f"frames, {one}"].values for one in (source, "decord"))
        assert rows[f"frames, {source} against decord"].values == pytest.approx(
            [a / b for a, b in zip(rate, base, strict=True)])
        assert all(a > b > 0 for a, b in zip(rate, rows[f"clip, {source}"].values, strict=True))
    assert rows["bytes, cache, lossless"].figure > rows["bytes, cache, jpeg 90"].figure > rows["bytes, decord"].figure
    assert shares == [0.5, 1.0]
    rows = named(bench_loader.measure(tmp_path, decoder="decord", episodes=1, turns=1))
    assert {row.unit for row in rows.values()} == {"%", "ms an episode"} and len(rows) == 4


def test_kinds_of_files(tmp_path, short_clips, monkeypatch):
    """Whoever has a wrong frame, or cannot read a kind, is not compared with."""
    kinds = {name: bench_kinds.KINDS[name] for name in ("H.264", "HEVC")}
    monkeypatch.setattr(bench_kinds, "KINDS", kinds)
    whole = bench_kinds.readers()

    def next_frames(path, draw):
        return whole["auto"](path, lambda count: np.minimum(draw(count) + 1, count - 1))

    def unable(path, draw):
        raise RuntimeError("no such codec")

    monkeypatch.setattr(bench_kinds, "readers", lambda: {
        **{name: whole[name] for name in ("auto", "auto, first")}, "same": whole["auto"], "decord": next_frames,
        "torchcodec": unable})
    shares = []
    rows = named(bench_kinds.measure(tmp_path, shares.append, clips=2, rounds=2, keyframes=10, repeats=3))
    names = ["H.264", "H.264, mkv", "long: H.264", "long: H.264, mkv", "HEVC"]
    for name in names:
        right = [rows[f"{name}: right frames, {one}"].figure for one in ("auto", "same", "decord", "torchcodec")]
        assert right[:2] == [100, 100] and right[2] < 50 and right[3] == 0
        assert min(rows[f"{name}: {own}"].figure for own in ("auto", "auto, first")) > 0
    compared = [row.name for row in rows.values() if row.unit == "times"]
    assert compared == [text for name in names for text in (
        *([f"{name}: {own}, a clip against one of the short file" for own in ("auto", "auto, first")]
          if "long" in name else []), *(f"{name}: {own} against same" for own in ("auto", "auto, first")))]
    assert shares[-1] == 1 and av.open(str(tmp_path / "long_h264_10_3.mkv")).streams.video[0].codec.name == "h264"


def test_hidden_share_of_the_loading():
    found = bench_loader.Overlap("elsewhere", 10, [(2.0, 3.0, 1.5), (4.0, 5.0, 2.0)])
    assert found.rows("decord")[0].values == (75.0, 75.0)
    assert found.rows("decord")[1].values == (150.0, 200.0)


def test_evaluation(tmp_path, tiny_videos, monkeypatch):
    vision = {"image_size": 160, "layers": 1, "width": 32, "head_width": 32, "patch_size": 32}
    monkeypatch.setattr(bench_evaluation, "TOWER", {**TINY_TOWER, "vision_cfg": vision})
    data = shutil.copytree(tiny_videos, tmp_path / "videos")  # nothing is left to render
    rows = named(bench_evaluation.measure(data, shots=[1], classes=5, clips=4, episodes=4, sample=2, rounds=1))
    ratio = rows["1-shot, stored features against one by one"]
    assert len(ratio.values) == 2 and min(ratio.values) > 0
    assert rows["1-shot, stored features"].better == "lower"
    clips = rows["1-shot, clips that one by one decodes and encodes, against stored"].figure  # 4 episodes of 5 + 5
    assert 40 / 20 <= clips <= 40 / 5


def test_heads():
    sizes = {**bench_heads.settings(True), "heads": ["CNN_BiMHM_MoLo", "CNN_TSN", "FROZEN"]}
    rows = named(bench_heads.measure(**sizes))
    assert [row.unit for row in rows.values()] == [*["%", "s", "CPU s", "ms"] * 2, "s", "CPU s", "ms"]
    assert all(min(row.values) > 0 and row.better == "lower" for row in rows.values())
    whole, a_query = (rows[f"CNN_TSN, 1-shot, 1 of a class: scoring {what}"].figure
                      for what in ("10,000 episodes, from 4", "a query"))
    assert whole == pytest.approx(10_000 * 5 * a_query / 1e3)
    with pytest.raises(RegistryError, match="CNN_TSM"):
        bench_heads.measure(**{**sizes, "heads": ["CNN_TSM"]})


def test_ranks(tmp_path, monkeypatch):
    asked = []

    def rate(project, ranks, output, gpus):
        asked.append((ranks, gpus, output.name))
        return {1: 2.0, 2: 3.0, 4: 7.0}[ranks]

    monkeypatch.setattr(bench_ranks, "episodes_a_second", rate)
    monkeypatch.setattr(bench_ranks, "render_demo", lambda *_, **__: None)
    rows = named(bench_ranks.measure(tmp_path, counts=[1, 2, 4], gpus=4, turns=2, iterations=1))
    assert rows["4 ranks on a GPU each, against one"].values == (3.5, 3.5)
    assert asked[:3] == [(1, 4, "0_1"), (2, 4, "0_2"), (4, 4, "0_4")]  # in turns
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count, expected in ((2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert bench_ranks.settings(False)["counts"] == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(bench_ranks, "cores", lambda: 1)
    with pytest.raises(BenchmarkError, match="two GPUs or two cores"):
        bench_ranks.settings(False)


def test_a_run_of_ranks_that_fails_is_told(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, communicate=lambda: ("LaunchError: no such port", None), poll=lambda: 1)
    monkeypatch.setattr(bench_ranks.subprocess, "Popen", lambda *_, **__: failed)
    with pytest.raises(BenchmarkError, match="a run of 2 ranks ended with 1: LaunchError: no such port"):
        bench_ranks.episodes_a_second(tmp_path / "x.yaml", 2, tmp_path)


@pytest.fixture()
def speed(monkeypatch):
    """Two benchmarks: `speed`, whose figure is speed["speed"], and `broken`, which fails."""
    state = {"speed": 100.0, "measured": 0}

    def measure(done, clips):
        done(0.5)
        state["measured"] += 1
        return [Row("frames", "clips/s", [state["speed"], state["speed"] + clips]), Row("base", "times", [2.0])]

    def broken(done, clips):
        raise BenchmarkError("no clips here")

    def settings(quick):
        return {"clips": 1 if quick else 9}

    monkeypatch.setattr(suite, "SUITE", {"speed": part(measure, settings), "broken": part(broken, settings)})
    return state


def test_one_command_prints_a_table_and_writes_json(speed, tmp_path, capsys):
    out = tmp_path / "a.json"
    assert benchmark(["--quick", "--only", "speed", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "| 100 to 101 (2) " in told and "| times " in told and f"Written to {out}" in told
    content = json.loads(out.read_text())
    assert {"python", "torch", "torchvision", "open_clip_torch", "decord", "av"} <= set(content["versions"])
    assert {"cpu", "cores", "memory_gib", "gpus", "driver"} <= set(content["machine"])
    assert content["benchmarks"]["speed"]["settings"] == {"clips": 1}
    assert read_record(out).findings["speed"].rows[0].values == (100.0, 101.0)


def test_one_that_fails_leaves_the_others(speed, tmp_path, capsys):
    out = tmp_path / "a.json"
    assert benchmark(["--out", str(out)]) == 1
    told = capsys.readouterr().out
    assert "broken: not measured: BenchmarkError: no clips here" in told and "| speed " in told
    assert list(read_record(out).findings) == ["speed"] and list(read_record(out).failed) == ["broken"]


def test_compare_flags_and_strict_exits(speed, tmp_path, capsys):
    old, new = (str(tmp_path / name) for name in ("old.json", "new.json"))
    only = ["--quick", "--only", "speed"]
    assert benchmark([*only, "--out", old]) == 0
    speed["speed"] = 90.0
    assert benchmark([*only, "--out", new, "--compare", old]) == 0
    told = capsys.readouterr().out
    assert "-10.0 %  | WORSE" in told and "2 of 2 rows judged: 1 worse and 0 better by more than 5 %" in told
    assert speed["measured"] == 2
    assert benchmark(["--read", new, "--compare", old, "--strict"]) == 1
    assert benchmark(["--read", new, "--compare", old, "--strict", "--threshold", "20"]) == 0
    assert benchmark(["--read", old, "--compare", new, "--strict"]) == 0  # better is no failure
    assert speed["measured"] == 2  # --read measures nothing


def test_a_wrong_file_is_told_before_anything_is_measured(speed, tmp_path, capsys):
    wrong = ["--compare", str(tmp_path / "none.json"), "--out", str(tmp_path / "a.json")]
    assert benchmark(wrong) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err and speed["measured"] == 0


def test_names_of_the_suite():
    assert suite.names("step, decode") == ["decode", "step"]


def test_every_part_takes_its_own_settings():
    """measure() of each benchmark accepts what settings() gives."""
    assert set(run.COMMANDS) == {*suite.BENCHMARKS, "gpu"}
    for name, benchmark_ in suite.BENCHMARKS.items():
        module = benchmark_.load()
        given = {*module.settings(True), "done", *(["data"] if benchmark_.folders else [])}
        taken = module.measure.__code__
        names = taken.co_varnames[:taken.co_argcount + taken.co_kwonlyargcount]
        options = {"step": StepOptions.__slots__, "heads": bench_heads.Sizes.__slots__}.get(name, ())
        assert given == {*names, *options}, name


def test_check(tmp_path):
    rows = named(bench_check.measure(tmp_path, decoder="pyav", classes=5, clips=6))
    assert rows["files"].figure > 0 and rows["memory of all"].figure > 50
    with pytest.raises(BenchmarkError, match="a check ended with 1: "):
        bench_check.measure(tmp_path, decoder="none", classes=5, clips=2)
