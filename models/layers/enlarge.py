"""This is a step of the decoder with which MoLo draws how pixels change, under its published parameter names."""

import torch.nn.functional as F
from torch import Tensor, nn


class Enlarge(nn.Module):
    """Enlarge maps bilinearly, corners onto corners, then convolve them. [X, C, h, w] -> [X, C', h', w']"""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.ModuleDict({"double_conv": nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))})

    def forward(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv["double_conv"](F.interpolate(maps, size=size, mode="bilinear", align_corners=True))
