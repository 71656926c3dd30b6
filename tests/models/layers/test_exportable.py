"""OTAM as a module for other runtimes: the same distances, by torch.export as well, or a refusal."""

import re

import pytest
import torch

from models.layers.alignment import otam_distance
from models.layers.alignment.exportable import ExportableOtam
from utils.errors import ExportError


def costs_of(frames: int, count: int = 6, largest: float = 2.0) -> torch.Tensor:
    return torch.rand(count, 2, frames, frames, generator=torch.Generator().manual_seed(frames)) * largest


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 16, 64])
@pytest.mark.parametrize("single", [True, False])
def test_it_equals_the_fast_otam(frames, single):
    costs = costs_of(frames)
    found = ExportableOtam(frames, 0.5, single)(costs)
    expected = otam_distance(costs, smoothing=0.5, single_direction=single, backend="plain")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_at_the_edge_of_the_safe_range_it_is_still_right():
    costs = torch.full((2, 64, 64), 2.0)
    costs[0] *= torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    found = ExportableOtam(64, smoothing=0.46)(costs)
    torch.testing.assert_close(found, otam_distance(costs, smoothing=0.46), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("frames", "smoothing", "text"), [
    (8, 0.05, "OTAM of 8 frames with lambda 0.05 cannot be exported"), (0, 0.5, "OTAM of 0 frames"),
    (80, 0.5, "(2 * frames + 1) * 2.1 / lambda below 600, found 676.2; take fewer frames or a larger lambda"),
    (8, 0.0, "expected frames and lambda above 0"),
])
def test_what_exp_space_cannot_hold_is_refused(frames, smoothing, text):
    with pytest.raises(ExportError, match=re.escape(text)):
        ExportableOtam(frames, smoothing)


@pytest.mark.slow
def test_torch_export_takes_it_with_any_number_of_pairs():
    module = ExportableOtam(8).eval()
    program = torch.export.export(module, (costs_of(8),), dynamic_shapes=({0: torch.export.Dim("pairs", min=2)},))
    for count in (2, 9):
        costs = costs_of(8, count)
        torch.testing.assert_close(program.module()(costs), otam_distance(costs), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_onnx_takes_it(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    costs = costs_of(8)
    torch.onnx.export(ExportableOtam(8).eval(), (costs,), str(tmp_path / "otam.onnx"), dynamo=True,
                      input_names=["costs"], dynamic_shapes=({0: torch.export.Dim("pairs", min=2)},))
    session = runtime.InferenceSession(str(tmp_path / "otam.onnx"), providers=["CPUExecutionProvider"])
    found, = session.run(None, {"costs": costs.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), otam_distance(costs), rtol=1e-5, atol=1e-6)
