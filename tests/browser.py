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
