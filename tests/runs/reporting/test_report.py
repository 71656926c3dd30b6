"""The report's page: its numbers, its escaping, what it refuses. test_report_browser.py opens it in a browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from runs.reporting.report import render_report, write_report
from tests.runs.reporting.report_fixture import NASTY, RUN, confusion_of, content, names_of, records_of, results_of

VOID = {"meta", "img", "br", "link", "input"}
TWO_MEGABYTES = 2_000_000


class Page(HTMLParser):
    """Elements as (tag, attributes, text within); checks that tags are closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, dict, list[str]]] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag in {"td", "th", "dt", "dd", "li", "title"}:
            self.handle_data(" ")

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def all(self, tag: str, name: str | None = None) -> list[str]:
        """Texts of the elements of a tag (and a class name), blanks collapsed."""
        return [" ".join("".join(text).split()) for found, attributes, text in self.elements
                if found == tag and (name is None or name in (attributes.get("class") or "").split())]

    @property
    def text(self) -> str:
        return self.all("main")[0]


@pytest.fixture(scope="module")
def given() -> dict:
    return content(examples=2)


@pytest.fixture(scope="module")
def html(given) -> str:
    return render_report(**given)


def _render(given: dict, **changes) -> str:
    """Without examples: pictures take the time."""
    return render_report(**{**given, "examples": [], **changes})


def test_numbers_are_those_of_the_results(given, html):
    page, results = Page(html), given["results"]
    low, high = results["interval95_videos"]
    assert page.all("p", "big") == [f"{results['accuracy']:.2%} ± {results['interval95']:.2%}"]
    assert f"{low:.2%} to {high:.2%}" in page.all("div", "headline")[0]
    assert "mean over 10,000 episodes" in page.text and "guessing gets 20.00%" in page.text
    facts = page.all("dl", "facts")[0]
    for words in ("5-way 1-shot, 1 query a class", "upstream", "test: ssv2_full@2854", "val, with 86.12% there",
                  "none: the same frames of a clip every time", "1234567; of the episodes 0", "RN50", "4,200"):
        assert words in facts
    rows = [row for row in page.all("tr") if row.startswith(("prototypes", "fused", "text only"))]
    assert [row.split(" ")[0] for row in rows] == ["prototypes", "fused", "text"]
    for row, key in zip(rows, ("prototypes", "fused", "text"), strict=True):
        figures = results["scorings"][key]
        assert f"{figures['accuracy']:.2%} ± {figures['interval95']:.2%}" in row and f"{figures['ece']:.2%}" in row
    assert "this result" in rows[0] and "this result" not in rows[1] and "text weight 0.9" in rows[1]


def test_classes_are_sorted_bars(given, html):
    figures = given["results"]["per_class"]
    best_first = sorted(figures, key=lambda name: (-figures[name]["accuracy"], name))
    items = Page(html).all("li")
    assert len(items) == 12
    for item, name in zip(items, best_first, strict=True):
        low, high = figures[name]["wilson95"]
        assert item.startswith(name) and item.endswith(
            f"{figures[name]['accuracy']:.1%} {low:.1%} to {high:.1%} {figures[name]['correct']} of 300")
    widths = [float(w) for w in re.findall(r'class="fill" style="width: ([\d.]+)%', html)]
    assert widths == pytest.approx([100 * figures[name]["accuracy"] for name in best_first], abs=0.006)
    assert "--chance: 20.0%" in html


def test_confusion_is_written_out_up_to_thirty_classes_and_drawn_above(given, html):
    counts = given["confusion_GG"]
    cells = re.findall(r'<td( class="own")?(?: style="--p: ([\d.]+)" title="(\d+) of 300")?>(\d*)</td>',
                       html[html.index('class="matrix'):html.index("Most confused pairs")])
    assert len(cells) == 144 and sum(bool(own) for own, *_ in cells) == 12
    assert [int(count or 0) for _, _, count, _ in cells] == counts.ravel().tolist()
    assert [text for *_, text in cells] == [f"{100 * c / 300:.0f}" if c else "" for c in counts.ravel()]
    names, confusion = names_of(31), confusion_of(31)
    drawn = Page(_render(given, class_names=names, confusion_GG=confusion, results=results_of(names, confusion)))
    assert not drawn.all("table", "matrix") and len(drawn.all("svg", "matrix")) == 1
    for side in ("rows", "columns"):
        axis = drawn.all("g", side)[0]
        assert all(f"{name} " in axis for name in names) and axis.count("31") == 1 and axis.count("…") == 1


def test_confused_pairs_come_from_the_results(given, html):
    results = given["results"]
    rows = [f"{p['true']} {p['predicted']} {p['count']} {p['rate']:.1%}" for p in results["top_confusions"]]
    assert [row for row in Page(html).all("tr") if row in rows] == rows and len(rows) == 7
    clean = _render(given, results={**results, "top_confusions": []})
    assert "No query was taken for another class" in Page(clean).text


def test_a_class_without_queries_has_an_empty_row(given):
    counts = given["confusion_GG"].copy()
    counts[3] = 0
    page = _render(given, confusion_GG=counts)
    assert "nan" not in page.lower() and len(re.findall(r"<td[^>]*></td>", page)) >= 12


