"""What a test and a training leave behind, damaged in every way: told by file, or what is read is what was written."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runs.evaluation import paired
from runs.evaluation.predictions import FILE, read_predictions, write_predictions
from runs.tables.reading import read_results
from tests.damage import flipped
from tests.runs.result_files import result
from utils.errors import FewShotError, ResultsError
from utils.json_files import load_json, write_json
from utils.logging import RecordLog, read_records

ORIGIN = {"episodes_sha256": "e", "list_sha256": "l", "scoring": "near", "replaced": ""}


def predictions(directory: Path, seed: int = 0) -> Path:
    """A run's directory with predictions: 12 episodes of 5 queries, 5 classes."""
    draw = np.random.default_rng(seed)
    scores = {"near": draw.normal(size=(12, 5, 5)).astype(np.float32), "text": draw.normal(size=(12, 5, 5))}
    shape = np.zeros((12, 5), int)
    evaluation = SimpleNamespace(
        labels_EM=shape, query_EM=np.arange(60).reshape(12, 5), true_EM=shape + np.arange(5), scores=scores,
        classes_EK=shape + np.arange(5), predicted=lambda: scores["near"].argmax(-1),
        scorings={"near": SimpleNamespace(kind="distance"), "text": SimpleNamespace(kind="logits")})
    split = SimpleNamespace(class_names=[f"class {k}" for k in range(5)],
                            records=[SimpleNamespace(path=f"v/{k}.mp4") for k in range(60)])
    directory.mkdir(parents=True)
    write_predictions(directory / FILE, evaluation, split, ORIGIN)
    return directory / FILE


def tampered(path: Path, change) -> None:
    table = pq.read_table(path)
    new = change(table)  # by someone who takes the checksum out, as in files of earlier versions
    kept = {k: v for k, v in (new.schema.metadata or table.schema.metadata).items() if k != b"checksum"}
    pq.write_table(new.replace_schema_metadata(kept), path)


def _column(name, values):
    return lambda table: table.set_column(table.column_names.index(name), name, [values])


