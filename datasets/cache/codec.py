"""Turn one resized frame into bytes and back: JPEG at a quality, or lossless WebP. H, W picture, T frames.

Pillow encodes both and decodes WebP. JPEG is decoded by simplejpeg, a fifth faster than Pillow, to the same pixels;
where it is not installed, by Pillow. (torchvision's codecs are as fast, but announced to be removed.)
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

try:
    from simplejpeg import decode_jpeg
except ImportError:
    decode_jpeg = None

MODES = ("jpeg", "lossless")
QUALITY = 90  # JPEG's default here
# JPEG's colours are not subsampled. At the same bytes, quality 90 without subsampling is nearer to the frame than 95
# with 4:2:0 (largest difference 26 against 79 grey levels, mean 1.9 against 2.2), for a fifth more decoding time.
SUBSAMPLING = "4:4:4"


@dataclass(frozen=True, slots=True)
class Codec:
    """Say how frames are stored, and encode and decode them."""

    mode: str  # a name of MODES
    quality: int | None  # JPEG's, 1 to 100; None in lossless mode

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"expected a mode of {', '.join(MODES)}, found {self.mode!r}")
        if (self.quality is None) != (self.mode == "lossless") or self.quality is not None \
                and not 1 <= self.quality <= 100:
            raise ValueError(f"expected a quality of 1 to 100 with jpeg and none with lossless, found {self.quality} "
                             f"with {self.mode}")

    @property
    def settings(self) -> dict[str, str | int]:
        """Return what decides the stored pixels, beyond the decoder and the size."""
        return {"mode": self.mode} if self.quality is None else {
            "mode": self.mode, "quality": self.quality, "subsampling": SUBSAMPLING}

    def encode(self, picture_HWC: np.ndarray) -> bytes:
        """Encode a picture, uint8 RGB [H, W, 3], as the bytes of an image file."""
        file, image = io.BytesIO(), Image.fromarray(picture_HWC)
        if self.mode == "jpeg":
            image.save(file, "JPEG", quality=self.quality, subsampling=SUBSAMPLING)
        else:  # more effort saves a tenth of the bytes and takes 30 times as long
            image.save(file, "WEBP", lossless=True, quality=0, method=0)
        return file.getvalue()

    def decode(self, files: Sequence[bytearray], size: tuple[int, int]) -> np.ndarray:
        """Decode image files of `size` (height, width) to uint8 RGB [T, H, W, 3]. Raises OSError, ValueError."""
        frames = np.empty((len(files), *size, 3), np.uint8)
        for frame, file in zip(frames, files, strict=True):
            if self.mode == "jpeg" and decode_jpeg is not None:
                found = decode_jpeg(file, buffer=frame)  # in place; refuses a picture that needs more room
            else:
                found = np.asarray(Image.open(io.BytesIO(file), formats=("JPEG", "WEBP")))
                frame[...] = found
            if found.shape != frame.shape:
                raise ValueError(f"expected a picture of {list(frame.shape)}, found {list(found.shape)}")
        return frames
