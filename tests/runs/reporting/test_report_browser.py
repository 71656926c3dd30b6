"""The report in a real browser, without network: phone and desktop, light and dark, print."""

import base64
import re
from pathlib import Path

import pytest

from runs.reporting.report import write_report
from tests.browser import BEYOND, CONTRAST, started_browser
from tests.runs.reporting.report_fixture import NASTY, content

pytestmark = pytest.mark.browser

PHONE, DESKTOP = (360, 740), (1280, 900)
PAPER = 718  # CSS pixels between the margins of A4
BROKEN = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that reaches no host and logs its console."""
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def given() -> dict:
    return content(examples=3)


@pytest.fixture(scope="module")
def report(tmp_path_factory, given) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, **given)
    return path


def _open(browser, path: Path, size: tuple[int, int], scheme: str = "light", media: str = "") -> None:
    browser.get_log("browser")  # what earlier pages left
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(path.as_uri())


def _count(browser, selector: str) -> int:
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


def _open_details(browser) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_fits_is_whole_and_readable(browser, report, given, size, scheme):
    _open(browser, report, size, scheme)
    _open_details(browser)
    assert browser.execute_script("return innerWidth") == size[0]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    assert browser.execute_script(BEYOND) == []
    assert browser.execute_script(BROKEN) == [] and _count(browser, "img") == 3 * 8 + 3 * 2 * 8 + 3 * 5 * 2
    assert browser.get_log("browser") == []
    seen, faint = browser.execute_script(CONTRAST)
    assert faint == [] and seen > 300
    ground = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    names = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in names if not name.startswith("data:")] == []


def test_what_is_seen_is_what_was_given(browser, report, given):
    _open(browser, report, DESKTOP)
    results = given["results"]
    headings = browser.execute_script("return [...document.querySelectorAll('h1, h2')].map(e => e.innerText)")
    assert headings == ["CLIP-FSAR on demo <clips>", "Result", "Training", "Accuracy of each class", "Confusion",
                        "Examples", "Reproduce"]
    seen = browser.execute_script("return document.querySelector('.big').innerText")
    assert seen == f"{results['accuracy']:.2%} ± {results['interval95']:.2%}"
    assert _count(browser, ".bars li") == 12 and _count(browser, "table.matrix tbody td") == 144
    assert _count(browser, ".pairs tbody tr") == 7 and _count(browser, "article.example") == 3
    assert _count(browser, ".scorings tbody tr") == 3 and _count(browser, "svg.curve") == 3
    assert NASTY in browser.execute_script("return document.querySelector('.bars').textContent")
    bars = browser.execute_script(
        "return [...document.querySelectorAll('.bar')].map(b => b.querySelector('.fill').getBoundingClientRect().width"
        " / b.clientWidth)")
    assert bars == pytest.approx(sorted((c["accuracy"] for c in results["per_class"].values()), reverse=True), abs=0.01)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_frames_stand_beside_their_rows_and_columns(browser, report, size):
    _open(browser, report, size)
    boxes = browser.execute_script("""return [...document.querySelectorAll('.example > .pair .heat')]
        .map(h => ['svg', '.left', '.top img'].map(s => h.querySelector(s).getBoundingClientRect().toJSON()))""")
    assert len(boxes) == 6
    for cells, left, top in boxes:
        assert left["top"] == pytest.approx(cells["top"], abs=0.6)
        assert left["bottom"] == pytest.approx(cells["bottom"], abs=1.5) and left["right"] <= cells["left"] + 0.6
        assert top["left"] == pytest.approx(cells["left"], abs=0.6) and top["bottom"] <= cells["top"] + 0.6
        assert top["width"] == pytest.approx(cells["width"], abs=0.6)


def test_printing_opens_the_details_and_closes_them_again(browser, report):
    _open(browser, report, DESKTOP, "dark")
    assert _count(browser, "details:not([open])") == _count(browser, "details") == 6
    browser.execute_script("addEventListener('beforeprint', () => { window.closedInPrint = "
                           "document.querySelectorAll('details:not([open])').length; })")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF") and 5 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 14
    assert browser.execute_script("return window.closedInPrint") == 0
    assert _count(browser, "details:not([open])") == 6


def test_paper_is_white_and_nothing_is_cut_off(browser, report):
    _open(browser, report, (PAPER, 900), "dark", media="print")
    _open_details(browser)
    assert browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor"
                                  ) == "rgb(255, 255, 255)"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PAPER
    assert browser.execute_script(BEYOND.replace(".scroll, ", "")) == []
    assert browser.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.execute_script(CONTRAST)[1] == []


@pytest.mark.parametrize(("classes", "shot", "kind"), [(5, 5, "table"), (30, 1, "table"), (100, 1, "svg"),
                                                       (200, 1, "svg")])
def test_many_classes_scroll_in_their_own_box(browser, tmp_path, classes, shot, kind):
    path = tmp_path / "report.html"
    write_report(path, **content(classes=classes, examples=1, shot=shot, selected_on="test"))
    for size in (PHONE, DESKTOP):
        _open(browser, path, size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
        assert browser.execute_script(BEYOND) == [] and browser.execute_script(BROKEN) == []
        assert _count(browser, f"{kind}.matrix") == 1 and _count(browser, ".bars li") == classes
        rows = browser.execute_script("return [...document.querySelectorAll('.bars li')].map(e => e.offsetHeight)")
        assert min(rows) >= 17, "a row must hold its text"
        assert browser.execute_script("return document.querySelector('.shout').innerText").startswith("⚠ SELECTED ON")
        assert browser.get_log("browser") == []
    if kind == "svg":
        text = browser.execute_script("return document.querySelector('svg.matrix text').getBoundingClientRect().height")
        assert text >= 8


def test_the_checks_see_what_they_look_for(browser, report):
    """Each check finds a fault that is put into the page."""
    _open(browser, report, PHONE)
    browser.execute_script("document.querySelector('main').insertAdjacentHTML('beforeend', arguments[0])",
                           "<p style='width: 500px'>wide</p><p style='color: #ccc'>faint words</p>")
    assert browser.execute_script("return document.documentElement.scrollWidth") > PHONE[0]
    assert [part for part in browser.execute_script(BEYOND) if "wide" in part]
    assert [text for text, _ in browser.execute_script(CONTRAST)[1]] == ["faint words"]
    browser.execute_async_script("const image = new Image(), done = arguments[0]; image.alt = 'broken'; "
                                 "image.onerror = () => done(); image.src = 'https://example.org/a.png'; "
                                 "document.querySelector('main').append(image)")
    assert browser.execute_script(BROKEN) == ["broken"]
    assert "Content Security Policy" in " ".join(line["message"] for line in browser.get_log("browser"))
