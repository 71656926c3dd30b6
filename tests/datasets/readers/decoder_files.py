"""Files for the tests of decoders, and the decoders they run with."""

import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from datasets.readers.fast import torchcodec_problem

FILES = {"clip.mp4": "libx264", "clip.avi": "mpeg4", "clip.webm": "libvpx-vp9"}
FRAMES, RATE, STEP = 30, 15, 8
# Without FFmpeg's libraries, test_torchcodec.py runs torchcodec's share in a process of its own.
needs_ffmpeg = pytest.mark.skipif(  # with REQUIRE_FFMPEG=1 in the environment they fail instead
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")) and os.environ.get("REQUIRE_FFMPEG") != "1",
    reason="compares with the ffmpeg program, which is not installed")
READERS = ("decord", "pyav", *(() if torchcodec_problem() else ("torchcodec",)))


def ffmpeg(*arguments: str | Path, data: bytes | None = None) -> bytes:
    """Run the ffmpeg program and return what it puts out. Raises CalledProcessError."""
    done = subprocess.run(["ffmpeg", "-y", "-v", "fatal", *map(str, arguments)], capture_output=True, timeout=100,
                          check=True, **({"stdin": subprocess.DEVNULL} if data is None else {"input": data}))
    return done.stdout


def write_video(path: Path, codec: str = "libx264", frames: int = FRAMES, noise: bool = False, **options) -> Path:
    """A video whose frame i is gray level STEP * i (or noise, which does not compress), 48 high and 64 wide."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = 48, 64, "yuv420p", 1
        for i in range(frames):
            picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) if noise else np.full((48, 64, 3), STEP * i)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_folder(path: Path, levels, size=(64, 48), pattern: str = "{:d}.jpg") -> Path:
    path.mkdir(parents=True)
    for i, level in enumerate(levels, start=1):
        Image.new("RGB", size, (level,) * 3).save(path / pattern.format(i))
    return path


def ramp(i: int) -> np.ndarray:
    """Frame i of a video whose frames all differ: a gray level, and a bar that moves against it."""
    picture = np.full((48, 64, 3), STEP * i % 256, np.uint8)
    picture[:12] = 255 - STEP * i % 256
    picture[:, :8, 0] = 255
    return picture


def bright_noise(i: int) -> np.ndarray:
    """Frame i of a video without a dark pixel that does not compress."""
    return np.random.default_rng(i).integers(60, 255, (48, 64, 3), dtype=np.uint8)


def write_pictures(path: Path, picture, codec: str, *, frames: int = FRAMES, times=None, mux: dict | None = None,
                   pixels: str = "yuv420p", **options) -> Path:
    """A video of picture(0), picture(1), ...; `times` in 1/90000 s make its rate vary."""
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.thread_count, stream.gop_size, stream.options = 1, 12, {k: str(v) for k, v in options.items()}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90000)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[i]), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
