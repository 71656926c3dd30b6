"""Write and read predictions.parquet: every query of a test with its scores, one row each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.builder import SplitData
from runs.evaluation.evaluate import Evaluation
from utils.errors import ResultsError
from utils.files import whole_file
from utils.metrics import Kind

FILE = "predictions.parquet"
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
    """Write the table, and in the file's metadata what it is of (hashes). The file is never half there."""
    table = pa.Table.from_pandas(predictions_table(evaluation, split), preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **origin})
    with whole_file(path) as part:
        pq.write_table(table, part)


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
    if not path.is_file():
        raise ResultsError(f"{path}: no such file; a test writes it (python runs/run.py ...)")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ResultsError(f"{path}: expected the predictions of a test, found a file that cannot be read "
                           f"({error})") from error
    origin = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items() if key != b"pandas"}
    return table.to_pandas(), origin