CHANGES = {
    **{f"no {name}": lambda table, name=name: table.drop_columns([name])
       for name in ("classes", "true_class", "episode", "query", "query_video")},
    "no scores": lambda table: table.drop_columns(["distance_near", "logits_text"]),
    "ragged": _column("logits_text", pa.array([[0.5] * (3 + k % 2) for k in range(60)])),
    "empty": _column("classes", pa.array([[]] * 60, pa.list_(pa.string()))),
    "null": _column("true_class", pa.nulls(60, pa.string())),
    "null list": _column("classes", pa.nulls(60, pa.list_(pa.string()))),
    "text for scores": _column("distance_near", pa.array([["x"] * 5] * 60)),
    "numbers for lists": _column("distance_near", pa.array(range(60))),
    "text for episodes": _column("episode", pa.array(["x"] * 60)),
    "twice": _column("query", pa.array([0] * 60)), "no rows": lambda table: table.slice(0, 0),
    "no scoring": lambda table: table.replace_schema_metadata({"episodes_sha256": "e"}),
    "other bytes": lambda table: table.replace_schema_metadata({**table.schema.metadata, b"scoring": b"\xff"}),
    "not pandas": lambda table: table.replace_schema_metadata({b"pandas": b"{", b"x": b"y"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_odd_predictions_are_named(tmp_path, name):
    path = predictions(tmp_path / "a")
    tampered(path, CHANGES[name])
    with pytest.raises(ResultsError, match=f"{FILE}: expected the predictions of a test, found a file that can"):
        read_predictions(path)


def test_predictions_are_paired_by_identity(tmp_path):
    paths = [predictions(tmp_path / name, seed) for seed, name in enumerate("ab")]
    straight = paired.compare(*paths)
    order = np.random.default_rng(3).permutation(60)
    tampered(paths[1], lambda table: table.take(order))
    mixed = paired.compare(*paths)
    assert mixed.moved.equals(straight.moved) and mixed.difference == straight.difference != 0
    assert (mixed.only_a, mixed.only_b, mixed.p) == (straight.only_a, straight.only_b, straight.p)
    tampered(paths[1], _column("distance_near", pa.array([[None] * 5] * 60, pa.list_(pa.float32()))))
    assert paired.compare(*paths).accuracy_b == 0  # no score is no class
    tampered(paths[1], lambda table: table.slice(0, 55))
    with pytest.raises(ResultsError, match=r"found 60 in .* and 55 in .*; only one has query \d \(v/\d+.mp4\) of"):
        paired.compare(*paths)
    tampered(paths[0], lambda table: table.take(order).slice(5))
    with pytest.raises(ResultsError, match="expected two tests of the same queries, found 55"):
        paired.compare(*paths)


def test_a_changed_byte_of_predictions_is_told_or_changes_nothing(tmp_path):
    path = predictions(tmp_path / "a")
    content, (table, origin) = path.read_bytes(), read_predictions(path)
    told = 0
    for k, one in enumerate([*flipped(content, 150), *(content[:at] for at in range(0, len(content), 500))]):
        path.write_bytes(one)
        try:
            found, facts = read_predictions(path)
        except ResultsError as error:
            assert str(error).startswith(str(path))
            told += 1
            continue
        if facts == origin:  # another fact is told where two runs are compared
            pd.testing.assert_frame_equal(found, table, obj=f"case {k}")
    assert told > 100


def test_a_changed_byte_of_results_is_told(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, result())
    whole, content = load_json(path), path.read_bytes()
    for one in flipped(content, 200):
        path.write_bytes(one)
        try:
            found = load_json(path)
        except ResultsError as error:
            assert str(error).startswith(str(path))
            continue
        assert "checksum" not in found or found == whole  # a flip in its own name, or in what is no content
        assert {k: v for k, v in found.items() if k in whole and k != "checksum"} == {
            k: v for k, v in whole.items() if k != "checksum"}
    path.write_text("{}")
    os.remove(path)
    os.mkfifo(path)
    with pytest.raises(FewShotError, match="results.json"):
        read_results([path])


RECORDS = [{"kind": "train", "iteration": k, "loss": 1 / k, "accuracy": 0.5, "lr": 1e-3} for k in range(1, 9)]


def _log(path: Path) -> bytes:
    log = RecordLog(path)
    for record in [*RECORDS, {"kind": "train", "iteration": 9, "loss": float("nan"), "accuracy": 0.5, "lr": 0.1}]:
        log.write(record)
    log.close()
    return path.read_bytes()


def test_a_damaged_record_loses_no_other_and_is_told(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    content = _log(path)
    whole = read_records(path)
    assert whole == [*RECORDS, {**RECORDS[0], "iteration": 9, "loss": None, "lr": 0.1}] and not caplog.text
    for one in flipped(content, 100):
        caplog.clear()
        path.write_bytes(one)
        found = read_records(path)
        own = [record for record in found if record in whole]
        assert len(own) >= 7 and (len(own) == 9 or caplog.text or len(found) == 9)
    path.write_bytes(content[:-7])  # a crash: nothing is said
    caplog.clear()
    assert read_records(path) == whole[:-1] and not caplog.text


@pytest.mark.parametrize("line", [
    b"5", b"[]", b'{"kind": "train", "iteration": null}', b'{"kind": "train", "iteration": 1}', b"[" * 100_000,
    b"9" * 5000, b"\xff\xfe", b'{"kind": "train", "iteration": 1, "loss": "x", "accuracy": 1, "lr": 1}', b"\0" * 200,
    b'{"kind": "x", "iteration": "y"}', b'{"kind": "train", "iteration": 1, "loss": 1, "accuracy": 1e999, "lr": 1}'])
def test_a_line_that_is_no_record_is_left_out_and_told(tmp_path, caplog, line):
    path = tmp_path / "log.jsonl"
    content = _log(path).split(b"\n")
    path.write_bytes(b"\n".join([content[0], line, *content[1:]]))
    log = RecordLog(path, keep=lambda record: record["iteration"] < 8)
    log.close()
    assert f"{path}: damaged: 1 of 10 lines are no records and are left out (2)" in caplog.text
    assert read_records(path) == RECORDS[:7]
