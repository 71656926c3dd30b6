"""Read a folder of frames: one sequence of pictures, which one number in their names puts in order."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image

from datasets.annotations import is_frame
from datasets.readers.clip import DECODERS, FOLDER_FPS, even_times, first_line
from utils.errors import VideoDecodeError

FLOW = re.compile(r"(.*[\W_])?flow|[xyuv][\W_]*#", re.IGNORECASE)  # patterns that optical flow is stored under


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", name.rpartition(".")[0])]


def _sequence(path: Path, names: Iterable[str]) -> list[str]:
    """Return the names of one sequence of frames, not yet in order; optical flow beside it is left out.

    Raises VideoDecodeError where names follow two patterns, such as img_#.jpg and mask_#.png.
    """
    by_pattern: dict[str, list[str]] = defaultdict(list)
    for name in sorted(filter(is_frame, names)):
        stem, _, suffix = name.rpartition(".")
        by_pattern[f"{re.sub('[0-9]+', '#', stem)}.{suffix.lower()}"].append(name)
    numbered = [pattern for pattern in by_pattern if "#" in pattern] or list(by_pattern)  # cover.jpg is no frame
    patterns = [pattern for pattern in numbered if not FLOW.match(pattern)] or numbered
    if len(patterns) > 1:
        found = " and ".join(f"{pattern} ({len(by_pattern[pattern])}, as {by_pattern[pattern][0]})"
                             for pattern in patterns[:4])
        raise VideoDecodeError(path, f"expected one sequence of frames, found {found}; leave one of them there")
    return by_pattern[patterns[0]] if patterns else []


def _in_order(path: Path, names: list[str]) -> tuple[list[str], list[int]]:
    """Return names in the order of the number that every one of them has another of, and those numbers."""
    columns = [column for column in zip(*map(_numbers, names), strict=True) if len(set(column)) == len(names)]
    orders = {tuple(sorted(range(len(names)), key=column.__getitem__)) for column in columns}
    if len(names) > 1 and len(orders) != 1:
        numbers = [_numbers(name)[-1] for name in names]
        same = next((i for i, number in enumerate(numbers) if numbers.count(number) > 1), 0)
        other = names[numbers.index(numbers[same], same + 1) if numbers.count(numbers[same]) > 1 else 1]
        raise VideoDecodeError(path, "expected one sequence of frames, found names that no one number puts in order: "
                                     f"{names[same]} and {other}")
    return [names[i] for i in next(iter(orders), (0,) * len(names))], sorted(columns[-1]) if columns else []


@DECODERS.register("frames")
class FolderClip:
    """Read a folder of JPEG, PNG or WebP frames in the order of their numbers, at FOLDER_FPS."""

    def __init__(self, path: Path):
        self.path, self.fps = path, FOLDER_FPS
        if not path.is_dir():
            raise VideoDecodeError(path, "expected a folder of frames, found a file")
        self.names, numbers = _in_order(path, _sequence(path, (entry.name for entry in path.iterdir())))
        self.num_frames = len(self.names)
        steps = np.diff(numbers)
        gaps = np.flatnonzero(steps >= 2 * steps.min()) if len(steps) else steps
        # What is odd about the numbers; "" where nothing is.
        self.gaps = f"{len(gaps)} gaps in the numbers, the first behind {self.names[gaps[0]]}" if len(gaps) else ""

    def _picture(self, name: str) -> np.ndarray:
        try:
            if not S_ISREG((self.path / name).stat().st_mode):  # a pipe or a device may never end
                raise VideoDecodeError(self.path, f"frame {name} is no file")
            with Image.open(self.path / name) as image:
                if image.mode[0] in "IF":
                    raise VideoDecodeError(self.path, f"frame {name}: expected 8 bits a channel, found mode "
                                                      f"{image.mode}")
                if image.format in ("WEBP", "PNG") and getattr(image, "n_frames", 1) > 1:
                    raise VideoDecodeError(self.path, f"frame {name}: expected one picture, found an animation")
                return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoDecodeError(self.path, f"frame {name} is no whole picture ({first_line(error)})") from error

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        pictures = {i: self._picture(self.names[i]) for i in dict.fromkeys(int(i) for i in indices)}
        sizes = {picture.shape for picture in pictures.values()}
        if len(sizes) > 1:
            raise VideoDecodeError(self.path, f"expected frames of one size, found {sorted(s[:2] for s in sizes)}")
        return np.stack([pictures[int(i)] for i in indices])

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        return even_times(indices, self.fps)

    def close(self) -> None:
        """See Clip."""
