"""OTAM: against a cell-by-cell loop in float64, in both number spaces, for long clips."""

import pytest
import torch

from models.layers.alignment import ALIGNMENTS, otam_distance
from models.layers.alignment.otam import otam_reference, soft_alignment


@pytest.mark.parametrize("frames", [(1, 1), (2, 3), (8, 8), (16, 16), (32, 32), (64, 64)])
@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize("largest", [2.0, float("inf")])
def test_equals_the_loop(frames, smoothing, largest):
    """Small costs of short clips are added up in exp space, all others in log space."""
    costs = torch.rand(2, *frames, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    reference = costs.clone().requires_grad_()
    otam_reference(reference, smoothing).sum().backward()
    ours = costs.float().requires_grad_()
    found = soft_alignment(ours, smoothing, largest)
    found.sum().backward()
    torch.testing.assert_close(found.detach().double(), otam_reference(costs, smoothing), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad.double(), reference.grad, rtol=0, atol=1e-4 if smoothing == 0.1 else 1e-5)


def test_costs_beyond_the_promised_ones_are_never_mistaken_for_distances():
    costs = torch.full((2, 8, 8), 60.0)
    assert not otam_distance(costs, smoothing=0.1, largest=2.1).isfinite().any()
    assert otam_distance(costs, smoothing=0.1).isfinite().all()


def test_large_costs_stay_finite():
    costs = torch.full((1, 64, 64), 50.0, requires_grad=True)
    otam_distance(costs, smoothing=0.05).sum().backward()
    assert costs.grad.isfinite().all()


@pytest.mark.parametrize("largest, smoothing", [(2.0, 0.1), (50.0, 0.05)])
def test_clips_of_64_frames_where_exp_space_underflows(largest, smoothing):
    """Every path of 64 cells weighs 0 in float32, so a loop over plain exponentials has no value left."""
    costs = torch.rand(64, 64, generator=torch.Generator().manual_seed(2)) * largest + largest / 2
    assert (costs.min() * -64 / smoothing).exp() == 0
    reference = costs.double().requires_grad_()
    expected = otam_reference(reference, smoothing)
    expected.backward()
    ours = costs.requires_grad_()
    found = soft_alignment(ours, smoothing)
    found.backward()
    torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.grad.double(), reference.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("frames", [(4, 5), (8, 8)])  # as many frames on both sides go another way through the code
def test_both_directions_are_those_of_the_loop(frames):
    costs = torch.rand(3, *frames, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    there, back = otam_reference(costs), otam_reference(costs.transpose(-1, -2))
    assert ((there - back).abs() > 1e-3).all()
    torch.testing.assert_close(otam_distance(costs), there + back)
    torch.testing.assert_close(otam_distance(costs, single_direction=True), there)
    costs.requires_grad_()
    expected, = torch.autograd.grad((otam_reference(costs) + otam_reference(costs.transpose(-1, -2))).sum(), costs)
    found, = torch.autograd.grad(otam_distance(costs).sum(), costs)
    torch.testing.assert_close(found, expected)


def test_registry_and_refusals():
    costs = torch.rand(3, 4, 5)
    torch.testing.assert_close(ALIGNMENTS["otam"](costs), otam_distance(costs))
    with pytest.raises(ValueError, match="at least one frame"):
        soft_alignment(torch.rand(2, 0, 3))
    with pytest.raises(ValueError, match="above 0"):
        soft_alignment(torch.rand(2, 3, 3), 0.0)
