"""OTAM's Triton kernels: interpreted on the CPU, and compiled where a GPU is, against the plain code in float64."""

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from models.layers.alignment import otam, otam_distance
from tests.conftest import REPOSITORY
from tests.models.layers.otam_interpreted import run
from utils.errors import AlignmentBackendError

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def _case(*shape: int, largest: float = 2.0, smoothing: float = 0.5, single: bool = False, dtype=torch.float32,
          layout=lambda costs: costs) -> dict:
    """Costs of 0..largest, options and weights of the distances."""
    generator = torch.Generator().manual_seed(sum(shape))
    costs = layout((torch.rand(shape, generator=generator) * largest).to(dtype))
    weights = (torch.rand(costs.shape[:-2], generator=generator) + 0.5).to(dtype)
    return {"costs": costs, "weights": weights, "options": {"smoothing": smoothing, "single_direction": single}}


CASES = {
    **{f"{frames} frames, {smoothing}": _case(2, frames, frames, smoothing=smoothing)
       for frames in (8, 16, 32, 64) for smoothing in (0.1, 0.5)},
    **{f"{t} x {s}": _case(2, t, s) for t, s in ((1, 1), (1, 5), (5, 1), (2, 1), (7, 12), (33, 20))},
    **{f"{t} x {s}, one direction": _case(2, t, s, single=True) for t, s in ((8, 8), (3, 9), (9, 3))},
    "no batch": _case(6, 6), "two of three": _case(2, 3, 5, 4), "none": _case(0, 8, 8),
    "none of three": _case(3, 0, 8, 8),
    "transposed": _case(2, 9, 6, layout=lambda costs: costs.mT),
    "batch last": _case(5, 3, 4, layout=lambda costs: costs.permute(2, 0, 1)),
    "every second": _case(4, 12, 10, layout=lambda costs: costs[::2, ::2, 1::2]),
    "one for all": _case(4, 4, layout=lambda costs: costs.expand(3, 4, 4)),
    "bfloat16": _case(2, 16, 16, dtype=torch.bfloat16), "float16": _case(2, 16, 12, dtype=torch.float16),
    # Here even one cell weighs nothing: float32 holds exp(-103) and no less.
    "underflow": _case(1, 64, 64, largest=50.0, smoothing=0.05),
    "underflow, 40 x 23": _case(1, 40, 23, largest=50.0, smoothing=0.02),
    "all alike": {**_case(1, 64, 64, smoothing=0.05), "costs": torch.full((1, 64, 64), 50.0)},
    "weights apart": {**_case(2, 8, 8), "weights": torch.linspace(-1, 2, 8)[::4]},
    "no graph": {**_case(2, 8, 8), "weights": None},
}


def _check(case: dict, distances: torch.Tensor, gradient: torch.Tensor | None) -> None:
    """Against the plain code in float64, on the same costs."""
    costs = case["costs"].detach().double().clone().requires_grad_()
    expected = otam_distance(costs, backend="plain", **case["options"])
    dtype = case["costs"].dtype
    exponent = float(costs.detach().max()) / case["options"]["smoothing"] if costs.numel() else 0.0  # of one cell
    rounding = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps
    assert distances.dtype == dtype and distances.shape == expected.shape
    torch.testing.assert_close(distances.cpu().double(), expected.detach(), rtol=max(1e-6, rounding), atol=2e-6)
    if gradient is not None:
        (reference,) = torch.autograd.grad(expected, costs, case["weights"].double())
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.cpu().double(), reference, rtol=rounding, atol=max(2e-5, 1.2e-7 * exponent))


