"""Write and read predictions.parquet: every query of a test with its scores, one row each."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.builder import SplitData
from runs.evaluation.evaluate import Evaluation
from utils.errors import ResultsError
from utils.files import whole_file
from utils.foreign import regular, told
from utils.json_files import SUM
from utils.metrics import Kind

FILE = "predictions.parquet"
VALUE_BYTES = 64  # that a value of a table takes in memory, about
_TEXT, _COUNT = pa.string(), pa.int64()
_QUERY = pa.schema({"episode": _COUNT, "query": _COUNT, "query_video": _TEXT, "true_class": _TEXT,
                    "classes": pa.list_(_TEXT)})
PREFIXES: dict[Kind, str] = {"distance": "distance", "logits": "logits", "probabilities": "share"}  # of score columns


def predictions_table(evaluation: Evaluation, split: SplitData) -> pd.DataFrame:
    """Return a table with one row a query.

    Columns: episode, query (its number), query_video, true_class, predicted_class (by the configured scoring; none
    where a score is no number), classes (of the episode, in the order of the scores), and what every scoring gave them,
    by its kind: distance_<scoring> (lower is nearer), logits_<scoring>, share_<scoring> (probabilities up to a factor).
    """
    episodes, queries = evaluation.labels_EM.shape
    names = np.array(split.class_names, dtype=object)
    paths = np.array([record.path for record in split.records], dtype=object)
    columns = {
        "episode": np.repeat(np.arange(episodes), queries), "query": np.tile(np.arange(queries), episodes),
        "query_video": paths[evaluation.query_EM].ravel(), "true_class": names[evaluation.true_EM].ravel(),
        "predicted_class": np.array([*names, None], dtype=object)[evaluation.predicted()].ravel(),  # NO_CLASS: None
        "classes": [row for row in names[evaluation.classes_EK] for _ in range(queries)],
    }
    for name, scores in evaluation.scores.items():
        kind = evaluation.scorings[name].kind
        values = (-scores if kind == "distance" else scores).reshape(-1, scores.shape[-1])
        columns[f"{PREFIXES[kind]}_{name}"] = list(values)
    return pd.DataFrame(columns)


def write_predictions(path: Path, evaluation: Evaluation, split: SplitData, origin: dict[str, str]) -> None:
    """Write the table, and in the file's metadata what it is of (hashes) and a checksum. It is never half there."""
    queries = predictions_table(evaluation, split)
    table = pa.Table.from_pandas(queries, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **origin, SUM: _sum(queries, origin)})
    with whole_file(path) as part:
        pq.write_table(table, part)


def _sum(table: pd.DataFrame, origin: dict[str, str]) -> str:
    """Return the CRC-32 of a table's names, values and facts."""
    found = zlib.crc32(repr(sorted(origin.items())).encode())
    for name, column in table.items():
        # "No class" and NaN each have several forms, of which a file keeps one.
        values = np.concatenate(column.to_list()) if isinstance(column[0], np.ndarray) else column.fillna("").to_numpy()
        values = np.where(np.isnan(values), np.nan, values) if values.dtype.kind == "f" else values
        data = values.tobytes() if values.dtype.kind in "iuf" else "\0".join(values).encode()
        found = zlib.crc32(str(name).encode() + data, found)
    return f"{found:08x}"


def scores_of(table: pd.DataFrame, scoring: str) -> np.ndarray | None:
    """Return the scores of a scoring, higher is nearer, [rows, K]; None where the table has none.

    Older files call every scoring's column logits_<scoring> and hold scores in it.
    """
    for prefix in PREFIXES.values():
        if f"{prefix}_{scoring}" in table:
            values = np.stack(table[f"{prefix}_{scoring}"].to_list())
            return -values if prefix == PREFIXES["distance"] else values
    return None


def scorings_of(table: pd.DataFrame) -> list[str]:
    """Return the names of the scorings that a table has scores of."""
    columns = (str(name).partition("_") for name in table)
    return [scoring for prefix, _, scoring in columns if prefix in PREFIXES.values() and scoring]


def read_predictions(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return (table, what it is of). Raises ResultsError naming a file that is missing or damaged."""
    regular(path, ResultsError, absent="no such file; a test writes it (python runs/run.py ...)")
    with told(ResultsError, path, "the predictions of a test"):
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
            values = sum(group.column(k).num_values for group in groups for k in range(group.num_columns))
            if VALUE_BYTES * values > psutil.virtual_memory().available:
                raise ValueError(f"{values:,} values, more than memory holds")
            table = file.read()
        origin = {key.decode(): value.decode() for key, value in table.schema.metadata.items() if key != b"pandas"}
        table = table.replace_schema_metadata()
        _check(table, origin)
        queries, found = table.to_pandas(), origin.pop(SUM, None)
        if found is not None and found != _sum(queries, origin):
            raise ValueError("its checksum is not that of what it holds")
        return queries, origin


def _check(table: pa.Table, origin: dict[str, str]) -> None:
    """Raise an error of any kind unless each row is a query with its classes and as many scores of every scoring."""
    table.select(_QUERY.names).cast(_QUERY)
    lists = ["classes", *(name for name in table.column_names if name.partition("_")[0] in PREFIXES.values())]
    inner = [pc.list_flatten(table[name]) for name in lists]
    lengths = {length for name in lists for length in pc.unique(pc.list_value_length(table[name])).to_pylist()}
    full = [table[name] for name in table.column_names if name != "predicted_class"]  # a score that is NaN is null
    if len(lists) == 1 or len(lengths) != 1 or any(column.null_count for column in [*full, inner[0]]):
        raise ValueError("rows without as many scores as classes")
    for scores in inner[1:]:
        pc.is_finite(scores)
    if table.group_by(["episode", "query"]).aggregate([]).num_rows != table.num_rows:
        raise ValueError("a query that stands there twice")
    if "scoring" not in origin:
        raise ValueError("no name of its scoring")
