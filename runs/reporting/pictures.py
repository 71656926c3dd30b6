"""Pictures of the report, each a data: address, so that the page needs no other file.

T frames, H/W/C image; L rows and M columns of a matrix.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

SHADE = (60, 110, 190)  # RGB; a blue that stands out on the light and on the dark page
DARKEST = 0.85  # opacity of a matrix cell of value 1
THUMBNAIL = 96  # height of a frame, pixels
SQUARE = 48  # side of a frame beside a heat map, pixels
QUALITY = 62  # JPEG


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded picture: its address and size in pixels."""

    uri: str
    width: int
    height: int


def embed(image: Image.Image, kind: str, **options) -> Picture:
    """A PIL picture as a data: address. `kind`: "jpeg" or "png"; options are Pillow's."""
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return Picture(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", *image.size)


def thumbnail(frame_HWC: np.ndarray, height: int = THUMBNAIL) -> Picture:
    """A frame made to fit `height` (and twice that in width), its aspect kept; small frames stay as they are."""
    image = Image.fromarray(frame_HWC)
    image.thumbnail((2 * height, height), Image.Resampling.LANCZOS)
    return embed(image, "jpeg", quality=QUALITY)


def strip(frames_THWC: np.ndarray, vertical: bool = False, side: int = SQUARE) -> Picture:
    """The central squares of all frames in one picture, in a row or, `vertical`, in a column."""
    squares = [ImageOps.fit(Image.fromarray(frame), (side, side)) for frame in frames_THWC]
    joined = Image.new("RGB", (side, side * len(squares)) if vertical else (side * len(squares), side))
    for number, square in enumerate(squares):
        joined.paste(square, (0, side * number) if vertical else (side * number, 0))
    return embed(joined, "jpeg", quality=QUALITY)


def shaded(values_LM: np.ndarray) -> Picture:
    """A matrix as a picture of one pixel a cell: 0 is clear (the page shows), 1 the full shade, NaN clear."""
    cells = np.empty((*values_LM.shape, 4), np.uint8)
    cells[..., :3] = SHADE
    cells[..., 3] = np.round(255 * DARKEST * np.clip(np.nan_to_num(values_LM), 0, 1))
    return embed(Image.fromarray(cells), "png")


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`values` moved so that low..high becomes 0..1; all 0 where low equals high."""
    return (values - low) / (high - low) if high > low else np.zeros_like(values, dtype=float)


def cost_range(costs: Sequence[np.ndarray]) -> tuple[float, float]:
    """Smallest and largest of several cost matrices, so that their shades can be compared."""
    return min(float(c.min()) for c in costs), max(float(c.max()) for c in costs)