@pytest.fixture(scope="module")
def interpret(tmp_path_factory):
    """Runs cases in one interpreting process."""
    def _run(cases: list[dict]) -> list[tuple]:
        folder = tmp_path_factory.mktemp("interpreted")
        torch.save(cases, folder / "in.pt")
        done = subprocess.run([sys.executable, "-m", "tests.models.layers.otam_interpreted", folder / "in.pt",
                               folder / "out.pt"], cwd=REPOSITORY, capture_output=True, text=True, timeout=200,
                              env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        return torch.load(folder / "out.pt")
    return _run


@pytest.fixture(scope="module")
def interpreted(interpret):
    """Every case's (distances, gradient), a step of 0.005 to both sides, and costs with a NaN."""
    step = _case(1, 9, 7, smoothing=0.3)
    broken = _case(2, 8, 8)
    broken["costs"][0, 3, 4] = torch.nan
    direction = torch.linspace(-1, 1, 63).view(1, 9, 7) * 0.005
    moved = [{**step, "costs": step["costs"] + sign * direction} for sign in (1, -1)]
    *found, plus, minus, middle, nan = interpret([*CASES.values(), *moved, step, broken])
    return SimpleNamespace(found=dict(zip(CASES, found, strict=True)), nan=nan, direction=direction,
                           rise=(plus[0] - minus[0]), gradient=middle[1], weight=step["weights"])


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_interpreted_equals_the_plain_code(interpreted, name):
    _check(CASES[name], *interpreted.found[name])


@pytest.mark.slow
@needs_triton
def test_gradient_is_the_slope_of_the_distance(interpreted):
    slope = (interpreted.gradient * interpreted.direction).sum() * 2
    torch.testing.assert_close(interpreted.rise[0] * interpreted.weight[0], slope, rtol=2e-3, atol=2e-6)


@pytest.mark.slow
@needs_triton
def test_a_nan_stays_visible_in_its_sequence_alone(interpreted):
    distances, gradient = interpreted.nan
    assert distances.isnan().tolist() == [True, False]
    assert gradient[0].isnan().any() and gradient[1].isfinite().all()


@pytest.mark.gpu
@needs_triton
def test_compiled_equals_the_plain_code():
    for own in CASES.values():
        case = {key: value.cuda() if torch.is_tensor(value) else value for key, value in own.items()}
        _check(own, *run(case))
        torch.testing.assert_close(otam_distance(case["costs"], **case["options"]), run(case)[0], rtol=0, atol=0)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("block", [8, 64, 512])
def test_kernels_compile_for_gpus_without_one(block, tmp_path, monkeypatch):
    """What the interpreter takes, the compiler may not. Source to machine code of an H100, in bfloat16."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = importlib.import_module("models.layers.alignment.otam_triton")
    types = {"costs": "*bf16", "table": "*fp32", "distances": "*fp32", "grad_distances": "*fp32", "grad": "*fp32",
             "factor": "fp32", "smoothing": "fp32", "KEEP": "constexpr", "BLOCK": "constexpr"}
    for kernel in (kernels._forward_kernel, kernels._backward_kernel):
        constants = {name: value for name, value in (("KEEP", True), ("BLOCK", block)) if name in kernel.arg_names}
        source = ASTSource(kernel, {name: types.get(name, "i32") for name in kernel.arg_names}, constants)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": kernels.warps(block)})
        assert made.asm["cubin"]


def test_without_triton_the_plain_code_serves_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "models.layers.alignment.otam_triton", raising=False)
    otam._kernels.cache_clear()
    try:
        on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32)
        assert otam._fused(on_gpu, "auto") is None
        with pytest.raises(AlignmentBackendError, match="cannot be imported: .*triton"):
            otam._fused(on_gpu, "triton")
    finally:
        otam._kernels.cache_clear()


@needs_triton
def test_who_gets_the_kernels():
    kernels = importlib.import_module("models.layers.alignment.otam_triton")
    for dtype, expected in ((torch.float32, kernels), (torch.bfloat16, kernels), (torch.float64, None)):
        on_gpu = SimpleNamespace(is_cuda=True, dtype=dtype)
        assert otam._fused(on_gpu, "auto") is expected
        assert otam._fused(on_gpu, "plain") is None and otam._fused(on_gpu, "triton") is kernels
    assert otam._fused(torch.rand(1, 2, 2), "auto") is None
    with pytest.raises(ValueError, match="backends auto, plain, triton, found 'cuda'"):
        otam_distance(torch.rand(1, 2, 2), backend="cuda")
    with pytest.raises(AlignmentBackendError, match="found torch.float64 on cpu"):
        otam_distance(torch.rand(1, 2, 2, dtype=torch.float64), backend="triton")


@needs_triton
def test_a_kernel_that_fails_says_so():
    def fails(*arguments, **constants):
        raise RuntimeError("device-side assert")

    launch = importlib.import_module("models.layers.alignment.otam_triton")._launch
    with pytest.raises(AlignmentBackendError, match="Error: device-side assert. VIDEO.HEAD.ALIGNMENT otam does"):
        launch({(2, 1): fails}, torch.rand(2, 3, 3), 1)
