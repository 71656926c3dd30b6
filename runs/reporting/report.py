"""Write the report of a test: one HTML file that needs nothing else, for a screen, a phone or paper.

The page is page.html, macros.html and style.css; words.py has its words, curves.py its curves, pictures.py its
pictures. The template engine escapes every text from outside, and a content policy in the page forbids the network and
any script but the one below.

G classes of the list, T frames, H/W/C image, L query frames x M support frames of a heat map.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from runs.reporting import words
from runs.reporting.curves import draw_curves
from runs.reporting.examples import Example, WayExample
from runs.reporting.pictures import shaded, strip, thumbnail
from utils.command import printable
from utils.files import whole_file

ROOM = Path(__file__).parent
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


def _dots(path_LM: np.ndarray, costs_LM: np.ndarray) -> list[tuple[float, float, float, str]]:
    """Return (x, y, radius in cells, words) of each visited cell."""
    return [(column + 0.5, row + 0.5, round(LARGEST_DOT * float(np.sqrt(min(1.0, path_LM[row, column]))), 3),
             f"query frame {row + 1} meets support frame {column + 1} with probability {path_LM[row, column]:.2f}, "
             f"cost {costs_LM[row, column]:.2f}")
            for row, column in np.argwhere(path_LM >= LEAST_SHOWN)]


def _line(path_LM: np.ndarray) -> str:
    """Return SVG points through the mean query frame that each support frame meets."""
    weights = path_LM.sum(axis=0)
    rows = (path_LM * np.arange(len(path_LM))[:, None]).sum(axis=0) / np.where(weights > 0, weights, 1)
    return " ".join(f"{column + 0.5},{row + 0.5:.2f}" for column, row in enumerate(rows) if weights[column] > 0)


def heat_map(way: WayExample, query_frames_THWC: np.ndarray, scale: tuple[float, float] | None
             ) -> dict[str, Any] | None:
    """Return what the template draws of a way's costs, shaded from scale[0] to scale[1], with the path over them; None
    without costs."""
    if way.costs_TT is None or way.path_TT is None or scale is None:
        return None
    low, high = scale
    return {"rows": way.costs_TT.shape[0], "columns": way.costs_TT.shape[1],
            "cells": shaded((way.costs_TT - low) / (high - low or 1.0)),
            "left": strip(query_frames_THWC, vertical=True), "top": [strip(clip) for clip in way.support_frames_STHWC],
            "dots": _dots(way.path_TT, way.costs_TT), "line": _line(way.path_TT)}


def view(example: Example) -> dict[str, Any]:
    """Return what the template shows of an example.

    Shown in full are the true and the predicted class, of a right example the runner-up in place of the latter, where
    the true class is not known the two most probable; the other ways are folded. `scale` holds the smallest and the
    largest cost of the ways: shades compare within it.
    """
    ranked = sorted(example.ways, key=lambda way: -way.probability)
    full = ranked[:2] if example.true is None or example.right else [example.true, example.predicted]
    costs = [way.costs_TT for way in example.ways if way.costs_TT is not None]
    scale = (float(np.min(costs)), float(np.max(costs))) if costs else None

    def role(way: WayExample) -> str:
        roles = (("true class", example.true), ("predicted" if example.true else "nearest", example.predicted))
        return " and ".join(name for name, one in roles if one is way)

    def shown(way: WayExample, other: str) -> dict[str, Any]:
        heat = heat_map(way, example.query_frames_THWC, scale)
        strips = way in full and (heat is None or len(way.support_frames_STHWC) < MANY_CLIPS)
        clips = [[thumbnail(frame) for frame in clip] for clip in way.support_frames_STHWC if strips]
        return {"way": way, "role": role(way) or other, "clips": clips, "heat": heat}

    return {"example": example, "query": [thumbnail(frame) for frame in example.query_frames_THWC], "scale": scale,
            "ranked": [(way, role(way)) for way in ranked], "full": [shown(way, "next most probable") for way in full],
            "folded": [shown(way, "other class") for way in ranked if way not in full]}


def _shown(value: Any) -> Any:
    """Return what the page shows of a value: of text from outside no character that acts instead of being seen."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def page_template(name: str) -> Template:
    """Return a template of this folder; it escapes texts, and fails where a name is missing."""
    environment = Environment(loader=FileSystemLoader(ROOM), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    environment.filters["percent"] = words.percent
    return environment.get_template(name)


def page_style() -> Markup:
    """Return the style sheet of every page."""
    return Markup((ROOM / "style.css").read_text(encoding="utf-8"))


def page_script(script: str) -> dict[str, str]:
    """Return a page's script, and what its content policy says to let it run, by the names that templates give them."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "script_source": f"script-src 'sha256-{digest}'"}


def render_report(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]], confusion_GG: np.ndarray,
                  class_names: Sequence[str], examples: Sequence[Example], run: Mapping[str, Any]) -> str:
    """Return the page as text; arguments as for `write_report`."""
    totals = confusion_GG.sum(axis=1, keepdims=True)
    shares_GG = np.divide(confusion_GG, totals, out=np.zeros(confusion_GG.shape), where=totals > 0)
    drawings, group = draw_curves(records)
    return page_template("page.html").render(
        results=results, chance=1 / results["way"], conditions=words.conditions(results), drawings=drawings,
        group=group, validations=[record for record in records if record.get("kind") == "validation"],
        classes=sorted(results["per_class"].items(), key=lambda item: (-item[1]["accuracy"], item[0])),
        names=class_names, counts=confusion_GG, shares=shares_GG, drawn=len(class_names) > TABLE_CLASSES,
        matrix=shaded(np.sqrt(shares_GG[:, :len(class_names)])), examples=[view(example) for example in examples],
        origins=words.origins(results, run), settings=words.settings(run), style=page_style(), **page_script(SCRIPT))


def write_report(path: Path, results: Mapping[str, Any], records: Sequence[Mapping[str, Any]],
                 confusion_GG: np.ndarray, class_names: Sequence[str], examples: Sequence[Example],
                 run: Mapping[str, Any]) -> None:
    """Write the report of a test as one HTML file; the file is never half there.

    Args:
        path: the file, in a directory that exists.
        results: content of results.json, as evaluation.summary.summarise makes it.
        records: content of log.jsonl (kinds "train" and "validation"); empty where nothing was trained.
        confusion_GG: number of queries of each true class (row) given to each class (column); a further column counts
            those without a finite score.
        class_names: names of the list's classes, in the order of `confusion_GG`.
        examples: queries to show, see runs/reporting/examples.py; may be empty.
        run: content of run.json.
    """
    page = render_report(results, records, confusion_GG, class_names, examples, run)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
