"""Benchmarks' rows, their JSON, and the comparison of two runs."""

import json
from dataclasses import replace

import pytest

from runs.benchmarks.comparing import changes, in_words
from runs.benchmarks.record import Finding, Record, read_record, write_record
from runs.benchmarks.rows import LOWER, NEITHER, Row, short, table
from utils.errors import BenchmarkError


def record(*rows: Row, settings=None, **other) -> Record:
    """A run with one benchmark, `decode`."""
    findings = {"decode": Finding(settings or {"clips": 8}, [*rows], 1)}
    return Record({"cpu": "A", "cores": 2}, {"torch": "2.14"}, "abc", findings, **other)


def verdicts(old: Record, new: Record, **options) -> dict[str, str]:
    return {change.name: change.verdict for change in changes(old, new, **options)}


def test_a_row_is_its_median_and_refuses_what_is_no_number():
    assert Row("a", "ms", [3, 1, 2]).figure == 2
    assert Row("a", "times", [1.0]).relative and not Row("a", "clips/s", [1.0]).relative
    for values in ([], [float("nan")], [float("inf")], ["1"], None):
        with pytest.raises(BenchmarkError, match="a: values: expected one or more finite numbers"):
            Row("a", "ms", values)
    with pytest.raises(BenchmarkError, match="expected higher, lower or neither, found 'up'"):
        Row("a", "ms", [1.0], "up")


@pytest.mark.parametrize("value, text", [(0, "0"), (0.01234, "0.0123"), (4.5678, "4.57"), (1234.4, "1,234")])
def test_three_digits(value, text):
    assert short(value) == text


def test_the_table_has_every_row_with_its_spread():
    rows = Row("frames", "clips/s", [10.0, 12.0, 11.0]), Row("memory", "GiB", [1.5], LOWER)
    text = table(zip(("decode", "step"), rows, strict=True))
    assert "| decode      | frames | 11.0     | clips/s | 10.0 to 12.0 (3)      | higher   |" in text
    assert "| one value " in text and len(text.splitlines()) == 4


@pytest.mark.parametrize("old, new, better, verdict", [
    ([100, 101, 102], [90, 91, 92], "higher", "WORSE"),
    ([100, 101, 102], [110, 111, 112], "higher", "better"),
    ([100, 101, 102], [90, 91, 92], LOWER, "better"),
    ([100, 101, 102], [110, 111, 112], LOWER, "WORSE"),
    ([100, 101, 102], [97, 98, 99], "higher", ""),  # outside the spread, but 3 % only
    ([80, 101, 102], [89, 90, 91], "higher", "within noise"),  # the new figure is among the old repeats
    ([100, 101, 102], [89, 90, 101], "higher", "within noise"),  # the old one among the new
    ([100], [90], "higher", "WORSE"),
    ([100, 101, 102], [1, 2, 3], NEITHER, "not judged"),
    ([0, 0], [1, 1], "higher", "not judged"),  # no percentage of nothing
])
def test_verdicts(old, new, better, verdict):
    found = verdicts(record(Row("frames", "clips/s", old, better)), record(Row("frames", "clips/s", new, better)))
    assert found == {"frames": verdict}


def test_the_threshold_is_the_callers():
    old, new = (record(Row("frames", "clips/s", [value])) for value in (100, 97))
    assert verdicts(old, new, threshold=2.0) == {"frames": "WORSE"}
    assert verdicts(old, new, threshold=4.0) == {"frames": ""}


def test_on_another_machine_ratios_are_judged_only():
    def rows(value):
        return [Row("frames", "clips/s", [value]), Row("against decord", "times", [value]), Row("hidden", "%", [value])]

    old, new = record(*rows(100)), replace(record(*rows(50)), machine={"cpu": "B", "cores": 2})
    found = list(changes(old, new))
    assert [change.verdict for change in found] == ["other machine", "WORSE", "WORSE"]
    text = in_words(old, new, found)
    assert "Other machine (cpu A -> B): absolute figures are not comparable and not judged, ratios are." in text
    assert "2 of 3 rows judged: 2 worse and 0 better by more than 5 %" in text and "1 (other machine)" in text
    assert "measure again before believing its flag" in text  # one value each


def test_other_versions_are_told_and_judged():
    old, new = record(Row("frames", "clips/s", [100, 101])), record(Row("frames", "clips/s", [50, 51]))
    new = replace(new, versions={"torch": "2.15"}, git_commit="def")
    found = list(changes(old, new))
    assert [change.verdict for change in found] == ["WORSE"]
    text = in_words(old, new, found)
    assert "Other versions (torch 2.14 -> 2.15)" in text and "Commits: abc -> def." in text
    assert "believing" not in text


