"""Reads published figures (configs/pool/published.yaml) as cells that say that they are quoted."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from runs.tables.cells import Cell, Column, percent, row_label
from utils.config.layers import POOL, parse_yaml
from utils.config.reading import shown
from utils.errors import ResultsError
from utils.foreign import read_text
from utils.pretraining import kind_words, text_words

PUBLISHED = POOL / "published.yaml"
AS_PUBLISHED = "as published"  # the source does not say how the figure was scored
# How sure a quoted figure is: the mark in the file, and its words.
SURE = {
    "file": "read in a file of the authors' or another repository",
    "poster": "read on a poster, its own or a later paper's",
    "notes": "by secondary notes or a later paper's table, not checked against the paper: take it as +-0.1",
    "issue": "told in an issue thread",
    "supported": "from memory, within 0.3 of a later paper's re-run",
    "recalled": "FROM MEMORY, NOT VERIFIED"}
SELECTED = {"none": "no checkpoint was selected: it is the last one, or nothing is trained",
            "not stated": "what the checkpoint was selected on is not stated"}
_TEXT, _COUNT, _NUMBER = (str,), (int,), (int, float)


def _checked(where: str, values: Any, kinds_of: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return a mapping that has these keys of these types. Raises ResultsError naming where, and the key."""
    if not isinstance(values, dict):
        raise ResultsError(f"{where}: expected keys and values, found {shown(values)}")
    for key, kinds in kinds_of.items():
        if not isinstance(values.get(key), kinds):
            found = shown(values[key]) if key in values else "nothing"
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ResultsError(f"{where}: {key}: expected {expected}, found {found}")
    return values


def _cell(source: dict[str, Any], figure: dict[str, Any], data_set: str) -> Cell:
    """Return one quoted figure as a cell."""
    scoring, backbone = figure["scoring"], figure["backbone"]
    on, texts = source["selected_on"], source.get("texts")
    conditions = {
        "source": f"published: quoted from {source['source']}, not measured here", "sure": SURE[figure["sure"]],
        "selected_on": SELECTED.get(on, f"checkpoint selected on the {on} list"), "way": f"{source['way']}-way",
        "kind": kind_words(False), "texts": text_words(texts), "interval": "no interval"}
    if figure.get("with_text"):
        conditions["with_text"] = "fuses video with text: not to be compared with prototypes alone"
    if scoring == AS_PUBLISHED:
        scoring = f"scoring {AS_PUBLISHED}"
        conditions["scoring"] = "the source's one figure, its scoring is not stated here"
    accuracy = figure[data_set] / 100
    record = {"method": source["method"], "backbone": backbone, "scoring": scoring, "data_set": data_set,
              "shot": figure["shot"], "accuracy": percent(accuracy), "way": source["way"],
              "selected_on": source["selected_on"], "published": True, "source": source["source"],
              "sure": figure["sure"], "transductive": False, "texts": texts}
    return Cell(f"{row_label(source['method'], backbone, scoring)} (published)", (data_set, figure["shot"]), accuracy,
                None, 0, conditions, {}, {}, "", record)


def published_cells(columns: Collection[Column], path: Path = PUBLISHED) -> list[Cell]:
    """Return the published figures of these columns. Raises ResultsError where the file has another form than here."""
    try:
        content = parse_yaml(read_text(path, ResultsError))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ResultsError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, list):
        raise ResultsError(f"{path}: expected a list of papers, found {shown(content)}")
    found = []
    for number, paper in enumerate(content, start=1):
        in_paper = f"{path}: paper {number}"
        source = _checked(in_paper, paper, {"method": _TEXT, "source": _TEXT, "selected_on": _TEXT, "way": _COUNT,
                                         "figures": (list,)})
        for line, figure in enumerate(source["figures"], start=1):
            where = f"{in_paper}: figure {line}"
            _checked(where, figure, {"backbone": _TEXT, "shot": _COUNT, "scoring": _TEXT, "sure": _TEXT})
            if figure["sure"] not in SURE:
                raise ResultsError(f"{where}: sure: expected {', '.join(SURE)}, found {shown(figure['sure'])}")
            wanted = [key for key in figure if (key, figure["shot"]) in columns]
            _checked(where, figure, dict.fromkeys(wanted, _NUMBER))
            found += [_cell(source, figure, data_set) for data_set in wanted]
    return found
