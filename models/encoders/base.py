"""This file says what an encoder is: a visual tower, its width, and a text tower where a head reads text.

F frames, P clips, T frames of a clip, C/H/W image, D features, h/w feature map, G class names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

Text = Callable[[Sequence[str], str], Tensor]
Output = Literal["vector", "map"]


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder holds a visual tower and what a head and a report need to know of it.

    A tower takes frames [F, 3, H, W] and gives [F, D], or maps [F, D, h, w]. A tower that must see whole clips has an
    attribute `takes_clips = True`; it takes [P, T, 3, H, W] and gives [P, T, D]. Call either through `encode_clips`.
    """

    visual: nn.Module
    dim: int  # D
    image_size: int | None  # the side in pixels of the frames that it takes; None: any
    text: Text | None  # turns class names and a prompt with {} into features [G, D], not normalised
    weights: str  # what was loaded: "random", or file name and SHA-256
    pretraining: str  # one line on what the weights were trained on
    logit_scale: float | None = None  # what CLIP multiplies cosines by; None: no text tower was built
    config: Mapping[str, Any] | None = None  # all that it takes to build the towers without weights; None: their name


class EncoderBuilder(Protocol):
    """Every entry of the registry ENCODERS is called like this.

    Args:
        name, weights, weights_dir: VIDEO.HEAD's BACKBONE_NAME, BACKBONE_WEIGHTS (None: the published ones) and
            WEIGHTS_DIR (None: the encoder's own cache).
        reads_text: whether the head reads text. Without it no text tower is built.
        config: an Encoder.config to build the towers by, in place of the one that goes by this name.
        output: whether each frame becomes one vector [D] or a map [D, h, w].
    """

    def __call__(self, *, name: str, weights: str | None, weights_dir: str | None, reads_text: bool,
                 output: Output = "vector", config: Mapping[str, Any] | None = None) -> Encoder:
        """Build the towers. Raises WeightsError or ConfigError naming the key that is wrong."""


def frames_together(tower: nn.Module, frames: int) -> int:
    """Return how many of a clip's frames a tower must see together: all, or one where it sees each alone."""
    return frames if getattr(tower, "takes_clips", False) else 1


def encode_clips(tower: nn.Module, clips_PTCHW: Tensor) -> Tensor:
    """Encode every frame of some clips: [P, T, D], or [P, T, D, h, w] with a tower that gives maps."""
    if getattr(tower, "takes_clips", False):
        return tower(clips_PTCHW)
    features = tower(clips_PTCHW.flatten(0, 1))
    return features.reshape(*clips_PTCHW.shape[:2], *features.shape[1:])