def test_other_settings_are_not_judged_but_longer_measuring_is():
    rows = [Row("against decord", "times", [2.0])], [Row("against decord", "times", [1.0])]
    old, other = record(*rows[0]), record(*rows[1], settings={"clips": 9})
    assert verdicts(old, other) == {"against decord": "other settings"}
    assert "decode: other settings (clips 8 -> 9): not judged." in in_words(old, other, list(changes(old, other)))
    assert verdicts(old, record(*rows[1], settings={"clips": 8, "rounds": 9})) == {"against decord": "WORSE"}


def test_rows_and_benchmarks_that_one_run_lacks():
    old = record(Row("decord", "clips/s", [1.0]), Row("pyav", "clips/s", [1.0]))
    old.findings["ranks"] = Finding({}, [Row("2 ranks", "times", [1.7])], 1)
    new = record(Row("decord", "ms", [1.0]), Row("torchcodec", "clips/s", [1.0]))
    found = list(changes(old, new))
    assert {change.name: change.verdict for change in found} == {
        "decord": "other unit", "torchcodec": "only in new", "pyav": "only in old"}
    text = in_words(old, new, found)
    assert "Not in the new run: ranks." in text and "missing in old 1, in new 1." in text


def test_a_file_gives_the_run_that_was_written(tmp_path):
    path = tmp_path / "new" / "a.json"
    before = record(Row("frames", "clips/s", [1.5, 2.5], LOWER), failed={"ranks": "one core"}, created="now",
                    command=["x"])
    write_record(path, before)
    assert read_record(path) == before
    row = json.loads(path.read_text())["benchmarks"]["decode"]["rows"][0]
    assert row == {"name": "frames", "unit": "clips/s", "better": "lower", "figure": 2.0, "least": 1.5, "most": 2.5,
                   "values": [1.5, 2.5]}


def _damaged(change) -> str:
    row = {"name": "a", "unit": "ms", "better": "lower", "values": [1.0]}
    content = {"format": "clip-fsar-benchmarks", "version": 1, "created": "", "command": [], "machine": {},
               "versions": {}, "git_commit": None, "failed": {},
               "benchmarks": {"decode": {"settings": {}, "seconds": 1, "rows": [row]}}}
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize("text, message", [
    (None, "a.json: cannot be read: No such file or directory"),
    ("{", "expected the JSON of runs/benchmarks/run.py, found no JSON"),
    ("[]", "found another file"),
    ('{"accuracy": 1}', "found another file .its format is not 'clip-fsar-benchmarks'"),
    (_damaged(lambda c: c.update(version=2)), "expected version 1 of the format, found 2: measure anew"),
    (_damaged(lambda c: c.pop("machine")), "damaged: no 'machine'"),
    (_damaged(lambda c: c.update(benchmarks=[])), r"damaged: benchmarks: expected an object, found \[\]"),
    (_damaged(lambda c: c.update(machine="abc")), "damaged: machine: expected an object, found 'abc'"),
    (_damaged(lambda c: c.update(versions=[["a"]])), "damaged: versions: expected an object, found "),
    (_damaged(lambda c: c.update(failed={"a": 3})), "damaged: failed.a: expected a text, found 3"),
    (_damaged(lambda c: c["benchmarks"].update(step=[])), "damaged: benchmarks.step: expected an object, found "),
    (_damaged(lambda c: c["benchmarks"]["decode"].pop("rows")), "damaged: no 'benchmarks.decode.rows'"),
    (_damaged(lambda c: c["benchmarks"]["decode"]["rows"][0].pop("unit")), r"no 'benchmarks.decode.rows\[0\].unit'"),
    (_damaged(lambda c: c["benchmarks"]["decode"]["rows"][0].update(values=[float("nan")])),
     r"damaged: benchmarks.decode.rows\[0\]: a: values: expected one or more finite numbers, found nan"),
    (_damaged(lambda c: c["benchmarks"]["decode"]["rows"].append(3)),
     r"benchmarks.decode.rows\[1\]: expected an object, found 3"),
    (_damaged(lambda c: c["benchmarks"]["decode"].update(seconds="x")),
     "damaged: benchmarks.decode.seconds: expected a number, found 'x'"),
])
def test_files_that_are_no_record(tmp_path, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        read_record(path)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        write_record(tmp_path / "file" / "a.json", record(Row("a", "ms", [1.0])))
