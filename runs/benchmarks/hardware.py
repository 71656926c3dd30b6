"""Measures what a device can do, and what a work takes of it: matmul rate, memory, the machine in words."""

import platform
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from models.layers.products import product
from runs.benchmarks.timing import seconds_over
from utils.cores import cores
from utils.precision import products_of

TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAMPLE_SECONDS = 0.01


def matmul_rate(precision: str, device: torch.device, sizes: tuple[int, ...], least: float = 0.2) -> float:
    """Return FLOP/s (2 a multiply-add) of the fastest product of two square matrices of `sizes` in a precision.

    Each is multiplied for `least` seconds; tf32: float32 matrices with TF32 allowed. On a CPU float32 is multiplied by
    oneDNN, too: the faster one counts.
    """
    best = 0.0
    with products_of(precision):
        for size in sizes:
            a, b = (torch.randn(size, size, device=device).to(TYPES[precision]) for _ in range(2))
            out = torch.empty_like(a)

            by_onednn = [partial(product, a, b, None)] if device.type == "cpu" else []
            for work in (partial(torch.mm, a, b, out=out), *by_onednn):
                work()
                best = max(best, 2 * size**3 / seconds_over(work, device, least))
    return best


def _sampled_memory(work: Callable[[], object]) -> float:
    """Return the largest resident memory of this process during a work, read every 10 ms, in bytes."""
    process, ended, found = psutil.Process(), threading.Event(), [0]

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            found.append(process.memory_info().rss)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        work()
    finally:
        ended.set()
        sampler.join()
    return float(max(*found, process.memory_info().rss))


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """Return the bytes at their highest during a work.

    On a GPU these are torch's allocations (torch.cuda.max_memory_allocated), on the CPU this process' resident memory,
    interpreter and libraries included.
    """
    if device.type != "cuda":
        return _sampled_memory(work)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return float(torch.cuda.max_memory_allocated(device))


def _processor() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str:
    """Return the version of the NVIDIA driver."""
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], text=True,
                               capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.split("\n")[0].strip() or "unknown"


def machine() -> dict[str, Any]:
    """Return CPU, cores that this process may use, threads of torch, memory in GiB, GPUs with driver and CUDA."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(n) for n in range(count)]
    return {"cpu": _processor(), "cores": cores(), "threads": torch.get_num_threads(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30), "gpus": gpus,
            "driver": _driver() if gpus else None, "cuda": torch.version.cuda if gpus else None}
