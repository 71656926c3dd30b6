"""The page in Chromium, with a fake camera: recording, dropping, renaming, a timeline, undoing, phones, keyboards."""

import time

import av
import numpy as np
import pytest

from datasets.decoding import open_video
from datasets.demo.scenes import render_frames
from tests.browser import BEYOND, CONTRAST, started_browser
from tests.runs.own.page.served import SPECS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
DESKTOP, PHONE = (1280, 900), (360, 740)
NASTY = "<img src=x onerror=alert(1)>"
REQUESTS = "return performance.getEntriesByType('resource').map(e => new URL(e.name).host)"
# Drops files that the page itself fetched: what a person drops are files just so. An empty box (free) behind each makes
# another file of it: a video that is an example already is refused.
DROP = """
const [selector, urls, done] = arguments;
(async () => {
  const files = new DataTransfer();
  const box = new Uint8Array([0, 0, 0, 8, 102, 114, 101, 101]);
  for (const url of urls) files.items.add(new File([await (await fetch(url)).blob(), box], url.slice(-8) + ".mp4"));
  document.querySelector(selector).dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true}));
  done();
})();
"""


# What can be used or seen, and says neither by its text nor by a label what it is.
UNNAMED = """
return [...document.querySelectorAll('button, input, select, a, video, img')].filter(e => e.getClientRects().length
  && !(e.innerText || e.getAttribute('aria-label') || e.labels?.length || e.hasAttribute('alt') || e.ariaHidden
  || e.id === 'preview')).map(e => e.outerHTML);
"""


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """What the camera sees, again and again, as a file that Chromium takes for one."""
    path, frames = tmp_path_factory.mktemp("camera") / "spin.y4m", render_frames(
        *SPECS["spin"], 24, 120, 160, np.random.default_rng(0))
    planes = [av.VideoFrame.from_ndarray(one, format="rgb24").reformat(format="yuv420p").to_ndarray() for one in frames]
    path.write_bytes(b"YUV4MPEG2 W160 H120 F12:1 Ip A1:1 C420jpeg\n" + b"".join(
        b"FRAME\n" + one.tobytes() for one in planes))
    return path


@pytest.fixture(scope="module")
def browser(camera):
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--use-fake-ui-for-media-stream",
                 "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
    with started_browser(*arguments) as started:
        started.set_script_timeout(60)
        yield started


