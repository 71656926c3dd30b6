"""Training curves: a PNG while a run goes on, and matplotlib's SVG in the report, recoloured so that it follows the
page's light or dark colours."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.errors import ReportError
from utils.files import whole_file

MOST_POINTS = 400  # of a line; longer records are averaged in groups, which keeps the page small
INK, RULE, LINE, MARK = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"  # stand-ins, replaced by the page's colours
PAGE_COLOURS = {INK: "var(--ink)", RULE: "var(--rule)", LINE: "var(--line)", MARK: "var(--mark)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": RULE, "xtick.color": INK, "ytick.color": INK, "grid.color": RULE, "grid.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Curves:
    """What section "Training" shows.

    Args:
        drawings: the SVG of each curve; none when nothing was trained.
        validations: the validation records, in order.
        group: how many training records each point of a line stands for.
    """

    drawings: tuple[Markup, ...]
    validations: tuple[Mapping[str, Any], ...]
    group: int


def _column(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One number of each record; NaN for null. Raises ReportError for a record without it."""
    values = []
    for record in records:
        if key not in record:
            raise ReportError(f"records: a {record['kind']} record has no {key!r}: {dict(record)}")
        values.append(np.nan if record[key] is None else float(record[key]))
    return np.array(values)


def _grouped(values: np.ndarray, group: int) -> np.ndarray:
    """Means of `group` values each; NaN where all are."""
    parts = [values[i : i + group] for i in range(0, len(values), group)]
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in parts])


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.7, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel("iteration (one training episode each)")
    axes.grid(axis="y")
    return figure, axes


def _drawing(figure: Figure, name: str, description: str) -> Markup:
    """The figure as inline SVG: as wide as its place, described for those who do not see it."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue().decode()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg[^>]*viewBox="([^"]*)"[^>]*>',
                 rf'<svg class="curve" role="img" aria-label="{escape(description)}" viewBox="\1">', svg)
    # several drawings share the page: their names for parts must differ
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Markup(svg)


def _first_last(values: np.ndarray, form: str) -> str:
    known = values[np.isfinite(values)]
    return f"from {known[0]:{form}} to {known[-1]:{form}}" if known.size else "never finite"


def _line(steps: np.ndarray, values: np.ndarray, name: str, title: str, form: str) -> Markup:
    figure, axes = _figure(title)
    axes.plot(steps, values, color=LINE, linewidth=1.5)
    return _drawing(figure, name, f"{title} over {int(steps[-1])} iterations, {_first_last(values, form)}")


def _accuracy(steps: np.ndarray, values: np.ndarray, validations: Sequence[Mapping[str, Any]]) -> Markup:
    figure, axes = _figure("accuracy")
    words = []
    if len(values):
        axes.plot(steps, values, color=LINE, linewidth=1.5, label="training")
        words.append(f"training {_first_last(values, '.1%')}")
    if validations:
        found = _column(validations, "accuracy")
        label = f"validation, {validations[0].get('split', 'val')} list (95 % interval)"
        axes.errorbar(_column(validations, "iteration"), found, yerr=_column(validations, "interval95"),
                      color=MARK, linestyle="--", marker="o", markersize=4, capsize=3, label=label)
        words.append(f"{label} {_first_last(found, '.1%')}")
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    axes.margins(y=0.12)
    for text in axes.legend(loc="lower right", fontsize=9).get_texts():
        text.set_parse_math(False)  # a list's name is no formula
    return _drawing(figure, "accuracy", "accuracy: " + "; ".join(words))


def draw_curves(records: Sequence[Mapping[str, Any]]) -> Curves:
    """Loss, accuracy (training, validation with interval) and learning rate over iterations.

    Args:
        records: the content of log.jsonl; other kinds than "train" and "validation" are left out.

    Raises ReportError for a record without its numbers.
    """
    train = [r for r in records if r.get("kind") == "train"]
    validations = tuple(r for r in records if r.get("kind") == "validation")
    group = max(1, -(-len(train) // MOST_POINTS))
    columns = {key: _grouped(_column(train, key), group) for key in ("iteration", "loss", "accuracy", "lr")}
    steps, drawings = columns["iteration"], []
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "report"}):
        if train:
            drawings.append(_line(steps, columns["loss"], "loss", "training loss", ".4f"))
        if train or validations:
            drawings.append(_accuracy(steps, columns["accuracy"], validations))
        if train:
            drawings.append(_line(steps, columns["lr"], "lr", "learning rate", ".2e"))
    return Curves(tuple(drawings), validations, group)


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, training accuracy, learning rate and validation accuracy over iterations as a PNG."""
    train = [r for r in records if r.get("kind") == "train"]
    val = [r for r in records if r.get("kind") == "validation"]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    steps = [r["iteration"] for r in train]
    axes[0].plot(steps, [r["loss"] for r in train], color="tab:blue")
    axes[0].set(title="training loss", xlabel="iteration")
    axes[1].plot(steps, [r["accuracy"] for r in train], color="tab:blue", label="training")
    if val:
        axes[1].errorbar([r["iteration"] for r in val], [r["accuracy"] for r in val],
                         yerr=[r["interval95"] for r in val], color="tab:orange", marker="o", capsize=3,
                         label=f"{val[0]['split']} (95 % interval)")
    axes[1].set(title="accuracy", xlabel="iteration", ylim=(0, 1))
    axes[1].legend(loc="lower right")
    axes[2].plot(steps, [r["lr"] for r in train], color="tab:green")
    axes[2].set(title="learning rate", xlabel="iteration")
    for axis in axes:
        axis.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
    figure.clear()  # its parts refer to each other, 4 MiB each: they would wait for a full garbage collection
