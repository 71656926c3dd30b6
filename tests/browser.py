"""Start the browser of the tests with the marker `browser`.

They need Chromium and its driver: apt-get install -y chromium chromium-driver. Where they are missing such tests are
skipped; with REQUIRE_BROWSER=1 in the environment they fail instead.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BINARIES, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver", "chromium.chromedriver")
# Text whose contrast with what lies behind it is below WCAG AA's 4.5 (3 for large or bold text): [text, ratio].
CONTRAST = """
const parse = c => { const v = c.match(/[\\d.]+/g).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
const light = c => { const [r, g, b] = c.map(x => linear(x / 255)); return .2126 * r + .7152 * g + .0722 * b; };
const behind = e => e ? over(parse(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255, 1];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
let seen = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, style = getComputedStyle(element);
  const text = walker.currentNode.data.trim();
  if (!text || !element.getClientRects().length || ["SCRIPT", "title"].includes(element.tagName)) continue;
  const ground = behind(element), ink = element.closest("svg") ? style.fill : style.color;
  if (!ink.startsWith("rgb")) continue;
  const [a, b] = [light(over(parse(ink), ground)), light(ground)].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05), size = parseFloat(style.fontSize);
  seen += 1;
  const large = size >= 24 || (size >= 18.6 && +style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) found.push([text, ratio]);
}
return [seen, found];
"""
# Elements beyond the right edge of the window or of their example, except inside a box that scrolls by itself.
BEYOND = """
const end = e => (e.parentElement.closest(".example") ?? document.documentElement).getBoundingClientRect().right;
return [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, .stack thead")
  && e.getBoundingClientRect().right > end(e) + 0.5).map(e => e.outerHTML.slice(0, 200));
"""


def _program(names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def started_browser(*arguments: str) -> Iterator:
    """Headless Chromium that reaches no host and logs its console, with more arguments."""
    binary, driver = _program(BINARIES), _program(DRIVERS)
    if binary is None or driver is None:
        reason = "no Chromium with its driver: apt-get install -y chromium chromium-driver"
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage",
                     "--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb", *arguments):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root
    started = webdriver.Chrome(options=options, service=Service(driver))  # both named: nothing is downloaded
    try:
        yield started
    finally:
        started.quit()
