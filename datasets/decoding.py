"""Read frames out of video files: decoders stand behind one Protocol, every failure is a VideoDecodeError.

`open_video(path, "auto")` opens a file once; the clip tells its length and rate and gives frames by index.
Decoders (`DECODERS`): decord, torchcodec, pyav, frames (a folder of frames; a folder is read so whatever the decoder).
`choose_decoder` turns "auto" into one of them: PyAV, which is right about every file and the fastest of the three.

The same index is the same frame in all of them, and FFmpeg's: the frames that `ffmpeg -i FILE -fps_mode passthrough`
puts out, which are those of the stream that it takes for the best, without what an edit list hides, in the order they
are shown in, turned and mirrored as the display matrix says, in the size of the first. decord and torchcodec read only
files about which they are right (readers/look.py); PyAV reads the others, whatever the decoder. "Damaged" is said of
what FFmpeg reports errors of, once it has begun with a keyframe.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from datasets.readers.clip import AUTO, DECODERS, FOLDER_FPS, Clip
from datasets.readers.containers import container_problem
from datasets.readers.fast import require_torchcodec
from datasets.readers.folder import FolderClip
from utils.errors import RegistryError, VideoDecodeError

__all__ = ["AUTO", "DECODERS", "FOLDER_FPS", "Clip", "FolderClip", "choose_decoder", "container_problem", "open_video",
           "reachable", "read_frames"]


def choose_decoder(name: str) -> str:
    """Return the decoder that DATA.DECODER means: "auto" is pyav.

    Raises RegistryError: no such decoder; LaunchError: torchcodec does not work here.
    """
    if name == AUTO:
        return "pyav"
    if name not in DECODERS:
        raise RegistryError(DECODERS.unknown(name))
    if name == "torchcodec":
        require_torchcodec()
    return name


@contextmanager
def reachable(path: Path) -> Iterator[bool]:
    """Give whether a video is a folder of frames, for a block that opens it.

    Raises VideoDecodeError: missing, empty, truncated, or, in the block too, refused by the system.
    """
    try:
        folder = path.is_dir()
        if not folder and (problem := container_problem(path)):
            raise VideoDecodeError(path, problem)
        yield folder
    except FileNotFoundError:
        raise VideoDecodeError(path, "no such file") from None
    except OSError as error:
        raise VideoDecodeError(path, f"cannot be read: {error.strerror or error}") from error


def open_video(path: Path, decoder: str = AUTO) -> Clip:
    """Open a video file, or a folder of frames, which is read as such whatever the decoder.

    Raises VideoDecodeError: missing, empty, truncated, damaged, not a video, no frames, not one sequence; LaunchError:
    the decoder is not installed; RegistryError: no such decoder.
    """
    path, opener = Path(path), DECODERS[choose_decoder(decoder)]
    with reachable(path) as folder:
        clip = FolderClip(path) if folder else opener(path)
    if clip.num_frames < 1:
        clip.close()
        raise VideoDecodeError(path, "has no frames (JPEG, PNG or WebP)" if folder else "has no frames")
    return clip


def read_frames(clip: Clip, indices: np.ndarray, path: Path) -> np.ndarray:
    """Return `clip.frames(indices)` with its shape and type checked: uint8 [T, H, W, 3], T = len(indices)."""
    if len(indices) == 0 or min(indices) < 0 or max(indices) >= clip.num_frames:
        raise VideoDecodeError(path, f"expected indices in 0..{clip.num_frames - 1}, found {list(map(int, indices))}")
    frames = clip.frames(indices)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != len(indices) or frames.shape[3] != 3 \
            or 0 in frames.shape:
        raise VideoDecodeError(path, f"expected uint8 frames of shape [{len(indices)}, H, W, 3], found {frames.dtype} "
                                     f"{list(frames.shape)}")
    return frames
