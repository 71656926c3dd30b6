"""Make the pictures of the report, each a data: address, so that the page needs no other file.

T frames, H/W/C image; L rows and M columns of a matrix.
"""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

SHADE = (60, 110, 190)  # RGB; a blue that stands out on the light and on the dark page
DARKEST = 0.85  # opacity of a matrix cell of value 1
THUMBNAIL = 96  # height of a frame, pixels
SQUARE = 48  # side of a frame beside a heat map, pixels
QUALITY = 62  # JPEG


class Picture(NamedTuple):
    """An embedded picture: its address and size in pixels."""

    uri: str
    width: int
    height: int


def embed(image: Image.Image, kind: str, **options: Any) -> Picture:
    """Turn a PIL picture into a data: address. `kind`: "jpeg" or "png"; options are Pillow's."""
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return Picture(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", *image.size)


def thumbnail(frame_HWC: np.ndarray) -> Picture:
    """Make a frame fit THUMBNAIL (and twice that in width), its aspect kept; small frames stay as they are."""
    image = Image.fromarray(frame_HWC)
    image.thumbnail((2 * THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return embed(image, "jpeg", quality=QUALITY)


def strip(frames_THWC: np.ndarray, vertical: bool = False) -> Picture:
    """Join the central squares of all frames in one picture, in a row or, `vertical`, in a column."""
    squares = [np.asarray(ImageOps.fit(Image.fromarray(frame), (SQUARE, SQUARE))) for frame in frames_THWC]
    return embed(Image.fromarray(np.concatenate(squares, axis=0 if vertical else 1)), "jpeg", quality=QUALITY)


def shaded(values_LM: np.ndarray) -> Picture:
    """Draw a matrix with one pixel a cell: 0 is clear (the page shows), 1 the full shade, NaN clear."""
    cells = np.empty((*values_LM.shape, 4), np.uint8)
    cells[..., :3] = SHADE
    cells[..., 3] = np.round(255 * DARKEST * np.clip(np.nan_to_num(values_LM), 0, 1))
    return embed(Image.fromarray(cells), "png")
