"""Puts cells side by side: columns, rows that never hold two settings under one name, footnotes, the best of each."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from string import ascii_lowercase
from typing import Any

from runs.tables.cells import Cell, Column
from utils.config.reading import shown

# Headings of the data sets of papers, in their order; other data sets go by their own name.
DATA_SETS = {"ssv2_full": "SSv2-Full", "ssv2_small": "SSv2-Small", "kinetics100": "Kinetics-100", "ucf101": "UCF101",
             "hmdb51": "HMDB51", "demo": "Demo"}
_ABSENT = object()
# Settings that the heading of a column says, or the conditions.
_SAID = ("TRAIN.SHOT_TEST", "TRAIN.WAY_TEST", "TRAIN.QUERY_PER_CLASS_TEST", "TRAIN.NUM_TEST_TASKS",
         "DATA.NUM_INPUT_FRAMES", "PROTOCOL")


@dataclass(frozen=True, slots=True)
class Entry:
    """Holds a cell where it stands, with its footnote mark ("": none) and whether it is its column's best."""

    cell: Cell
    mark: str
    best: bool

    @property
    def mean(self) -> str:
        """The accuracy in percent, as printed."""
        return _printed(self.cell.accuracy)

    @property
    def spread(self) -> str:
        """What follows +-, in percent; empty where there is nothing."""
        return "" if self.cell.plus_minus is None else _printed(self.cell.plus_minus)

    @property
    def seeds(self) -> str:
        """Number of seeds, where there are several."""
        return f"({self.cell.seeds} seeds)" if self.cell.seeds > 1 else ""


@dataclass(frozen=True, slots=True)
class Table:
    """Holds a table before it is written.

    Args:
        titles: column to its heading, in order.
        rows: (label, entry by column).
        notes: (mark, text); an empty mark is a note on the whole table.
    """

    titles: dict[Column, str]
    rows: list[tuple[str, dict[Column, Entry]]]
    notes: list[tuple[str, str]]


def _printed(share: float) -> str:
    return f"{100 * share:.1f}"


def _titles(cells: Iterable[Cell]) -> dict[Column, str]:
    """Return the headings, the known data sets first, in the order that papers have them in."""
    known = list(DATA_SETS)
    columns = sorted({cell.column for cell in cells},
                     key=lambda c: (known.index(c[0]) if c[0] in known else len(known), c[0], c[1]))
    return {column: f"{DATA_SETS.get(column[0], column[0])} {column[1]}-shot" for column in columns}


def _marks() -> Iterator[str]:
    """Yield a, b, ..., z, aa, ab, ..."""
    for length in range(1, 4):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def _told(cell: Cell) -> dict[str, str]:
    return {**cell.conditions, **cell.remarks}


def _common(cells: list[Cell]) -> dict[str, str]:
    """Return what holds for every measured cell and is said once.

    Selection on anything but val, and averages over seeds, are told at each cell, so that none is quoted without.
    """
    measured = [_told(cell) for cell in cells if cell.seeds]
    common = {name: text for name, text in (measured[0] if measured else {}).items()
              if all(told.get(name) == text for told in measured)}
    if common.get("selected_on") != "checkpoint selected on val":
        common.pop("selected_on", None)
    if any(cell.seeds > 1 for cell in cells):
        common.pop("spread", None)
    return common


