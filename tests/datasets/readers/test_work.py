"""A clip from a long file costs what is near its frames: so much is decoded, and so much of the file read."""

from pathlib import Path

import numpy as np
import pytest

from datasets.decoding import open_video, read_frames
from datasets.frame_sampling import segment_indices
from datasets.readers import pyav
from datasets.readers.look import look_at
from tests.datasets.readers.decoder_files import READERS, bright_noise, write_pictures

FRAMES, GROUP, T = 1200, 12, 8
PARAMS = "bframes=3:b-adapt=0:scenecut=0:open-gop="
KINDS = {**{f"{name}.{ending}": ("libx264", {"x264-params": f"{PARAMS}{open_gop}"})
            for ending in ("mp4", "mkv") for open_gop, name in enumerate(("closed", "open"))},
         "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": f"{PARAMS}0:log-level=none"})}
COUNTS = Path("/proc/self/io")  # Linux: what this process has read


@pytest.fixture(scope="module", params=KINDS)
def long(request, tmp_path_factory) -> Path:
    codec, options = KINDS[request.param]
    return write_pictures(tmp_path_factory.mktemp("long") / request.param, bright_noise, codec, frames=FRAMES,
                          **options)


def read_clip(path: Path, decoder: str, seed: int) -> None:
    clip = open_video(path, decoder)
    read_frames(clip, segment_indices(clip.num_frames, T, np.random.default_rng(seed), center=False), path)
    clip.close()


def bytes_read() -> int:
    return int(COUNTS.read_text().split()[1])


def test_frames_near_those_that_are_wanted_are_decoded(long, monkeypatch):
    decoded, plain = [], pyav.decoded

    def counting(container, stream):
        for frame in plain(container, stream):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav, "decoded", counting)
    read_clip(long, "pyav", 0)
    assert T <= len(decoded) <= T * (GROUP + 4) < FRAMES / 5  # from a keyframe on, with what an open group begins with


@pytest.mark.skipif(not COUNTS.exists(), reason="nothing counts here what a process reads")
@pytest.mark.parametrize("decoder", [name for name in READERS if name != "decord"])  # which reads all of each file
def test_little_of_the_file_is_read_for_a_clip(long, decoder):
    look_at(long)
    before = bytes_read()
    read_clip(long, decoder, 1)
    assert bytes_read() - before < long.stat().st_size / 3
