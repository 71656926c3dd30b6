"""BN.SYNC: two ranks with half of a batch each compute what one rank does with the whole. BN.FREEZE: nothing moves."""

import copy
import multiprocessing
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from models.encoders.clip import build_towers
from models.encoders.image import image_encoder
from models.layers.batch_norm import FrozenBatchNorm, RankBatchNorm, freeze_batch_norm, over_ranks
from models.layers.efficiency import has_batch_statistics
from tests.conftest import TINY_TOWER
from utils.errors import ConfigError

PARTS = (3, 5)  # frames of each rank: statistics are weighted by them


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 + 2 * torch.randn(8, 4, 3, 2, generator=generator), torch.randn(8, 4, 3, 2, generator=generator)


def _layer() -> nn.Sequential:
    layer = nn.Sequential(nn.BatchNorm2d(4))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    return layer


def _rank(rank: int, store: str, out: Path) -> None:
    """One rank's outputs, gradients and running statistics."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    layer, (inputs, weights) = _layer(), _data()
    over_ranks(layer)
    own = inputs.split(PARTS)[rank].clone().requires_grad_()
    outputs = layer(own)
    (outputs * weights.split(PARTS)[rank]).sum().backward()
    for parameter in layer.parameters():
        dist.all_reduce(parameter.grad)
    torch.save({"outputs": outputs.detach(), "inputs": own.grad, "weight": layer[0].weight.grad,
                "bias": layer[0].bias.grad, "state": layer.state_dict(), "eval": layer.eval()(inputs).detach()},
               out / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one_batch(tmp_path):
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path / "store"), tmp_path)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    layer, (inputs, weights) = _layer(), _data()
    inputs.requires_grad_()
    outputs = layer(inputs)
    (outputs * weights).sum().backward()
    for process in ranks:
        process.join(100)
        assert process.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(torch.cat([f["outputs"] for f in found]), outputs, **close)
    torch.testing.assert_close(torch.cat([f["inputs"] for f in found]), inputs.grad, **close)
    for one in found:
        torch.testing.assert_close(one["weight"], layer[0].weight.grad, **close)
        torch.testing.assert_close(one["bias"], layer[0].bias.grad, **close)
        torch.testing.assert_close(one["state"], layer.state_dict(), **close)
        torch.testing.assert_close(one["eval"], layer.eval()(inputs), **close)


TOWERS = {
    "clip": lambda: build_towers({**TINY_TOWER, "vision_cfg": {
        "image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}).visual,
    "resnet18": lambda: image_encoder(name="resnet18", weights="random", weights_dir=None, reads_text=False).visual,
    "mobilenet_v2": lambda: image_encoder(name="mobilenet_v2", weights="random", weights_dir=None,
                                          reads_text=False).visual,
}


def _tower(name: str) -> nn.Module:
    torch.manual_seed(0)
    tower = TOWERS[name]()
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return tower


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("kind", [FrozenBatchNorm, RankBatchNorm])
def test_replacing_keeps_names_order_and_parameters(name, kind):
    tower = _tower(name)
    parameters, state = dict(tower.named_parameters()), tower.state_dict()
    {FrozenBatchNorm: freeze_batch_norm, RankBatchNorm: over_ranks}[kind](tower)
    assert [key for key, _ in tower.named_parameters()] == list(parameters)
    assert all(parameter is parameters[key] for key, parameter in tower.named_parameters())
    assert list(tower.state_dict()) == list(state)
    assert {type(module) for module in tower.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)} == {kind}
    tower.load_state_dict(state)


@pytest.mark.parametrize("name", TOWERS)
def test_frozen_towers_and_their_copies_stay_as_they_are_in_training(name):
    frames = torch.rand(3, 3, 32, 32)
    expected = _tower(name).eval()(frames)
    frozen = _tower(name)
    freeze_batch_norm(frozen)
    freeze_batch_norm(frozen)  # twice is once
    for tower in (frozen, copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):  # noqa: S301
        before = copy.deepcopy(tower.state_dict())
        tower.eval().train()
        assert not has_batch_statistics(tower)
        torch.testing.assert_close(tower(frames), expected)
        torch.testing.assert_close(tower.state_dict(), before, rtol=0, atol=0)
    copied = copy.deepcopy(frozen)
    norm = next(module for module in copied.modules() if isinstance(module, FrozenBatchNorm))
    norm.running_mean.add_(1)
    assert not torch.equal(copied(frames), frozen(frames))  # a copy uses its own statistics
    assert any(p.requires_grad for p in frozen.parameters())
    assert not any(p.requires_grad for p in norm.parameters())


def test_one_layer_in_two_places_stays_one():
    model = nn.Sequential(nn.BatchNorm2d(3))
    model.add_module("again", model[0])
    freeze_batch_norm(model)
    assert type(model[0]) is FrozenBatchNorm and model.again is model[0]


@pytest.mark.parametrize("kind, shape", [(nn.BatchNorm1d, (8, 4)), (nn.BatchNorm3d, (2, 4, 2, 3, 3))])
def test_frozen_norms_of_other_dimensions(kind, shape):
    model, values = nn.Sequential(kind(4)), torch.rand(shape)
    expected = copy.deepcopy(model).eval()(values)
    freeze_batch_norm(model)
    torch.testing.assert_close(model.train()(values), expected)


@pytest.mark.parametrize("change, key", [(freeze_batch_norm, "BN.FREEZE"), (over_ranks, "BN.SYNC")])
def test_batch_norms_of_another_make_are_refused(change, key):
    class Activated(nn.BatchNorm2d):
        pass

    with pytest.raises(ConfigError, match=f"{key}: expected torch's own batch norms, found a Activated"):
        change(nn.Sequential(Activated(3)))


@pytest.mark.parametrize("kind, shape, settings", [
    (nn.BatchNorm1d, (8, 4), {}), (nn.BatchNorm1d, (8, 4, 5), {"affine": False}),
    (nn.BatchNorm2d, (8, 4, 3, 2), {"momentum": None}), (nn.BatchNorm3d, (3, 4, 2, 3, 2), {}),
    (nn.BatchNorm2d, (8, 4, 3, 2), {"track_running_stats": False})])
def test_one_rank_alone_computes_what_torch_does(kind, shape, settings, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain = nn.Sequential(kind(4, **settings))
        ours = copy.deepcopy(plain)
        over_ranks(ours)
        for seed in (0, 1):
            values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1
            torch.testing.assert_close(ours(values), plain(values), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.eval()(values), plain.eval()(values))
    finally:
        dist.destroy_process_group()