def _footnotes(cells: list[Cell]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the mark of each cell, and the notes: one mark for each distinct combination of what is told."""
    common, marks, texts = _common(cells), _marks(), {}
    of_cells = []
    for cell in cells:
        text = "; ".join(text for name, text in _told(cell).items() if not cell.seeds or name not in common)
        if text and text not in texts:
            texts[text] = next(marks)
        of_cells.append(texts.get(text, ""))
    notes = [("", f"Accuracy in percent. All measured cells: {'; '.join(common.values())}.")] if common else [
        ("", "Accuracy in percent.")]
    return of_cells, notes + [(mark, f"{text}.") for text, mark in texts.items()]


def _best(cells: list[Cell]) -> list[bool]:
    """Tell of each cell whether it is the best, as printed, of two or more comparable ones of its column."""
    groups: dict[Any, list[float]] = {}
    for cell in cells:
        if cell.seeds:
            groups.setdefault((cell.column, *cell.conditions.items()), []).append(float(_printed(cell.accuracy)))
    found = []
    for cell in cells:
        others = groups.get((cell.column, *cell.conditions.items()), [])
        found.append(bool(cell.seeds) and len(others) > 1 and float(_printed(cell.accuracy)) == max(others))
    return found


def _differing(cells: list[Cell], keys: list[tuple], attributes: Callable[[Cell], dict]) -> list[str]:
    """Return which attributes differ between cells that would otherwise share a row and a column."""
    shared: dict[tuple, list[dict]] = {}
    for cell, key in zip(cells, keys, strict=True):
        shared.setdefault((cell.column, key), []).append(attributes(cell))
    names: dict[str, None] = {}
    for there in shared.values():
        every = dict.fromkeys(name for one in there for name in one)
        names.update((name, None) for name in every
                     if any(one.get(name, _ABSENT) != there[0].get(name, _ABSENT) for one in there))
    return list(names)


def _variants(cells: list[Cell]) -> list[str]:
    """Return what each cell of one label adds to it, so that no two cells share a row and a column.

    What the results say comes first, then settings of run.json, then the directory. Only what is needed is added.
    """
    keys: list[tuple[str, ...]] = [() for _ in cells]
    tiers: list[tuple[Callable[[Cell], dict], str]] = [
        (lambda cell: {**cell.conditions, **{k: v for k, v in cell.remarks.items()
                                            if k in ("text_weight", "texts", "pretraining")}}, "{value}"),
        (lambda cell: {name: shown(value) for name, value in cell.config.items()}, "{name} {value}"),
        (lambda cell: {"run": cell.runs}, "{value}")]
    for attributes, words in tiers:
        names = _differing(cells, keys, attributes)
        keys = [(*key, *(words.format(name=name, value=attributes(cell)[name]) for name in names
                         if name in attributes(cell))) for cell, key in zip(cells, keys, strict=True)]
    return [", ".join(key) for key in keys]


def _with_settings(cell: Cell, variant: str, cells: list[Cell]) -> Cell:
    """Return a cell that tells its settings where others of its method and backbone differ and its row does not say so.

    Other data sets have other classes: their names are told only where they differ on one data set.
    """
    others = [other for other in cells if other.config and cell.seeds
              and all(other.record[name] == cell.record[name] for name in ("method", "backbone"))]
    told = {name: f"{name} {shown(value)}" for name, value in cell.config.items() if name not in _SAID and any(
        other.config.get(name, _ABSENT) != value for other in others
        if other.column[0] == cell.column[0] or not name.endswith("CLASS_NAME"))}
    told = {name: text for name, text in told.items() if f", {text}, " not in f", {variant}, "}
    if others and not cell.config:
        told = {"settings": "settings not known (no run.json)"}
    return replace(cell, remarks=cell.remarks | told, record=cell.record | {"settings": "; ".join(told.values())})


def lay_out(cells: list[Cell]) -> Table:
    """Return the table of these cells; rows in the order in which their label appears first."""
    of_label: dict[str, list[Cell]] = {}
    for cell in cells:
        of_label.setdefault(cell.label, []).append(cell)
    keys = [(label, variant) for label, mine in of_label.items() for variant in _variants(mine)]
    in_rows = [cell for mine in of_label.values() for cell in mine]
    in_rows = [_with_settings(cell, variant, cells) for cell, (_, variant) in zip(in_rows, keys, strict=True)]
    marks, notes = _footnotes(in_rows)
    best = _best(in_rows)
    rows: dict[tuple[str, str], dict[Column, Entry]] = {}
    for key, cell, mark, is_best in zip(keys, in_rows, marks, best, strict=True):
        rows.setdefault(key, {})[cell.column] = Entry(cell, mark, is_best)
    if any(best):
        notes.append(("", "Bold: the best of the measured cells of a column that share protocol, selection, lists, "
                          "way, queries, episodes, frames and temporal draws; never across transductive and "
                          "inductive, nor across texts of a language model or towers that have seen the test classes "
                          "and others."))
    return Table(_titles(cells), [("; ".join(filter(None, key)), row) for key, row in rows.items()], notes)