class Seen:
    """What a person sees and does."""

    def __init__(self, browser, page):
        self.browser, self.page = browser, page

    def run(self, script, *given):
        return self.browser.execute_script(script, *given)

    def open(self, size, scheme="light"):
        self.browser.get_log("browser")
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500})
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.browser.get(self.page.server.address)
        self.until("return document.querySelectorAll('#actions article').length >= 3")

    def until(self, script, *given, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.run(script, *given):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{script} {given}: {self.run('return document.body.innerText')}")

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def press(self, selector, text):
        """Press the button of a text, or label, in the part of a selector."""
        self.until("""const found = [...document.querySelectorAll(arguments[0] + ' button')].find(e => !e.hidden
            && (e.innerText === arguments[1] || e.getAttribute('aria-label') === arguments[1])); found?.click();
            return !!found""", selector, text)

    def key(self, key, code):
        for kind in ("keyDown", "keyUp"):
            self.browser.execute_cdp_cmd("Input.dispatchKeyEvent", {
                "type": kind, "key": key, "windowsVirtualKeyCode": code, "text": "\r" if key == "Enter" else ""})

    def focused(self):
        return self.run("const e = document.activeElement; return e.getAttribute('aria-label') ?? e.innerText ?? e.id")


@pytest.fixture()
def seen(browser, page):
    """The page on a desktop, all clips learned; at the end its console has no errors and no host but ours was asked."""
    made = Seen(browser, page)
    made.open(DESKTOP)
    yield made
    assert [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    assert set(made.run(REQUESTS)) <= {f"127.0.0.1:{page.port}"}
    browser.get("about:blank")


def test_record_a_clip_and_see_leave_one_out_change(seen, root):
    before = seen.text("#headline")
    assert "of 12 right" in before and seen.run("return location.search") == ""
    seen.press("#actions", "Record 3 s of spin")
    seen.until("return document.querySelector('#camera').open")
    seen.until("return document.querySelector('#again').innerText === 'Record another'")
    seen.press("#camera", "Done")
    seen.until("return document.querySelector('#headline').innerText.includes('of 13 right')")
    [recorded] = (root / "spin").glob("clip_0001.*")
    assert recorded.suffix in (".mp4", ".webm") and not seen.run("return document.querySelector('#preview').srcObject")
    clip = open_video(recorded)
    [frame] = clip.frames([clip.num_frames // 2])
    assert frame.shape[1] / frame.shape[0] == pytest.approx(4 / 3, abs=0.01)
    assert 2.5 < clip.times([clip.num_frames - 1])[0] < 4
    red, green, blue = (frame[..., k].astype(int) for k in range(3))
    assert ((red > blue + 60) & (green > blue + 60)).any(), "the camera saw a yellow heart"
    clip.close()
    tile = "[...document.querySelectorAll('.clip')].find(e => e.innerHTML.includes('clip_0001'))"
    seen.until(f"return {tile}?.querySelector('img')?.naturalWidth > 0 && /[✓✗]/.test({tile}.innerText)")
    seen.press("#ask", "Record 3 s")
    seen.until("return document.querySelector('.query .answer')?.innerText")
    assert seen.page.settled()["queries"][0]["name"] == "recording 2"
    seen.press(".query", "Add")  # to the action that was answered, unless another is chosen
    seen.until("return document.querySelector('#headline').innerText.includes('of 14 right')")


def test_drop_rename_remove_undo_reload(seen, page, root):
    spin = page.action("spin")
    urls = [f"/media/{clip['id']}" for name in ("bounce", "slide") for clip in page.action(name)["clips"]][:5]
    seen.browser.execute_async_script(DROP, "#actions article:last-of-type", urls)  # spin is the last one
    seen.until("return document.querySelector('#actions article:last-of-type').querySelectorAll('.clip').length === 9")
    page.settled()
    assert len(list((root / "spin").iterdir())) == 9
    seen.press("#actions", "Rename spin")
    seen.run("const i = document.querySelector('#actions form input'); i.value = arguments[0]", NASTY)
    seen.press("#actions form", "Rename")
    seen.until("return [...document.querySelectorAll('h3')].some(e => e.innerText === arguments[0])", NASTY)
    assert (root / NASTY).is_dir() and seen.run("return document.querySelector('main img[src=x]')") is None
    page.settled()
    clip = page.action(NASTY)["clips"][0]["name"]
    seen.press("#actions", f"Remove {clip} of {NASTY}")
    seen.until("return document.querySelector('#undo').innerText.startsWith('Undo: remove')")
    assert not (root / NASTY / clip).exists()
    seen.press(".head", seen.text("#undo"))
    seen.until("return document.querySelector('#undo').innerText.startsWith('Undo: rename')")
    assert (root / NASTY / clip).is_file()
    page.settled()
    seen.until("return !document.querySelector('main').innerText.includes('not checked')")  # it shows the last state
    before = seen.text("main"), seen.text("#sentence")
    seen.open(DESKTOP)
    seen.until("return document.querySelector('main').innerText === arguments[0]", before[0])
    assert seen.text("#sentence") == before[1] and spin["id"] != page.action(NASTY)["id"]


def test_a_timeline_seeks(seen, page, clips):
    page.ask(clips / "long.mp4", "match.mp4")
    seen.until("return document.querySelector('.query .line button')")
    seen.until("return document.querySelector('.query video').readyState >= 1")
    start = seen.run("const all = [...document.querySelectorAll('.query .line button')], last = all[all.length - 1]; "
                     "last.click(); return +last.dataset.start")
    seen.until("return Math.abs(document.querySelector('.query video').currentTime - arguments[0]) < .2", start)
    box = seen.run("const b = e => e.getBoundingClientRect(), l = document.querySelector('.line'), "
                   "p = l.querySelector('button'); return [b(p).left - b(l).left, b(p).width, b(l).width]")
    first = (page.settled()["queries"][0]["answer"]["segments"] or [])[0]
    assert box[1] / box[2] == pytest.approx((first["end"] - first["start"]) / 61, abs=0.02)


def test_it_fits_and_can_be_read(seen, page, clips):
    page.ask(clips / "query" / "spin.mp4", "a name that is rather long for a phone, and has_no_blank_at_all_in_it.mp4")
    page.ask(clips / "long.mp4")
    page.json("POST", "/actions", {"name": "W" * 60})
    page.settled()
    for size, scheme in [(PHONE, "light"), (PHONE, "dark"), (DESKTOP, "light"), (DESKTOP, "dark")]:
        seen.open(size, scheme)
        seen.until("return document.querySelector('.query .answer') && document.querySelector('.query .line')")
        seen.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert seen.run("return document.documentElement.scrollWidth") <= size[0]
        assert seen.run(BEYOND) == []
        count, faint = seen.run(CONTRAST)
        assert faint == [] and count > 40
        columns = seen.run("return getComputedStyle(document.querySelector('main')).gridTemplateColumns").split()
        assert len(columns) == (1 if size == PHONE else 2)
        assert seen.run(UNNAMED) == []


def test_the_keyboard_is_enough(seen, page):
    seen.run("document.querySelector('#name').focus()")
    seen.browser.execute_cdp_cmd("Input.insertText", {"text": "jump"})
    seen.key("Enter", 13)
    seen.until("return document.activeElement.getAttribute('aria-label') === 'Record 3 s of jump'")
    seen.run("document.querySelector('[aria-label=\"Rename jump\"]').focus()")
    seen.key("Enter", 13)
    seen.browser.execute_cdp_cmd("Input.insertText", {"text": "leap"})
    seen.key("Enter", 13)
    seen.until("return document.activeElement.getAttribute('aria-label') === 'Rename leap'")
    seen.key("Tab", 9)
    assert seen.focused() == "Remove leap"
    seen.key("Enter", 13)
    seen.until("return ![...document.querySelectorAll('h3')].some(e => e.innerText === 'leap')")
    seen.until("return document.activeElement.id === 'name'")
    clip = page.action("spin")["clips"][0]["name"]
    seen.press("#actions", f"Remove {clip} of spin")
    seen.until("return document.activeElement.innerText === 'spin'")
    names = set()
    seen.run("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(80):
        seen.key("Tab", 9)
        names.add(seen.focused())
        ring = seen.run("const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none'")
        assert ring or seen.run("return document.activeElement === document.body")
    clip = page.action("spin")["clips"][0]["name"]
    assert {"What this is worth", "Rename spin", "Record 3 s of spin", f"Play {clip} of spin", f"Remove {clip} of spin",
            "Choose files", "Live", "Save pack"} <= names


def test_live(seen):
    seen.press("#ask", "Live")
    seen.until("return document.querySelector('#count').innerText")
    assert seen.text("#count") in (*SPECS, "unknown")
    seen.until("return document.querySelector('#camera-words').innerText.includes('ago; one answer every')")
    seen.press("#camera", "Done")
    assert not seen.run("return document.querySelector('#camera').open")
