"""Writes a check's page of numbers: what is missing, unreadable, short or elsewhere; which classes are too small."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

MOST = 20  # examples of a kind


@dataclass(frozen=True, slots=True)
class Needs:
    """Says what an episode takes: classes, and videos of each."""

    way: int
    videos: int


@dataclass(frozen=True, slots=True)
class Checked:
    """Holds a manifest and what it is measured by.

    Args:
        table: see check.manifest. needs: by split. T: frames a clip. drop_short: whether short videos are bad.
    """

    table: pd.DataFrame
    needs: dict[str, Needs]
    T: int
    drop_short: bool = False

    @property
    def good(self) -> pd.Series:
        """The rows that are usable, wherever the videos lie."""
        return self.table.status.isin(["ok"] if self.drop_short else ["ok", "short"])


def small_classes(checked: Checked) -> pd.DataFrame:
    """Return split, class_index, class, listed, good of the classes with fewer good videos than an episode draws."""
    table = checked.table.assign(good=checked.good)
    counts: pd.DataFrame = table.groupby(["split", "class_index", "class"], sort=False).agg(
        listed=("good", "size"), good=("good", "sum")).reset_index()
    need = counts.split.map({split: needs.videos for split, needs in checked.needs.items()})
    return counts[counts.good < need]


def small_splits(checked: Checked) -> list[str]:
    """Return a line for each split with fewer classes left than an episode draws."""
    small, lines = small_classes(checked), []
    for split, needs in checked.needs.items():
        classes = checked.table[checked.table.split == split].class_index.nunique()
        left = classes - int((small.split == split).sum())
        if left < needs.way:
            lines.append(f"{split}: an episode draws {needs.way} classes, {left} of {classes} have enough videos")
    return lines


def problems(checked: Checked) -> bool:
    """Tell whether anything is bad: a run of this configuration would stop, or replace videos."""
    bad = ~checked.good | ~checked.table.as_listed
    return bool(bad.any() or len(small_classes(checked)) or small_splits(checked))


def _examples(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - MOST} more (manifest.parquet has all)"] if len(lines) > MOST else []
    return ["", f"{title} ({len(lines)}):", *(f"  {line}" for line in lines[:MOST]), *more]


def _counts(checked: Checked) -> list[str]:
    """Return the table of numbers, a line a split."""
    lines = [f"{'split':8}{'listed':>9}{'good':>9}{'missing':>9}{'unreadable':>12}{'short':>8}{'elsewhere':>11}"
             f"{'classes':>9}"]
    for split, own in checked.table.assign(good=checked.good).groupby("split", sort=False):
        status = own.status.value_counts()
        elsewhere = int((own.found.notna() & ~own.as_listed).sum())
        lines.append(f"{split:8}{len(own):9,}{own.good.sum():9,}{status.get('missing', 0):9,}"
                     f"{status.get('unreadable', 0):12,}{status.get('short', 0):8,}{elsewhere:11,}"
                     f"{own.class_index.nunique():9,}")
    return lines


def _lengths(table: pd.DataFrame) -> list[str]:
    """Return lengths, rates, sizes and codecs of what can be read."""
    own = table[table.status.isin(["ok", "short"])]
    if own.empty:
        return ["", "not one video can be read"]
    low, mid, high = (int(value) for value in own.frames.quantile([0, 0.5, 1]))
    rates = own.fps.quantile([0, 0.5, 1]).round(2).tolist()
    sizes = (own.width.astype(str) + "x" + own.height.astype(str)).value_counts()
    shown = ", ".join(f"{size} ({count:,})" for size, count in sizes.head(5).items())
    more = f" and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
    codecs = ", ".join(f"{name} ({count:,})" for name, count in own.codec.value_counts().items())
    return ["", f"frames a video: {low} to {high}, median {mid}",
            f"frames a second: {rates[0]:g} to {rates[2]:g}, median {rates[1]:g}", f"sizes: {shown}{more}",
            f"codecs: {codecs}"]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def page(checked: Checked, speed: str) -> str:
    """Return the page as text; `speed` is the line on how long the check took."""
    table = checked.table
    lines = [*_counts(checked), *_lengths(table)]
    for status, title in (("missing", "missing"), ("unreadable", "unreadable"),
                          ("short", f"shorter than T = {checked.T} frames (frames repeat)")):
        lines += _examples(title, [
            f"{row['split']} {row['path']}: " + (f"{row['frames']} frames" if status == "short" else row["reason"])
            for row in _rows(table[table.status == status])])
    own = table[table.found.notna() & ~table.as_listed]
    lines += _examples("found elsewhere than listed: a run does not find them (rename them, or use --write-lists)",
                       [f"{row['split']} {row['path']} -> {row['found']}" for row in _rows(own)])
    own = table[table.status.isin(["ok", "short"]) & (table.reason != "") & table.as_listed]
    lines += _examples("readable, but odd", [f"{row['split']} {row['path']}: {row['reason']}" for row in _rows(own)])
    small = [f"{row['split']} class {row['class_index']} ({row['class']!r}): {row['good']} of {row['listed']} good, an "
             f"episode draws {checked.needs[row['split']].videos}" for row in _rows(small_classes(checked))]
    lines += _examples("classes below what an episode needs", small)
    lines += _examples("splits below what an episode needs", small_splits(checked))
    lines += ["", speed, "all good" if not problems(checked) else "something is bad: see above"]
    return "\n".join(lines) + "\n"
