"""Own clips whose actions are colours, and a model that sees colours: what it must answer is known."""

from pathlib import Path

import av
import numpy as np
import torch
from torch import nn

from datasets.transforms import PixelSettings
from models.encoders.base import Encoder
from models.heads import HEADS
from models.heads.base import Setting
from runs.own.clips import Reading
from runs.own.models import OwnModel
from runs.own.recognizer import Recognizer
from utils.config.layers import POOL
from utils.config.loader import resolve_config

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
T = 4


class Eye(nn.Module):
    """Sees the mean colour of a frame, less grey. [F, 3, H, W] -> [F, 3]"""

    def __init__(self):
        super().__init__()
        self.gain, self.seen = nn.Parameter(torch.ones(1)), 0

    def forward(self, frames_FCHW: torch.Tensor) -> torch.Tensor:
        self.seen += len(frames_FCHW)
        return self.gain * (frames_FCHW.mean(dim=(2, 3)) - 0.45)


def model_of_colours(name: str = "FROZEN", **facts) -> Recognizer:
    """A recogniser by cosines of mean colours."""
    head = HEADS[name](Encoder(Eye(), 3, None, None, "random", "colours"), Setting(T)).eval()
    cfg = resolve_config(POOL / "run" / "own_image.yaml").config
    made = Recognizer.__new__(Recognizer)
    made.model = OwnModel(
        head, cfg, None, head.headline, Reading(T, PixelSettings(24, 24, [0, 0, 0], [1, 1, 1]), "pyav"),
        torch.device("cpu"), {"weights": "eye", **facts}, "an eye for colours", None,
        {"checkpoint": None, "weights": "eye", "file": False, "text": True, "overrides": [], "tower": None}, ())
    vars(made.model)["encoder"] = head  # not a copy: tests count what it sees
    return made


def pictures(colour: str | tuple[int, int, int], count: int, seed: int = 0,
             size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Noisy frames of a colour, uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    base = np.array(COLOURS.get(colour, colour) if isinstance(colour, str) else colour)
    frames = base + rng.normal(0, 12, 3) + rng.normal(0, 6, (count, *size, 3))
    return np.clip(frames, 0, 255).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, rate: int = 10) -> Path:
    """Write frames as H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_support(root: Path, clips: int = 5, none: int = 0) -> Path:
    """Folders of clips of two seconds, one a colour, and of grey ones under none."""
    for k, colour in enumerate(COLOURS):
        for number in range(clips):
            write_video(root / colour / f"{number}.mp4", pictures(colour, 20, 100 * k + number))
    for number in range(none):
        write_video(root / "none" / f"{number}.mp4", pictures((120, 120, 125), 20, 900 + number))
    return root