def test_text_from_outside_is_escaped(given, html):
    page = Page(html)
    assert NASTY not in html and "<script>alert" not in html and "<b>\"Pouring" not in html
    assert any(NASTY in name for name in page.all("span", "name"))
    assert page.all("h1")[0].endswith("demo <clips>") and "<clips>" not in html
    assert any("kind <i>" in row for row in Page(_render(given, run={**RUN, "config": {"A": "kind <i>"}})).all("tr"))
    assert any("x <u>" in d for d in Page(_render(given, run={**RUN, "command": ["x <u>"]})).all("dd"))
    acting = _render(given, run={**RUN, "command": ["a\x1b[2J\u202eb"]})
    assert "a\\x1b[2J\\u202eb" in acting and "\x1b" not in acting and "\u202e" not in acting
    titles = [a["title"] for _, a, _ in page.elements if "title" in a]
    assert NASTY in titles


def test_the_page_needs_nothing_else(html):
    page = Page(html)
    for tag, attributes, _ in page.elements:
        for key in ("src", "href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("data:image/", "#")), (tag, attributes)
        assert tag not in {"link", "iframe", "object", "base"} and not any(key.startswith("on") for key in attributes)
        assert tag != "img" or attributes["alt"]
    assert len(page.all("script")) == 1 and "url(http" not in html and "@import" not in html
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids)) and len(ids) > 20
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', html))
    assert used <= set(ids) and "0a0b0" not in html


@pytest.mark.parametrize(("selected_on", "shouts", "doubts"), [("test", 1, 0), ("val", 0, 0),
                                                              ("not recorded in the checkpoint", 0, 1)])
def test_selection_on_test_shouts(given, selected_on, shouts, doubts):
    page = Page(_render(given, results={**given["results"], "selected_on": selected_on}))
    assert len(page.all("div", "shout")) == shouts and len(page.all("div", "doubt")) == doubts
    assert page.text.count("SELECTED ON TEST") == shouts
    assert page.all("title")[0].startswith("Selected on test") == bool(shouts)


@pytest.mark.parametrize(("draws", "words"), [(None, "none: the same frames"), (4, "4 of each clip"),
                                              ("fresh", "fresh: other random frames")])
def test_temporal_draws_in_words(given, draws, words):
    assert words in Page(_render(given, results={**given["results"], "temporal_draws": draws})).text


def test_a_test_only_run_says_so_and_a_training_has_curves(given, html):
    assert "this run only tested a checkpoint" in Page(_render(given, records=[])).text
    page = Page(html)
    assert len(page.all("svg", "curve")) == 3 and "Each point of the lines is the mean of 2 records" in page.text
    assert "only tested" not in page.text and "5,000 val 85.00% ± 2.10%" in page.all("tr")
    labels = [a["aria-label"] for tag, a, _ in page.elements if tag == "svg" and a.get("class") == "curve"]
    assert labels[0].startswith("training loss over") and "validation, val list (95 % interval)" in labels[1]
    validated = [r for r in records_of() if r["kind"] == "validation"]
    assert len(Page(_render(given, records=validated)).all("svg", "curve")) == 1


def test_examples_show_ways_frames_and_maps(given, html):
    page, (first, second) = Page(html), given["examples"]
    assert [a["class"] for tag, a, _ in page.elements if tag == "article"] == ["example right", "example wrong"]
    assert first.right and not second.right
    assert page.all("h3").count(f"✗ Wrong {second.true.class_name} taken for {second.predicted.class_name}") == 1
    for way in (*first.ways, *second.ways):
        assert any(row.startswith(way.class_name) and row.endswith(f"{way.value:.3f} {way.probability:.1%}")
                   for row in page.all("tr")), way.class_name
    assert len(page.all("div", "heat")) == 10 and len(page.all("circle")) == sum(
        int((way.path_TT >= 0.02).sum()) for example in (first, second) for way in example.ways)
    radii = [float(a["r"]) for tag, a, _ in page.elements if tag == "circle"]
    most = max(float(way.path_TT.max()) for example in (first, second) for way in example.ways)
    assert max(radii) == pytest.approx(0.42 * most**0.5, abs=1e-3)


def test_a_method_without_costs_shows_frames_and_figures(given):
    bare = [replace(e, ways=tuple(replace(w, costs_TT=None, path_TT=None) for w in e.ways)) for e in given["examples"]]
    page = Page(render_report(**{**given, "examples": bare}))
    assert not page.all("div", "heat") and len(page.all("article")) == 2
    assert "no costs of frame against frame" in page.text and len(page.all("div", "frames")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("shot", [1, 5])
def test_eight_examples_stay_under_two_megabytes(tmp_path, shot, record_property):
    path = tmp_path / "report.html"
    write_report(path, **content(examples=8, shot=shot))
    record_property("bytes", path.stat().st_size)
    assert path.stat().st_size < TWO_MEGABYTES, f"{path.stat().st_size:,} bytes"


def test_a_failed_report_leaves_the_earlier_one(tmp_path, given):
    path = tmp_path / "report.html"
    write_report(path, **{**given, "examples": []})
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_report(path, **{**given, "examples": [], "results": {}})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["report.html"]
