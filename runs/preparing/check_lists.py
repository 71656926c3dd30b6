"""Writes lists without the bad videos of a check, under another name."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

from datasets.annotations import DEFAULT_FORMAT, LIST_FORMATS, list_hash, read_split_list
from runs.evaluation.identity import list_name
from runs.preparing.check_report import Checked, small_classes
from utils.config.class_names import TARGETS
from utils.config.schema import Config
from utils.errors import AnnotationError
from utils.files import whole_file

PATHS = "paths"  # the list format that can name any file


def kept(checked: Checked, split: str) -> pd.DataFrame:
    """Return the good rows of a split whose classes are large enough, in the list's order, with dense class indices.

    The order of the classes stays, so that each index keeps the name that it belongs to (column `class`).
    """
    own = checked.table[checked.good & (checked.table.split == split)]
    small = small_classes(checked)
    own = own[~own.class_index.isin(small[small.split == split].class_index)]
    order = {old: new for new, old in enumerate(sorted(own.class_index.unique()))}
    return own.assign(class_index=own.class_index.map(order))


def _format(tables: dict[str, pd.DataFrame], given: str) -> str:
    """Return the list format in which every video can be written: the given one while all lie as listed."""
    return given if all(table.as_listed.all() for table in tables.values()) else PATHS


def _lines(table: pd.DataFrame, split: str, style: str, given: str) -> list[str]:
    separator = LIST_FORMATS[style].separator
    videos = table.path if style == given and table.as_listed.all() else table.found
    return [f"{split}{index}{separator}{video}" for index, video in zip(table.class_index, videos, strict=True)]


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    """Write files by name; one that is there with the same text, of a check that was killed, stays."""
    there = [directory / name for name in texts if (directory / name).exists()]
    if other := [str(path) for path in there if path.read_bytes() != texts[path.name].encode()]:
        raise AnnotationError(f"{', '.join(other)}: expected no other file there (lists are never replaced), found "
                              "one; choose another directory for --write-lists")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if directory / name not in there:
            with whole_file(directory / name) as part:
                part.write_text(text, encoding="utf-8")


def _settings(directory: Path, style: str, given: str, dropped: bool, cfg: Config) -> list[str]:
    """Return the KEY VALUE pairs that make a run use the lists."""
    pairs = [f"DATA.ANNO_DIR {directory}"]
    if style != given:
        pairs.append(f"TRAIN.DATASET_FEW {style}")
    if dropped:
        pairs += [f"DATA.CLASSES {directory / 'classes.yaml'}", *(f"{key} null" for key in TARGETS.values())]
    return pairs


def write_lists(checked: Checked, directory: Path, cfg: Config) -> str:
    """Write {split}_few_shot.txt and classes.yaml, and return what was left out and how to use them, as text.

    Raises:
        AnnotationError: another file of this name is there, or a split has no videos left.
    """
    given = cfg.TRAIN.DATASET_FEW or DEFAULT_FORMAT
    tables = {split: kept(checked, split) for split in checked.needs}
    for split, table in tables.items():
        if table.empty:
            raise AnnotationError(f"{directory}: expected at least one class of the {split} list with enough videos, "
                                  "found none; no lists were written")
    style, names = _format(tables, given), {}
    texts = {f"{split}_few_shot.txt": "\n".join(_lines(table, split, style, given)) + "\n"
             for split, table in tables.items()}
    for split, table in tables.items():
        names[split] = table.drop_duplicates("class_index").sort_values("class_index")["class"].tolist()
    texts["classes.yaml"] = yaml.safe_dump({"checked": names}, allow_unicode=True, sort_keys=False)
    _write(directory, texts)
    lines, dropped = [], False
    for split in tables:
        path = directory / f"{split}_few_shot.txt"
        left = len(read_split_list(path, split, style))  # what was written can be read
        own = checked.table[checked.table.split == split]
        gone = [name for name in dict.fromkeys(own["class"]) if name not in set(names[split])]
        dropped = dropped or bool(gone)
        lines.append(f"{path}: {left:,} of {len(own):,} videos, {len(names[split])} classes, "
                     f"{list_name(split, list_hash(path))}" + (f"; without {json.dumps(gone)}" if gone else ""))
    lines += ["use them with: " + " ".join(_settings(directory, style, given, dropped, cfg)),
              "a result on other lists does not compare with published ones: it carries the lists' names"]
    return "\n".join(lines) + "\n"
