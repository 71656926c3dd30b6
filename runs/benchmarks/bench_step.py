"""Measures a training step as the code base does it against the same step written plainly, in turns.

No video is decoded. The default is a small ViT on the CPU, and ViT-B/16 with a GPU.

Episodes of random pixels, random weights. Written plainly: one pass of the tower for supports and one for queries, OTAM
cell by cell, float32 with torch's default number formats, default memory format, Adam that is not fused.

FLOP: 2 a multiply-add (fvcore counts 1), forward times 3 for forward and backward; work done twice (--grad-checkpoint)
counts once. The peak is the fastest dense matmul of the same turn, on the same device at the same precision. OTAM's
share: its forward and backward alone, on costs of the step's shape, over the step. Each way of a turn has a process
of its own, so that neither finds the other's memory ready; memory is measured in two more: on a GPU torch's
allocations, on the CPU resident memory, sampled, libraries included.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.layers.alignment import ALIGNMENTS
from runs.benchmarks.hardware import matmul_rate
from runs.benchmarks.rows import LOWER, NEITHER, Done, Row, silent
from runs.benchmarks.steps import (
    LESS,
    PLAIN,
    Step,
    StepOptions,
    alone,
    configuration,
    kept_step,
    overrides,
    step_flops,
    step_memory,
)
from runs.benchmarks.timing import seconds, seconds_over, threads
from utils.config.schema import Config
from utils.cores import cores
from utils.device import choose_device
from utils.errors import BenchmarkError

PEAK_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
WARM_UP = 3  # steps: kernels are chosen, compiled, and memory is allocated in the first


@dataclass(frozen=True, slots=True)
class Turn:
    """Holds one turn: seconds of a plain step, of a step as it is, of its OTAM; FLOP/s of the matmul."""

    plain: float
    ours: float
    alignment: float
    peak: float


def alignment_of(cfg: Config, options: StepOptions) -> Step:
    """Return the run's alignment, forward and backward, on random costs of a step's episodes."""
    return aligning(ALIGNMENTS[cfg.VIDEO.HEAD.OPTIONS["ALIGNMENT"]], options, choose_device(cfg.NUM_GPUS))


def aligning(distance: Callable[[Tensor], Tensor], options: StepOptions, device: torch.device) -> Step:
    """Return an alignment, forward and backward, on random costs [M, K, T, T] of a step's episodes."""
    shape = (options.way * options.query, options.way, options.frames, options.frames)
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()

    def step() -> None:
        for _ in range(options.episodes):
            distance(costs).sum().backward()

    return step


class Timer:
    """Times a work, which a turn calls for `least` seconds at least."""

    def __init__(self, work: Step, device: torch.device, least: float):
        self.work, self.device = work, device
        for _ in range(WARM_UP - 1):
            work()
        self.calls = max(1, math.ceil(least / seconds(work, device)))

    def seconds(self) -> float:
        """Return the mean seconds of one call in a turn."""
        return seconds(self.work, self.device, self.calls)


def _seconds(options: StepOptions, plain: bool, least: float, cpu_threads: int, scratch: Path) -> float:
    """Return the mean seconds of a step, over `least` seconds, in this process, which is that turn's own."""
    torch.set_num_threads(cpu_threads)
    cfg = configuration(options, PLAIN if plain else overrides(options), scratch)
    device, step = choose_device(cfg.NUM_GPUS), kept_step(cfg, options, plain)
    for _ in range(1 if device.type == "cpu" else WARM_UP - 1):
        step()
    return seconds_over(step, device, least)


# What operators are for, by parts of their names; the first that fits.
WORKS = {"convolutions": ("convolution",), "products": ("mm", "attention"), "batch and layer norms": ("norm",),
         "update": ("adam",), "pictures and sums between layers": ("add", "copy_", "cat", "pool", "fill_"),
         "activations": ("relu", "threshold", "clamp", "mul", "sigmoid", "gelu", "softmax")}


def _shares(options: StepOptions, cpu_threads: int, scratch: Path) -> dict[str, float]:
    """Return the percentages of a step's time on the CPU, as torch's profiler tells them, by what operators are for."""
    torch.set_num_threads(cpu_threads)
    step = kept_step(configuration(options, overrides(options), scratch), options, plain=False)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    found = dict.fromkeys([*WORKS, "all else"], 0.0)
    for event in profile.key_averages():
        work = next((work for work, parts in WORKS.items() if any(part in event.key.lower() for part in parts)),
                    "all else")
        found[work] += event.self_cpu_time_total
    return {work: 100 * time / sum(found.values()) for work, time in found.items()}


def share_rows(options: StepOptions, cpu_threads: int) -> list[Row]:
    """Return where the time of a step as it is goes."""
    with tempfile.TemporaryDirectory() as scratch:
        shares = alone(options, _shares, options, cpu_threads, Path(scratch))
    return [Row(f"of the step: {work}", "%", [share], NEITHER) for work, share in shares.items()]


