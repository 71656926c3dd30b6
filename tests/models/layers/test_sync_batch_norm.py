"""BN.SYNC: two ranks with half of a batch each compute what one rank does with the whole."""

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from models.layers.sync_batch_norm import over_ranks

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
