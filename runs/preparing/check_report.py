"""The page of numbers of a check: what is missing, unreadable, short, elsewhere; classes that fall below an episode."""

from dataclasses import dataclass

import pandas as pd

MOST = 20  # examples of a kind


@dataclass(frozen=True, slots=True)
class Needs:
    """What an episode takes: classes, and videos of each."""

    way: int
    videos: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest and what it is measured by.

    Args:
        table: see check.manifest. needs: by split. T: frames a clip. drop_short: whether short videos are bad.
    """

    table: pd.DataFrame
    needs: dict[str, Needs]
    T: int
    drop_short: bool = False

    @property
    def good(self) -> pd.Series:
        """Which rows are usable, wherever they lie."""
        return self.table.status.isin(["ok"] if self.drop_short else ["ok", "short"])


def small_classes(checked: Checked) -> pd.DataFrame:
    """split, class, class_index, listed, good of the classes with fewer good videos than an episode draws."""
    table = checked.table.assign(good=checked.good)
    counts = table.groupby(["split", "class_index", "class"], sort=False).good.agg(listed="size", good="sum")
    counts = counts.reset_index()
    need = counts.split.map({split: needs.videos for split, needs in checked.needs.items()})
    return counts[counts.good < need]


def small_splits(checked: Checked) -> list[str]:
    """A line for each split with fewer classes left than an episode draws."""
    small, lines = small_classes(checked), []
    for split, needs in checked.needs.items():
        classes = checked.table[checked.table.split == split].class_index.nunique()
        left = classes - int((small.split == split).sum())
        if left < needs.way:
            lines.append(f"{split}: an episode draws {needs.way} classes, {left} of {classes} have enough videos")
    return lines


def problems(checked: Checked) -> bool:
    """Whether anything is bad: a run of this configuration would stop, or replace videos."""
    bad = ~checked.good | ~checked.table.as_listed
    return bool(bad.any() or len(small_classes(checked)) or small_splits(checked))


def _examples(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - MOST} more (manifest.parquet has all)"] if len(lines) > MOST else []
    return ["", f"{title} ({len(lines)}):", *(f"  {line}" for line in lines[:MOST]), *more]


def _counts(checked: Checked) -> list[str]:
    """The table of numbers, a line a split."""
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
    """Lengths, rates, sizes and codecs of what can be read."""
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


def page(checked: Checked, speed: str) -> str:
    """The page as text."""
    table = checked.table
    lines = [*_counts(checked), *_lengths(table)]
    for status, title in (("missing", "missing"), ("unreadable", "unreadable"),
                          ("short", f"shorter than T = {checked.T} frames (frames repeat)")):
        own = table[table.status == status]
        texts = [f"{row.split} {row.path}: " + (f"{row.frames} frames" if status == "short" else row.reason)
                 for row in own.itertuples()]
        lines += _examples(title, texts)
    own = table[table.found.notna() & ~table.as_listed]
    lines += _examples("found elsewhere than listed: a run does not find them (rename them, or use --write-lists)",
                       [f"{row.split} {row.path} -> {row.found}" for row in own.itertuples()])
    own = table[table.status.isin(["ok", "short"]) & (table.reason != "") & table.as_listed]
    lines += _examples("readable, but odd", [f"{row.split} {row.path}: {row.reason}" for row in own.itertuples()])
    small = [f"{row.split} class {row.class_index} ({row[3]!r}): {row.good} of {row.listed} good, an episode draws "
             f"{checked.needs[row.split].videos}" for row in small_classes(checked).itertuples()]
    lines += _examples("classes below what an episode needs", small)
    lines += _examples("splits below what an episode needs", small_splits(checked))
    lines += ["", speed, "all good" if not problems(checked) else "something is bad: see above"]
    return "\n".join(lines) + "\n"
