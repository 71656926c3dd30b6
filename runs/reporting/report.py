"""The report of a test: one HTML file that needs nothing else, for a screen, a phone or paper.

`write_report` puts together the words and tables (report_text), the curves (report_curves), the pictures
(report_pictures) and the page (page.html, style.css). Every text from outside is escaped by the
template engine; a content policy in the page forbids the network and any script but the one below.

G classes of the list, T frames, H/W/C image, L query frames x M support frames of a heat map.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runs.reporting import words as text
from runs.reporting.curves import draw_curves
from runs.reporting.examples import Example, WayExample
from runs.reporting.pictures import Picture, cost_range, scaled, shaded, strip, thumbnail
from utils.files import whole_file

TABLE_CLASSES = 30  # a confusion matrix of more classes is drawn instead of written out
LEAST_SHOWN = 0.02  # visiting probabilities below are not drawn
LARGEST_DOT = 0.42  # radius of a dot of probability 1, in cells; the area follows the probability
MANY_CLIPS = 3  # ways with as many support clips show them along the top of the map only
# Browsers do not print what is inside a closed <details>: open all for printing, then close those that were closed.
SCRIPT = """
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
"""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A cost matrix with the path over it, ready to draw.

    Args:
        rows, columns: query frames and support frames.
        cells: the shaded costs, one pixel a cell.
        left, top: the query's frames in a column; the frames of each support clip in a row.
        dots: (x, y, radius in cells, words) of each visited cell.
        line: SVG points of the mean query frame that each support frame meets.
    """

    rows: int
    columns: int
    cells: Picture
    left: Picture
    top: tuple[Picture, ...]
    dots: tuple[tuple[float, float, float, str], ...]
    line: str


@dataclass(frozen=True, slots=True)
class WayView:
    """A way as shown: its part in the example ("true class", ...), thumbnails of each support clip, the heat map."""

    way: WayExample
    part: str
    clips: tuple[tuple[Picture, ...], ...]
    heat: HeatMap | None


@dataclass(frozen=True, slots=True)
class ExampleView:
    """An example as shown: the query's thumbnails, ways by falling probability, those in full and those folded."""

    example: Example
    query: tuple[Picture, ...]
    ranked: tuple[tuple[WayExample, str], ...]
    shown: tuple[WayView, ...]
    folded: tuple[WayView, ...]
    costs: tuple[float, float] | None


def _dots(path_TT: np.ndarray, costs_TT: np.ndarray) -> tuple[tuple[float, float, float, str], ...]:
    return tuple(
        (column + 0.5, row + 0.5, round(LARGEST_DOT * float(np.sqrt(min(1.0, path_TT[row, column]))), 3),
         f"query frame {row + 1} meets support frame {column + 1} with probability {path_TT[row, column]:.2f}, "
         f"cost {costs_TT[row, column]:.2f}")
        for row, column in np.argwhere(path_TT >= LEAST_SHOWN))


def _line(path_LM: np.ndarray) -> str:
    """Points (column, mean row of the column's visits), cell centres."""
    weights = path_LM.sum(axis=0)
    rows = (path_LM * np.arange(len(path_LM))[:, None]).sum(axis=0) / np.where(weights > 0, weights, 1)
    return " ".join(f"{column + 0.5},{row + 0.5:.2f}" for column, row in enumerate(rows) if weights[column] > 0)


def heat_map(way: WayExample, query_frames_THWC: np.ndarray, costs: tuple[float, float] | None) -> HeatMap | None:
    """The way's heat map, shaded over `costs` (smallest, largest of the episode); None without costs."""
    if way.costs_TT is None or costs is None:
        return None
    rows, columns = way.costs_TT.shape
    dots = () if way.path_TT is None else _dots(way.path_TT, way.costs_TT)
    return HeatMap(rows, columns, shaded(scaled(way.costs_TT, *costs)), strip(query_frames_THWC, vertical=True),
                   tuple(strip(clip) for clip in way.support_frames_STHWC),
                   dots, "" if way.path_TT is None else _line(way.path_TT))


def _part(example: Example, way: WayExample) -> str:
    """What the way is in the example, in words."""
    parts = [name for name, held in (("true class", example.true_class), ("predicted", example.predicted_class))
             if held == way.class_name]
    return " and ".join(parts)


def view(example: Example) -> ExampleView:
    """An example with its pictures. In full: the true and the predicted class; of a right one also the runner-up."""
    ranked = sorted(example.ways, key=lambda way: -way.probability)
    full = [example.way(example.true_class)]
    full.append(ranked[1] if example.right else example.way(example.predicted_class))
    matrices = [way.costs_TT for way in example.ways if way.costs_TT is not None]
    costs = cost_range(matrices) if matrices else None

    def way_view(way: WayExample, in_full: bool) -> WayView:
        heat = heat_map(way, example.query_frames_THWC, costs)
        strips = in_full and (heat is None or len(way.support_frames_STHWC) < MANY_CLIPS)
        clips = tuple(tuple(thumbnail(frame) for frame in clip) for clip in way.support_frames_STHWC if strips)
        return WayView(way, _part(example, way) or ("next most probable" if in_full else "other class"), clips, heat)

    return ExampleView(example, tuple(thumbnail(frame) for frame in example.query_frames_THWC),
                       tuple((way, _part(example, way)) for way in ranked),
                       tuple(way_view(way, True) for way in full),
                       tuple(way_view(way, False) for way in ranked if way not in full), costs)


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = text.percent
    return environment


def render_report(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]], confusion_GG: np.ndarray,
                  class_names: Sequence[str], examples: Sequence[Example], *,
                  run: Mapping[str, Any] | None = None) -> str:
    """The page as text; arguments and errors as `write_report`."""
    text.check(results)
    names = [str(name) for name in class_names]
    counts_GG = text.check_confusion(confusion_GG, names)
    origin = {**results, **(run or {})}
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        results=results, chance=1 / results["way"], facts=text.facts(results), videos=text.video_interval(results),
        scorings=text.scoring_rows(results), curves=draw_curves(records), classes=text.class_rows(results, names),
        names=names, counts=counts_GG, shares=text.row_shares(counts_GG), drawn=len(names) > TABLE_CLASSES,
        matrix=shaded(np.sqrt(text.row_shares(counts_GG))), pairs=text.top_pairs(results, counts_GG, names),
        examples=[view(example) for example in examples], origins=text.origins(results, origin),
        settings=text.settings(origin.get("config") or {}, origin.get("sources") or {}),
        style=Markup(style), script=Markup(SCRIPT), script_hash=digest)


def write_report(path: Path, results: Mapping[str, Any], records: Sequence[Mapping[str, Any]],
                 confusion_GG: np.ndarray, class_names: Sequence[str], examples: Sequence[Example], *,
                 run: Mapping[str, Any] | None = None) -> None:
    """Write the report of a test as one HTML file; the file is never half there.

    Args:
        path: the file, in a directory that exists.
        results: content of results.json; keys of report_text.REQUIRED must be there, others are shown if they are.
        records: content of log.jsonl (kinds "train" and "validation"); empty where nothing was trained.
        confusion_GG: number of queries of each true class (row) given to each class (column).
        class_names: names of the list's classes, in the order of `confusion_GG`.
        examples: queries to show, see runs/reporting/examples.py; may be empty.
        run: content of run.json (command, git_commit, versions, config, sources, device); without it the same keys
            are looked for in `results`.

    Raises ReportError, which names the key or part, when something is missing or does not fit together.
    """
    page = render_report(results, records, confusion_GG, class_names, examples, run=run)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
