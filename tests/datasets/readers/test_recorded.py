"""Videos that a browser records: WebM without a duration, whose VP8 says 1000 frames a second, and MP4."""

import base64

import numpy as np
import pytest

from datasets.decoding import open_video, read_frames
from datasets.streaming import stream_frames
from tests.browser import started_browser
from tests.datasets.readers.decoder_files import READERS

pytestmark = pytest.mark.browser
# Two seconds of a canvas that grows lighter: its recording as base64, or "" where the browser does not offer the kind.
RECORD = """
const [kind, done] = arguments;
if (!MediaRecorder.isTypeSupported(kind)) { done(""); return; }
const canvas = document.body.appendChild(document.createElement("canvas")), paint = canvas.getContext("2d");
canvas.width = 160; canvas.height = 120;
const start = performance.now(), timer = setInterval(() => {
  const level = Math.min(250, 20 + (performance.now() - start) / 10);
  paint.fillStyle = `rgb(${level}, ${level}, ${level})`; paint.fillRect(0, 0, 160, 120);
}, 40);
const recorder = new MediaRecorder(canvas.captureStream(20), {mimeType: kind}), parts = [];
recorder.ondataavailable = event => parts.push(event.data);
recorder.onstop = () => {
  clearInterval(timer);
  const reader = new FileReader();
  reader.onload = () => done(reader.result.split(",")[1]);
  reader.readAsDataURL(new Blob(parts));
};
recorder.start(200);
setTimeout(() => recorder.stop(), 2000);
"""
KINDS = {"vp8.webm": "video/webm;codecs=vp8", "vp9.webm": "video/webm;codecs=vp9", "h264.mp4": "video/mp4;codecs=avc1"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    with started_browser() as browser:
        browser.get("about:blank")
        for name, kind in KINDS.items():
            if content := browser.execute_async_script(RECORD, kind):
                (folder / name).write_bytes(base64.b64decode(content))
    return folder


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", KINDS)
def test_every_decoder_reads_what_a_browser_records(recorded, name, decoder):
    path = recorded / name
    if not path.exists():
        pytest.skip(f"this Chromium does not record {KINDS[name]}")
    clip = open_video(path, decoder)
    times = clip.times(range(clip.num_frames))
    assert clip.num_frames >= 5 and 1 <= clip.fps <= 61 and 1 <= times[-1] - times[0] <= 4
    assert clip.fps == pytest.approx((clip.num_frames - 1) / (times[-1] - times[0]), rel=0.1)
    levels = read_frames(clip, np.arange(clip.num_frames), path).mean(axis=(1, 2, 3))
    assert (np.diff(levels) > -3).all() and levels[-1] - levels[0] > 80
    streamed = list(stream_frames(path, times, lambda frame: float(frame.mean())))
    assert [second for second, _ in streamed] == pytest.approx(times.tolist())
    assert [level for _, level in streamed] == pytest.approx(levels.tolist(), abs=1.5)
    clip.close()
