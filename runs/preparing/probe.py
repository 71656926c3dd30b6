"""Show what a decoder sees in one video, and the frames that each way of sampling takes, as a contact sheet.

Samplings: segment centre, segment random (--seed), interval drop and keep (see datasets/frame_sampling.py), each for
training where that differs. Exit status: 0, or 1 when the video cannot be read.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from datasets.decoding import Clip, FolderClip, choose_decoder, open_video, read_frames
from datasets.frame_sampling import SEGMENT_ABOVE, interval_indices, segment_indices
from runs.preparing.examine import header, lost
from utils.command import printable
from utils.config import load_config
from utils.errors import LaunchError
from utils.seed import numpy_generator

DEFAULTS = {"T": 8, "sampling_rate": 8.0, "target_fps": 12.0}  # without --cfg; the rate is that of intervals
MOST = 64  # frames of a clip that fit on a sheet
CELL = 1.7  # inches a picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("video", type=Path, help="a video file, or a folder of frames")
    parser.add_argument("--cfg", help="project file: T, rates and decoder are taken from it")
    parser.add_argument("--out", type=Path, help="the contact sheet, a PNG (default: <video>.png in this directory)")
    parser.add_argument("--decoder", help="a decoder's name, or auto (default: the project's, else auto)")
    parser.add_argument("--frames", type=int, help="T, frames a clip (default: the project's, else 8)")
    parser.add_argument("--rate", type=float, help="frames between two of an interval, at TARGET_FPS (default: the "
                                                   "project's SAMPLING_RATE where it samples intervals, else 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the random draws (default 0)")


def _settings(arguments: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Return T, sampling_rate and target_fps by name, and the decoder."""
    chosen, decoder = dict(DEFAULTS), arguments.decoder or "auto"
    if arguments.cfg:
        cfg = load_config(arguments.cfg)
        chosen |= {"T": cfg.DATA.NUM_INPUT_FRAMES, "target_fps": cfg.DATA.TARGET_FPS}
        if cfg.DATA.SAMPLING_RATE <= SEGMENT_ABOVE:
            chosen["sampling_rate"] = cfg.DATA.SAMPLING_RATE
        decoder = arguments.decoder or cfg.DATA.DECODER
    chosen |= {"T": chosen["T"] if arguments.frames is None else arguments.frames,
               "sampling_rate": chosen["sampling_rate"] if arguments.rate is None else arguments.rate}
    if not 1 <= chosen["T"] <= MOST or not chosen["sampling_rate"] > 0:
        raise LaunchError(f"expected --frames from 1 to {MOST} and --rate above 0, found {chosen['T']} and "
                          f"{chosen['sampling_rate']:g}")
    return chosen, choose_decoder(decoder)


def samplings(num_frames: int, fps: float, *, T: int, sampling_rate: float, target_fps: float, seed: int
              ) -> dict[str, np.ndarray]:
    """Return int64 [T] indices by name of every way of sampling; intervals only where the video's rate is known."""

    def draw(name: str) -> np.random.Generator:
        return numpy_generator(seed, f"probe:{name}", 0)

    found = {"segment center": segment_indices(num_frames, T, None, center=True),
             f"segment random, seed {seed}": segment_indices(num_frames, T, draw("segment"), center=False)}
    if not (math.isfinite(fps) and fps > 0):
        return found
    for tail in ("drop", "keep"):
        for use, generator in (("test", None), (f"train, seed {seed}", draw("interval"))):
            found[f"interval {tail}, {use}"] = interval_indices(num_frames, fps, T, sampling_rate, target_fps,
                                                                  generator, keep_tail=tail == "keep")
    return found


def describe(path: Path, clip: Clip, decoder: str, size: tuple[int, int]) -> str:
    """Say in lines what decoder and container say. `size`: height and width of the decoded frames."""
    height, width = size
    rate = f"{clip.fps:g} frames a second" if math.isfinite(clip.fps) else "no frame rate"
    length = f", {clip.num_frames / clip.fps:.2f} s" if math.isfinite(clip.fps) and clip.fps > 0 else ""
    lines = [f"{path}", f"{decoder}: {clip.num_frames} frames of {width}x{height}, {rate}{length}"]
    if said := header(path):
        counted = f"{said['frames']} frames" if said["frames"] else "frames not counted"
        seconds = f"{said['seconds']:.2f} s" if said["seconds"] else "length not stated"
        lines.append(f"container: {said['format']}, {said['codec']} {said['width']}x{said['height']}, {counted}, "
                     f"{seconds}, streams: {said['streams']}")
        if said["frames"] and said["frames"] != clip.num_frames:
            problem = lost(path, said)
            lines.append(f"problem: {problem}" if problem else f"note: {said['frames']} frames are stored, "
                                                               f"{clip.num_frames} are shown")
    if isinstance(clip, FolderClip) and clip.gaps:
        lines.append(f"problem: {clip.gaps}")
    return "\n".join(lines)


def contact_sheet(rows: dict[str, np.ndarray], pictures: dict[int, np.ndarray], title: str) -> Figure:
    """Draw a row of pictures a sampling, the frame's number above each. `pictures`: uint8 [H, W, 3] by index."""
    columns = max(len(indices) for indices in rows.values())
    height, width = next(iter(pictures.values())).shape[:2]
    figure = Figure(figsize=(CELL * columns, 0.6 + (CELL * height / width + 0.55) * len(rows)), layout="constrained")
    figure.suptitle(printable(title, ""), fontsize=9, x=0.01, ha="left")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, indices) in zip(parts, rows.items(), strict=True):
        part.suptitle(name, fontsize=8, x=0.01, ha="left")
        for axes, index in zip(np.atleast_1d(part.subplots(1, columns)), indices, strict=True):
            axes.imshow(pictures[int(index)])
            axes.set_title(str(index), fontsize=7, pad=2)
            axes.set_axis_off()
    return figure


def run(arguments: argparse.Namespace) -> int:
    """Print what is seen, and draw the contact sheet. Raises FewShotError."""
    chosen, decoder = _settings(arguments)
    path = arguments.video
    clip = open_video(path, decoder)
    try:
        rows = samplings(clip.num_frames, clip.fps, T=int(chosen["T"]), sampling_rate=chosen["sampling_rate"],
                         target_fps=chosen["target_fps"], seed=arguments.seed)
        wanted = np.unique(np.concatenate(list(rows.values())))
        frames = read_frames(clip, wanted, path)
        pictures = dict(zip(wanted.tolist(), frames, strict=True))
    finally:
        clip.close()
    text = describe(path, clip, decoder, frames.shape[1:3])
    out = arguments.out or Path(f"{path.name}.png")
    if out.suffix.lower() != ".png":
        raise LaunchError(f"--out: expected a name that ends in .png, found {out}")
    figure = contact_sheet(rows, pictures, f"{path.name}: {clip.num_frames} frames, {clip.fps:g} fps, {decoder}")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    table = "\n".join(f"  {name:32}{' '.join(map(str, indices))}" for name, indices in rows.items())
    sys.stdout.write(f"{text}\nframes taken (T = {chosen['T']}, intervals at rate {chosen['sampling_rate']:g} of "
                     f"{chosen['target_fps']:g} frames a second):\n{table}\nContact sheet: {out}\n")
    return 0