def turns_of(options: StepOptions, *, repeats: int, least: float, peak_sizes: tuple[int, ...], cpu_threads: int,
             done: Done = silent) -> tuple[list[Turn], float]:
    """Measure `repeats` turns of `least` seconds of each way; return them, and the FLOP of a step."""
    with tempfile.TemporaryDirectory() as scratch, threads(cpu_threads):
        cfg, plain_cfg = (configuration(options, pairs, Path(scratch)) for pairs in (overrides(options), PLAIN))
        device, turns = choose_device(cfg.NUM_GPUS), []
        aligned = Timer(alignment_of(cfg, options), device, least / 10)
        for turn in range(repeats):
            plain, ours = (alone(options, _seconds, options, plain, least, cpu_threads, Path(scratch))
                           for plain in (True, False))  # one after the other: both at once need twice the memory
            turns.append(Turn(plain, ours, aligned.seconds(),
                              matmul_rate(options.precision, device, peak_sizes, least / 5)))
            done((turn + 1) / repeats)
        return turns, step_flops(plain_cfg, options)


def rows_of(turns: list[Turn], flops: float, clips: int) -> list[Row]:
    """Return the figures of speed; a value a turn."""
    rate = [flops / turn.ours for turn in turns]
    share = [100 * turn.alignment / turn.ours for turn in turns]
    return [
        Row("step, as it is against written plainly", "times", [turn.plain / turn.ours for turn in turns]),
        Row("share of the measured peak", "%", [100 * one / turn.peak for one, turn in zip(rate, turns, strict=True)]),
        Row("OTAM's share of the step", "%", share, LOWER),
        Row("step", "clips/s", [clips / turn.ours for turn in turns]),
        Row("step, written plainly", "clips/s", [clips / turn.plain for turn in turns]),
        Row("achieved", "TFLOP/s", [one / 1e12 for one in rate]),
        Row("peak: dense matmul", "TFLOP/s", [turn.peak / 1e12 for turn in turns], NEITHER),
        Row("work of a step", "TFLOP", [flops / 1e12], NEITHER),
    ]


def memory_rows(ours: float, plain: float, gpu: bool) -> list[Row]:
    """Return the figures of memory; `ours`, `plain`: bytes of a step as it is, and of a plain one."""
    kind = "of a GPU, allocated" if gpu else "resident, sampled"
    return [
        Row("peak memory, as it is against written plainly", "times", [ours / plain], LOWER),
        Row(f"peak memory ({kind})", "GiB", [ours / 2**30], LOWER),
        Row(f"peak memory, written plainly ({kind})", "GiB", [plain / 2**30], NEITHER),
    ]


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite: on a GPU 5-way 1-shot with 5 queries a class at bfloat16.

    On the CPU one thread: where another process takes a core, threads that wait for each other measure that process.
    """
    options = StepOptions()
    if torch.cuda.is_available():
        options = StepOptions(backbone="ViT-B/16", query=5, precision="bf16", compile=True, alignment="otam_triton",
                              device="cuda")
    return {**asdict(options), "cpu_threads": 1, "repeats": 3 if quick else 5, "least": 0.2 if quick else 1.0,
            "memory": True, "where": False, "peak_sizes": list(PEAK_SIZES[options.device])}


def measure(done: Done = silent, *, repeats: int, least: float, peak_sizes: list[int], cpu_threads: int,
            memory: bool = True, where: bool = False, **options: Any) -> list[Row]:
    """Return the rows of a step.

    Args:
        repeats: turns. least: seconds of each way in a turn. peak_sizes: of the matrices whose product is the peak.
        memory: measure it, too. where: also on what operators a step's time on the CPU is spent.
        options: of StepOptions.

    Raises:
        ConfigError, WeightsError: options that make no run. BenchmarkError: more threads than cores, too little memory.
    """
    if cpu_threads > cores():
        raise BenchmarkError(f"cpu_threads: expected at most {cores()}, the cores of this machine, found {cpu_threads}")
    chosen = StepOptions(**options)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            configuration(chosen, overrides(chosen), Path(scratch))  # wrong options are told before anything runs
        before = 0.3 if memory else 0.0
        bytes_of = [step_memory(chosen, plain=plain) for plain in (False, True) if memory]  # this process has none yet
        done(before)
        turns, flops = turns_of(chosen, repeats=repeats, least=least, peak_sizes=tuple(peak_sizes),
                                cpu_threads=cpu_threads, done=lambda share: done(before + (1 - before) * share))
    except torch.OutOfMemoryError as error:
        raise BenchmarkError(f"a training step of {chosen.clips} clips, as it is or written plainly, does not fit the "
                             f"GPU's memory; {LESS} ({error})") from error
    rows = rows_of(turns, flops, chosen.clips)
    rows += memory_rows(bytes_of[0], bytes_of[1], chosen.device == "cuda") if memory else []
    return rows + (share_rows(chosen, cpu_threads) if where else [])
