"""Renders videos for the loader's benchmarks: 10 s, 340 x 256, 30 frames a second, H.264, a keyframe every 250."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

SECONDS, RATE, WIDTH, HEIGHT, KEYFRAMES = 10, 30, 340, 256, 250
OCTAVES = (64, 32, 16, 8, 4)  # cells of the texture, pixels; amplitudes fall with their size, as in photographs
GRAIN = 2.0  # deviation of the camera's noise, grey levels


def _texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return float [height, width, 3] around 128: detail at every scale, colours that vary slowly."""
    total = np.full((height, width, 3), 128.0)
    for cell in OCTAVES:
        shape = (height // cell + 2, width // cell + 2, 3 if cell >= 16 else 1)
        cells = np.broadcast_to(generator.integers(0, 256, shape, dtype=np.uint8), (*shape[:2], 3))
        picture = Image.fromarray(np.ascontiguousarray(cells)).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(picture) - 128.0) * (cell / OCTAVES[0]) ** 0.6
    return total


def render_long_clip(path: Path, seed: int, seconds: int = 0) -> None:
    """Render a camera that wanders over a textured scene, where a textured square moves, unless the file is there.

    Args:
        seconds: of the clip; 0: SECONDS.
    """
    if path.is_file():
        return
    generator, part = np.random.default_rng(seed), path.with_name(f".{path.name}")
    scene, thing = _texture(generator, HEIGHT + 140, WIDTH + 200), _texture(generator, 80, 80)
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={
            "g": str(KEYFRAMES), "keyint_min": str(KEYFRAMES), "sc_threshold": "0", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range((seconds or SECONDS) * RATE):
            x, y = int(100 + 90 * np.sin(i / 40)), int(60 + 50 * np.cos(i / 55))
            left, top = int(130 + 100 * np.sin(i / 13)), int(90 + 80 * np.cos(i / 17))
            picture = scene[y:y + HEIGHT, x:x + WIDTH].copy()
            picture[top:top + 80, left:left + 80] = thing
            picture += generator.normal(0, GRAIN, (HEIGHT, WIDTH, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8))))
        container.mux(stream.encode())
    part.replace(path)


def render_long_clips(directory: Path, count: int) -> list[Path]:
    """Render `count` videos into `directory`, and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{n:03d}.mp4" for n in range(count)]
    for seed, path in enumerate(paths):
        render_long_clip(path, seed)
    return paths
