"""How cost grows: what is fitted, marked and written; and that a start imports nothing that it can do without."""

import json
import subprocess
import sys
import tempfile
import time

import pytest

from runs.benchmarks import bench_growth
from runs.benchmarks.growth import ALLOWED, Growth, Line, cpu_seconds, fitted, growth_table, measured, peak_bytes
from tests.conftest import REPOSITORY, called

SIZES = [10, 20, 40, 80, 160]
DEMO = "configs/projects/demo/CLIPFSAR_Demo_1shot.yaml"


def _spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_the_upper_half_is_fitted(exponent):
    """Constants hide growth at small sizes, which do not count."""
    seconds = [3e-9 * size**exponent for size in SIZES]
    assert fitted(SIZES, seconds) == pytest.approx(exponent)
    assert fitted(SIZES, [9.0, 9.0, *seconds[2:]]) == pytest.approx(exponent)


def test_more_than_the_work_is_marked():
    found = [Growth("a", "videos", SIZES, [size**exponent for size in SIZES], 1, 12_345.0)
             for exponent in (1 + ALLOWED - 0.01, 1 + ALLOWED + 0.01)]
    assert [one.costs_more for one in found] == [False, True]
    lines = growth_table(found).splitlines()[2:]
    assert ["MORE THAN ITS WORK" in line for line in lines] == [False, True] and "12,345" in lines[0]
    assert found[1].record()["costs_more"] and found[1].record()["exponent"] == pytest.approx(1.16)


def test_a_work_that_grows_too_fast_is_found():
    line = Line("quadratic", "videos", [4, 6, 8, 12], 1, lambda size: lambda: _spin(1e-4 * size**2))
    assert measured(line, 1).costs_more
    assert not measured(Line("linear", "videos", [4, 8, 16], 1, lambda size: lambda: _spin(2e-3 * size)), 1).costs_more


def test_time_and_memory_of_a_call():
    assert 0.03 <= cpu_seconds(lambda: _spin(0.03), 1) < 0.06
    assert cpu_seconds(lambda: time.sleep(0.003), 1) < 0.002
    freed = [bytearray(b"1" * (1 << 16)) for _ in range(4096)]  # 256 MiB, which this process keeps, and no work counts
    del freed[:-1]
    # The text, and its copy.
    assert 120 << 20 <= peak_bytes(lambda: bytearray(b"1" * (64 << 20))) < 200 << 20


def _as(line: Line, more: float) -> Growth:
    """What is found of a line that grows by so much more than its work."""
    return Growth(line.name, line.size, list(line.sizes), [size ** (line.exponent + more) for size in line.sizes],
                  line.exponent)


def test_quick_run_writes_table_record_and_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_growth, "measured", lambda line, repeats: _as(line, 0))
    out = tmp_path / "out"
    assert called("benchmark")(["growth", "--quick", "--strict", "--out", out]) == 0
    assert "MORE THAN" not in (out / "growth.md").read_text() and (out / "growth.png").stat().st_size > 10_000
    lines = json.loads((out / "growth.json").read_text())["lines"]
    assert {line["size"] for line in lines} == {"videos", "episodes", "ways", "queries", "shots", "frames", "classes"}
    assert max(size for line in lines for size in line["sizes"]) <= 1_000
    monkeypatch.setattr(bench_growth, "measured", lambda line, repeats: _as(line, 0.2))
    monkeypatch.setattr(bench_growth, "write_growth", lambda *_: None)
    assert called("benchmark")(["growth", "--quick", "--out", out]) == 0
    assert called("benchmark")(["growth", "--quick", "--strict", "--out", out]) == 1
    assert f"--strict: {len(lines)} cost more than their work (by over 0.15)" in capsys.readouterr().err
    assert called("benchmark")(["growth", "--largest", "10", "--out", out]) == 1


def test_every_work_can_be_done(tmp_path, monkeypatch):
    """Each at its smallest size, once; nothing is left where temporary files lie."""
    def once(line: Line, repeats: int) -> Growth:
        line.prepare(line.sizes[0])()
        return _as(line, 0)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bench_growth, "measured", once)
    monkeypatch.setattr(bench_growth, "write_growth", lambda *_: None)
    assert len(bench_growth.measure(largest=1_000, quick=True, out=str(tmp_path), strict=False)) == 18
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize("arguments, status", [
    (["--help"], 0), (["--cfg", DEMO, "--print-config"], 0), (["--cfg", DEMO, "TRAIN.SHOTT", "1"], 1)])
def test_what_needs_no_torch_imports_none(arguments, status):
    """A tenth of what torch takes is left to it; a test of time would fail on a busy machine."""
    code = ("import sys; sys.path.insert(0, '.'); from runs.clip_fsar import main\ntry: status = main(sys.argv[1:])\n"
            "except SystemExit as end: status = end.code\nprint('\\nIMPORTED', *sorted(sys.modules)); sys.exit(status)")
    done = subprocess.run([sys.executable, "-c", code, "run", *arguments], cwd=REPOSITORY, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == status, done.stderr
    imported = done.stdout.rpartition("\nIMPORTED ")[2].split()
    assert "utils.config" in imported or status == 0
    assert not {"torch", "numpy", "pandas", "matplotlib", "scipy", "pyarrow", "torchvision"} & set(imported)
    ours = {name for name in imported if name.startswith(("datasets.", "models.", "runs.", "utils."))}
    assert not {name for name in ours if name.startswith(("datasets.", "models."))}
    assert {name for name in ours if name.startswith("runs.")} <= {"runs.clip_fsar", "runs.run", "runs.session",
                                                                   "runs.session.fresh"}


def test_a_training_imports_what_it_shows_when_it_shows_it():
    """Plots, tables and pages come with the first validation or the test; they took a sixth of a start."""
    code = ("import sys; import runs.session.launch; print([name for name in ('matplotlib', 'pandas', 'pyarrow', "
            "'jinja2', 'scipy.stats', 'fvcore', 'open_clip', 'runs.session.profiling', 'runs.evaluation.predictions') "
            "if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n", "imported at once: " + done.stdout
