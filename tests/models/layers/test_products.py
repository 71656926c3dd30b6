"""models/layers/products.py: linear layers, attentions and pools give torch's numbers and gradients."""

import copy

import pytest
import torch
from torch import nn

from models.encoders.clip import build_visual
from models.layers import products
from models.layers.products import FirstTokenPool, OneDnnAttention, OneDnnLinear, shorten_pool, use_onednn
from runs.benchmarks.towers import SMALL_VIT, small_resnet


def both(model: nn.Module, change, *given) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What a model gives, and its gradients, before and after a change."""
    found = []
    for one in (model, copy.deepcopy(model)):
        if one is not model:
            change(one)
        inputs = [value.clone().requires_grad_() for value in given]
        out = one(*inputs)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out.detach(), *(value.grad for value in inputs),
                      *(value.grad for _, value in sorted(one.named_parameters()))])
    return found[0], found[1]


def assert_equal_but_for_rounding(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * largest + 1e-14)


@pytest.mark.parametrize("shape", [(70, 6), (3, 40, 6), (2, 6), (0, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(shape, bias, monkeypatch):
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 5, bias=bias), torch.randn(shape)
    calls = []
    conv2d = torch.nn.functional.conv2d
    monkeypatch.setattr(products.F, "conv2d", lambda *given: calls.append(1) or conv2d(*given))
    assert_equal_but_for_rounding(*both(nn.Sequential(layer), use_onednn, x))
    assert len(calls) == (x.numel() // 6 >= products.ROWS)
    assert nn.Sequential(layer).state_dict().keys() == {"0.weight"} | ({"0.bias"} if bias else set())


def test_other_numbers_are_torchs_own(monkeypatch):
    monkeypatch.setattr(products.F, "conv2d", None)
    x, layer = torch.randn(100, 6), OneDnnLinear(6, 5)
    assert layer.double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first, monkeypatch):
    torch.manual_seed(0)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(12, 3, batch_first=batch_first)

        def forward(self, x, **options):
            return self.attn(x, x, x, need_weights=options.pop("need_weights", False), **options)[0]

    model, x = Own(), torch.randn(20, 9, 12)
    nn.init.normal_(model.attn.in_proj_bias)
    assert_equal_but_for_rounding(*both(model, use_onednn, x))
    other = copy.deepcopy(model)
    use_onednn(other)
    assert type(other.attn) is OneDnnAttention and type(other.attn.out_proj) is OneDnnLinear
    mask = torch.ones(*(2 * x.shape[1 if batch_first else 0:][:1]), dtype=torch.bool).triu(1)
    torch.testing.assert_close(other(x, attn_mask=mask), model(x, attn_mask=mask))
    assert not torch.allclose(model(x, attn_mask=mask), model(x))
    assert other.attn(x, x, x)[1] is not None  # the weights, where they are asked for
    y = torch.randn_like(x)
    torch.testing.assert_close(other.attn(x, y, y, need_weights=False)[0], model.attn(x, y, y, need_weights=False)[0])


def test_pool_of_a_resnet():
    torch.manual_seed(0)
    tower, frames = build_visual(small_resnet(64, 1, 16)).eval().double(), torch.randn(3, 3, 64, 64).double()
    whole, shorter = both(tower, shorten_pool, frames)  # in double: a key's bias has no gradient but rounding
    assert_equal_but_for_rounding(shorter, whole)
    other = copy.deepcopy(tower)
    shorten_pool(other)
    assert isinstance(other.get_submodule("attnpool"), FirstTokenPool)
    assert {name: value.shape for name, value in other.state_dict().items()} == {
        name: value.shape for name, value in tower.state_dict().items()}


def test_a_vision_transformer():
    torch.manual_seed(0)
    tower = build_visual(SMALL_VIT)
    whole, other = both(tower, use_onednn, torch.randn(2, 3, 112, 112))
    assert_equal_but_for_rounding(other, whole)


@pytest.mark.parametrize(("processor", "level", "lags"), [
    ("vendor_id : AuthenticAMD", "AVX512", True), ("vendor_id : GenuineIntel", "AVX512", False),
    ("vendor_id : AuthenticAMD", "AVX2", False)])
def test_where_products_lag(processor, level, lags, monkeypatch):
    monkeypatch.setattr(products, "_processor", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    assert products.products_lag.__wrapped__() == (lags and torch.backends.mkl.is_available())
