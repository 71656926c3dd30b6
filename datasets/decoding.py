"""Read frames out of video files: decoders stand behind one Protocol, every failure is a VideoDecodeError.

`open_video(path, "decord")` opens a file once; the clip tells its length and rate and gives frames by index.
Decoders (`DECODERS`): decord, torchcodec, pyav, frames (a folder of JPEG frames; a folder is read so whatever the
decoder). `choose_decoder` turns "auto" into one of them.

The same index is the same frame in decord, torchcodec and pyav, to the last bit where they were compared (H.264 in MP4
and Matroska, MPEG-4 in AVI, MP4 and Matroska, VP8 and VP9 in WebM, with and without B-frames, variable frame rate,
rotated); what decord or torchcodec would get wrong is read by PyAV instead (datasets/readers/fast.py). Where not:
    open groups of pictures   After a jump, decord gives wrong frames right behind a keyframe (it lacks the frames that
                              they refer to). x264 and YouTube close their groups.
    header without a rate     torchcodec then measures one from the frames; pyav and decord guess.
"""

from pathlib import Path

import numpy as np

from datasets.readers.clip import AUTO, DECODERS, FOLDER_FPS, Clip, FolderClip
from datasets.readers.containers import container_problem
from datasets.readers.fast import require_torchcodec, torchcodec_problem
from utils.errors import RegistryError, VideoDecodeError

__all__ = ["AUTO", "DECODERS", "FOLDER_FPS", "Clip", "choose_decoder", "container_problem", "open_video", "read_frames"]


def choose_decoder(name: str) -> str:
    """Return the decoder that DATA.DECODER means here: "auto" is torchcodec where it and FFmpeg work, else decord.

    Raises RegistryError: no such decoder; LaunchError: torchcodec does not work here.
    """
    if name == AUTO:
        return "decord" if torchcodec_problem() else "torchcodec"
    if name not in DECODERS:
        raise RegistryError(DECODERS.unknown(name))
    if name == "torchcodec":
        require_torchcodec()
    return name


def open_video(path: Path, decoder: str = "decord") -> Clip:
    """Open a video file, or a folder of JPEG frames, which is read as such whatever the decoder.

    Raises VideoDecodeError: missing, empty, truncated, damaged, not a video, no frames; LaunchError: the decoder is not
    installed; RegistryError: no such decoder.
    """
    path, opener = Path(path), DECODERS[choose_decoder(decoder)]
    try:
        folder = path.is_dir()
        if not folder and (problem := container_problem(path)):
            raise VideoDecodeError(path, problem)
        clip = FolderClip(path) if folder else opener(path)
    except FileNotFoundError:
        raise VideoDecodeError(path, "no such file") from None
    except OSError as error:
        raise VideoDecodeError(path, f"cannot be read: {error.strerror or error}") from error
    if clip.num_frames < 1:
        clip.close()
        raise VideoDecodeError(path, "has no JPEG frames" if folder else "has no frames")
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
