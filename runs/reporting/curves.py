"""Draw training curves: a PNG while a run goes on, and SVG in the report, in the page's light or dark colours."""

import gc
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from utils.files import whole_file

if TYPE_CHECKING:  # slow to import, and a training draws nothing before it validates
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 400  # of a line; longer records are averaged in groups, which keeps the page small
INK, RULE, LINE, MARK = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"  # stand-ins, replaced by the page's colours
PAGE_COLOURS = {INK: "var(--ink)", RULE: "var(--rule)", LINE: "var(--line)", MARK: "var(--mark)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": RULE, "xtick.color": INK, "ytick.color": INK, "grid.color": RULE, "grid.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}
CURVES = {"loss": ("training loss", ".4f"), "accuracy": ("accuracy", ".1%"), "lr": ("learning rate", ".2e")}


def of_kind(records: Sequence[Mapping[str, Any]], kind: str) -> "pd.DataFrame":
    """Return the "train" or "validation" records of log.jsonl as a table; a figure that was not finite is NaN."""
    import pandas as pd

    return pd.DataFrame([record for record in records if record.get("kind") == kind])


def _first_last(values: "pd.Series", form: str) -> str:
    known = values.dropna().to_list()
    return f"from {known[0]:{form}} to {known[-1]:{form}}" if known else "never finite"


def _draw(axes: "Axes", name: str, train: "pd.DataFrame", validations: "pd.DataFrame", colours: tuple[str, str]
          ) -> str:
    """Draw one of CURVES, the accuracy with that of validations; return it in words for those who do not see it."""
    from matplotlib.ticker import PercentFormatter

    (title, form), parts = CURVES[name], []
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel("iteration (one training episode of each process)")
    axes.grid(axis="y")
    if len(train):
        axes.plot(train["iteration"], train[name], color=colours[0], linewidth=1.5, label="training")
        parts.append(f"training {_first_last(train[name], form)}")
    if name == "accuracy":
        if len(validations):
            label = f"validation, {validations['split'][0]} list (95 % interval)"
            axes.errorbar(validations["iteration"], validations["accuracy"], yerr=validations["interval95"],
                          color=colours[1], linestyle="--", marker="o", markersize=4, capsize=3, label=label)
            parts.append(f"{label} {_first_last(validations['accuracy'], form)}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(y=0.12)
        for text in axes.legend(loc="best", fontsize=9).get_texts():
            text.set_parse_math(False)  # a list's name is no formula
    return f"{title} over the iterations: {'; '.join(parts)}"


def _inline(figure: "Figure", name: str, description: str) -> Markup:
    """Return a figure as inline SVG, as wide as the page leaves it room."""
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


def draw_curves(records: Sequence[Mapping[str, Any]]) -> tuple[list[Markup], int]:
    """Return (loss, accuracy and learning rate as SVG, how many training records a point stands for).

    Args:
        records: the content of log.jsonl. Without training records there is the accuracy of validations alone, without
            those nothing.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    train, validations = of_kind(records, "train"), of_kind(records, "validation")
    group = max(1, -(-len(train) // MOST_POINTS))
    if len(train):
        train = train[["iteration", *CURVES]].astype(float).groupby(np.arange(len(train)) // group).mean()
    drawings = []
    with rc_context({**STYLE, "svg.hashsalt": "report"}):
        for name in CURVES if len(train) else ["accuracy"] if len(validations) else []:
            figure = Figure(figsize=(4.7, 3.1), layout="constrained")
            description = _draw(figure.add_subplot(), name, train, validations, (LINE, MARK))
            drawings.append(_inline(figure, name, description))
    return drawings, group


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, accuracy and learning rate over the iterations as one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        _draw(axes, name, of_kind(records, "train"), of_kind(records, "validation"), ("tab:blue", "tab:orange"))
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
    del figure, axes
    gc.collect()  # a figure's parts refer to each other, 4 MiB a drawing: nothing else frees them soon
