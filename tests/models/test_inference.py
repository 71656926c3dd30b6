"""models/inference.py: an evaluation's copies of a head give the same, and leave the head as it was."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models import inference
from models.encoders.base import Encoder, encode_clips
from models.encoders.clip import build_visual
from models.encoders.image import image_encoder
from models.heads.base import Setting
from models.layers.products import FirstTokenPool, OneDnnLinear
from models.registries import HEADS
from runs.benchmarks.towers import small_resnet

CPU = torch.device("cpu")


def head_of(tower: nn.Module, dim: int):
    """A head that compares what a tower gives."""
    return HEADS["FROZEN"](Encoder(tower, dim, None, None, "random", "random"), Setting(2)).eval()


def with_statistics(tower: nn.Module) -> nn.Module:
    """The tower with batch norms that do something, as after a training."""
    draw = torch.Generator().manual_seed(1)
    for norm in (module for module in tower.modules() if isinstance(module, _BatchNorm)):
        for values, low, high in ((norm.running_mean, -0.2, 0.2), (norm.running_var, 0.5, 2.0),
                                  (norm.weight.data, 0.5, 1.5), (norm.bias.data, -0.2, 0.2)):
            values.copy_(low + (high - low) * torch.rand(values.shape, generator=draw))
    return tower


def towers() -> dict[str, tuple[nn.Module, int, int]]:
    """A tower of each make by name, with the width of its features and the side of its pictures."""
    torch.manual_seed(0)
    made = {name: image_encoder(name=name, weights="random", weights_dir=None, reads_text=False)
            for name in ("ResNet18", "ResNet50", "MobileNetV2")}
    clip = build_visual(small_resnet(64, 1, 16))
    return {**{name: (one.visual, one.dim, 64) for name, one in made.items()}, "CLIP": (clip, 128, 64)}


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "MobileNetV2", "CLIP"])
@torch.no_grad()
def test_features_are_the_same_without_batch_norms(name, monkeypatch):
    tower, dim, size = towers()[name]
    head = head_of(with_statistics(tower), dim)
    clips = torch.randn(3, 2, 3, size, size)
    expected, state = head.encode(clips), copy.deepcopy(head.state_dict())
    modules = list(head.modules())
    for lags in (False, True):
        monkeypatch.setattr(inference, "products_lag", lambda lags=lags: lags)
        faster = inference.for_evaluation(head, CPU, (2, size))
        assert not any(isinstance(module, _BatchNorm) for module in faster.modules())
        kinds = {type(module) for module in faster.modules()}
        assert (FirstTokenPool in kinds) == (name == "CLIP") and (OneDnnLinear in kinds) == (name == "CLIP" and lags)
        found = faster.encode(clips)
        largest = float(expected["frames"].abs().max())
        assert float((found["frames"] - expected["frames"]).abs().max()) < 1e-5 * max(largest, 1)
    assert modules == list(head.modules())  # not one was replaced
    for key, value in head.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert torch.equal(head.encode(clips)["frames"], expected["frames"])


def test_weights_are_shared_but_for_folded_ones():
    tower, dim, size = towers()["CLIP"]
    head = head_of(tower, dim)
    faster = inference.for_evaluation(head, CPU, (2, size))
    own = {id(one) for one in head.parameters()}
    assert sum(id(one) in own for one in faster.parameters()) > 5  # of the attention pool
    assert inference.for_evaluation(head, torch.device("meta")) is head


class Odd(nn.Module):
    """Batch norms that cannot be folded: one of an output that is used twice, one before its convolution, one that
    is called twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.conv3, self.bn3 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice = False

    def forward(self, frames):
        """Vectors of frames."""
        first = self.conv1(frames)
        x = self.bn1(first) + first if self.twice else self.bn1(first)
        x = self.conv2(self.bn2(x))
        x = self.bn3(self.conv3(x)) + self.bn3(x)
        return x.mean(dim=(2, 3))


class Own(nn.Module):
    """A tower of someone's own that a copy would not be right for."""

    def __init__(self, kind: str):
        super().__init__()
        conv = nn.Conv2d(3, 4, 3)
        self.conv, self.norm = conv, nn.BatchNorm2d(4)
        if kind == "lock":
            self.lock = threading.Lock()
        elif kind == "stash":
            self.last = conv(torch.randn(1, 3, 8, 8))
        elif kind == "transposed":
            self.conv = nn.ConvTranspose2d(3, 4, 3)
        elif kind == "weight norm":
            self.conv = nn.utils.parametrizations.weight_norm(conv)
        elif kind == "old weight norm":
            self.conv = nn.utils.weight_norm(conv)
        elif kind == "tap":
            self.caught: list[torch.Tensor] = [torch.zeros(1)]
            conv.register_forward_hook(lambda _module, _given, output: self.caught.__setitem__(0, output))
        elif kind == "acts":
            self.norm = type("BatchNormAct2d", (nn.BatchNorm2d,), {
                "forward": lambda self, x: nn.BatchNorm2d.forward(self, x).relu()})(4)

    def forward(self, frames):
        """Vectors of frames."""
        x = self.norm(self.conv(frames))
        if hasattr(self, "caught"):
            x = self.caught[0]
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize(("kind", "itself"), [
    ("lock", True), ("stash", True), ("tap", True), ("transposed", False), ("weight norm", False),
    ("old weight norm", True), ("acts", False), ("nan", True)])
@pytest.mark.parametrize("lags", [False, True])
def test_towers_of_ones_own_are_right_or_left_alone(kind, itself, lags, monkeypatch, caplog):
    monkeypatch.setattr(inference, "products_lag", lambda: lags)
    caplog.set_level("INFO")
    head, clips = head_of(with_statistics(Own(kind)), 4), torch.randn(2, 2, 3, 16, 16)
    if kind == "nan":
        head.backbone.conv.weight.data[0] = torch.nan
    faster = inference.for_evaluation(head, CPU, (2, 16))
    assert (faster is head) == itself and ("not by a faster copy" in caplog.text) == (
        itself and kind != "nan")
    if kind == "lock":
        assert inference.for_evaluation(head, CPU) is head  # of what scores, too
    with torch.no_grad():
        torch.testing.assert_close(faster.encode(clips), head.encode(clips), equal_nan=True)


@pytest.mark.parametrize(("twice", "left"), [(False, 2), (True, 3)])
@torch.no_grad()
def test_what_cannot_be_folded_stays(twice, left):
    tower = with_statistics(Odd())
    tower.twice = twice
    head, clips = head_of(tower, 3), torch.randn(2, 2, 3, 16, 16)
    faster = inference.for_evaluation(head, CPU, (2, 16))
    assert sum(isinstance(module, _BatchNorm) for module in faster.modules()) == left
    torch.testing.assert_close(faster.encode(clips), head.encode(clips))
    assert encode_clips(tower, clips).shape == (2, 2, 3)


