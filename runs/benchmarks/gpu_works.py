"""What runs/benchmarks/gpu.py measures: each function returns the rows of one work, on a GPU or, tiny, on the CPU."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from datasets.builder import build_loader, build_split
from datasets.decoding import open_video
from datasets.device_loader import on_device
from models.encoders.clip import tower_config
from models.layers.alignment import otam_distance
from runs.benchmarks import bench_heads, bench_ranks
from runs.benchmarks.bench_step import Timer, aligning
from runs.benchmarks.hardware import matmul_rate, peak_memory
from runs.benchmarks.long_clips import render_long_clip
from runs.benchmarks.rows import LOWER, NEITHER, Row
from runs.benchmarks.steps import (
    PLAIN,
    StepOptions,
    as_it_is,
    configuration,
    overrides,
    random_episodes,
    step_flops,
    step_of_a_run,
    tower_name,
    written_plainly,
)
from runs.benchmarks.timing import seconds, wait_for
from utils.config import resolve_config
from utils.config.layers import REPOSITORY
from utils.cores import cores
from utils.device import choose_device
from utils.errors import BenchmarkError

MS, TFLOPS, SHARE, GIB = "ms an episode", "TFLOP/s", "of the dense bf16 rate", "peak memory"  # ends of rows' names
KERNELS = "otam_triton"  # VIDEO.HEAD.ALIGNMENT with the Triton kernels
_PLAIN = partial(otam_distance, backend="plain")
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": _PLAIN, "Triton": partial(otam_distance, backend="triton"), "compiled": _PLAIN}
DRAWN = 3  # files that are rendered; the list has copies of them


@dataclass(frozen=True, slots=True)
class Effort:
    """Says how long is measured.

    Args:
        repeats: turns. least: seconds of each turn. peak_sizes: of the matrices whose product is the card's rate.
        episodes: that are loaded. seconds: of a rendered clip. workers: of the loader.
    """

    repeats: int = 3
    least: float = 0.5
    peak_sizes: tuple[int, ...] = (4096, 8192)
    episodes: int = 8
    seconds: int = 10
    workers: int = min(16, max(1, cores() - 1))


QUICK = Effort(repeats=1, least=0.01, peak_sizes=(64,), episodes=2, seconds=1, workers=0)


def gpu_tests() -> list[Row]:
    """Run the suite's tests that are marked `gpu`. Raises BenchmarkError where pytest tells no result."""
    files = [str(path) for path in sorted((Path(REPOSITORY) / "tests").rglob("test_*.py"))
             if "mark.gpu" in path.read_text(encoding="utf-8")]
    with tempfile.TemporaryDirectory() as scratch:
        told = Path(scratch) / "tests.xml"
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
                               f"--junitxml={told}", *files], cwd=REPOSITORY, capture_output=True, text=True)
        if not told.is_file():
            raise BenchmarkError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}")
        cases = list(ElementTree.parse(told).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    if failed:
        sys.stderr.write(done.stdout[-10_000:])
    counts = {"passed": len(cases) - len(failed) - len(skipped), "skipped": len(skipped), "failed": len(failed)}
    return [*(Row(name, "tests", [float(count)], NEITHER if name == "passed" else LOWER)
              for name, count in counts.items()),
            *(Row(f"failed: {case.get('classname')}.{case.get('name')}", "tests", [1.0], LOWER) for case in failed)]


def rates(device: str, effort: Effort) -> list[Row]:
    """Return the card's rate of dense matrix products in each precision."""
    return [Row(f"dense matmul, {precision}", "TFLOP/s", [
        matmul_rate(precision, torch.device(device), effort.peak_sizes, effort.least) / 1e12
        for _ in range(effort.repeats)], NEITHER) for precision in ("bf16", "tf32", "fp32")]


@cache
def _flops(options: StepOptions) -> float:
    """Return the work of one episode, which is the same however it is computed; see steps.step_flops."""
    with tempfile.TemporaryDirectory() as scratch:
        return step_flops(configuration(options, PLAIN, Path(scratch)), options)


def _require_kernels(device: torch.device) -> None:
    """Raise an error where the Triton kernels do not run: a step would take the plain code in their place."""
    if device.type != "cuda":
        raise BenchmarkError("the Triton kernels run on a GPU only")
    otam_distance(torch.zeros(1, 2, 2, device=device), backend="triton")


def way_of_a_step(options: StepOptions, plain: bool, effort: Effort) -> list[Row]:
    """Return a training step's time, its rate, that rate's share of the card's dense bf16 rate, and its memory.

    The matrix product is timed beside each turn. Raises ConfigError, CompileError, AlignmentBackendError, and whatever
    a GPU says.
    """
    flops = _flops(StepOptions(backbone=options.backbone, way=options.way, shot=options.shot, query=options.query,
                               frames=options.frames, size=options.size))
    torch._dynamo.reset()
    with tempfile.TemporaryDirectory() as scratch:
        cfg = configuration(options, PLAIN if plain else overrides(options), Path(scratch))
        device = choose_device(cfg.NUM_GPUS)
        if options.alignment == KERNELS:
            _require_kernels(device)
        step = (written_plainly if plain else as_it_is)(cfg, random_episodes(options, cfg))
        timer = Timer(step, device, effort.least)
        turns = [(timer.seconds() / options.episodes, matmul_rate("bf16", device, effort.peak_sizes, effort.least / 5))
                 for _ in range(effort.repeats)]
        memory = peak_memory(step, device)
    return [Row(MS, "ms", [1e3 * taken for taken, _ in turns], LOWER),
            Row(TFLOPS, "TFLOP/s", [flops / taken / 1e12 for taken, _ in turns]),
            Row(SHARE, "%", [100 * flops / taken / peak for taken, peak in turns]),
            Row(GIB, "GiB", [memory / 2**30], LOWER)]


def alignment(form: str, options: StepOptions, effort: Effort) -> list[Row]:
    """Return the time of an episode's OTAM, forward and backward, in one form: plain, Triton, or compiled."""
    device = torch.device(options.device)
    if form == "Triton":
        _require_kernels(device)
    distance = torch.compile(FORMS[form]) if form == "compiled" else FORMS[form]
    timer = Timer(aligning(distance, options, device), device, effort.least)
    return [Row(MS, "ms", [1e3 * timer.seconds() for _ in range(effort.repeats)], LOWER)]


def _clips(data: Path, options: StepOptions, effort: Effort) -> None:
    """Render the clips of a train list, of which an episode takes all."""
    data.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(options.way * (options.shot + options.query)):
        path, drawn = (data / f"{effort.seconds}s_{n:03d}.mp4" for n in (number, number % DRAWN))
        render_long_clip(drawn, number % DRAWN, effort.seconds)
        if not path.is_file():
            shutil.copyfile(drawn, path)
        lines.append(f"train{number % options.way}//{path.name}\n")
    (data / "train_few_shot.txt").write_text("".join(lines), encoding="utf-8")


def decoding(decoder: str, data: Path, options: StepOptions, effort: Effort) -> list[Row]:
    """Return how many clips a second a decoder opens and reads. Raises LaunchError where it is not installed."""
    _clips(data, options, effort)

    def read() -> None:
        clip = open_video(data / f"{effort.seconds}s_000.mp4", decoder)
        clip.frames(np.linspace(0, clip.num_frames - 1, options.frames).astype(int))
        clip.close()

    read()
    return [Row("in one process", "clips/s", [1 / seconds(read) for _ in range(effort.repeats)])]


def loading(use_gpu: bool, data: Path, options: StepOptions, effort: Effort) -> list[Row]:
    """Return the time of an episode from the loader, alone and in training, and how much of training is lost to it.

    Args:
        use_gpu: AUGMENTATION.USE_GPU; else workers decode and transform.
    """
    _clips(data, options, effort)
    pairs = {"DATA.DATA_ROOT_DIR": data, "DATA.ANNO_DIR": data, "TRAIN.DATASET_FEW": "HMDB_few_shot",
             "AUGMENTATION.USE_GPU": str(use_gpu).lower(), "DATA_LOADER.NUM_WORKERS": effort.workers,
             "DATA_LOADER.PIN_MEMORY": "true", "DATA.TRAIN_JITTER_SCALES": "[256, 256]"}
    with tempfile.TemporaryDirectory() as scratch:
        cfg = configuration(options, [*overrides(options), *(str(one) for pair in pairs.items() for one in pair)],
                            Path(scratch))
        device, split, step = choose_device(cfg.NUM_GPUS), build_split(cfg, "train"), step_of_a_run(cfg)

        def through(work: Callable[..., object]) -> float:
            """Return the seconds of an episode but the first, for which workers start."""
            episodes = iter(on_device(build_loader(cfg, split, stop=effort.episodes + 1), device))
            work([next(episodes)])
            wait_for(device)
            start = time.perf_counter()
            for episode in episodes:
                work([episode])
            wait_for(device)
            return (time.perf_counter() - start) / effort.episodes

        (ready,) = islice(on_device(build_loader(cfg, split, stop=1), device), 1)
        alone, trained = through(lambda _: None), through(step)
        kept = seconds(lambda: step([ready]), device, effort.episodes)
    return [Row("loading alone", "ms an episode", [1e3 * alone], LOWER),
            Row("training from the loader", "ms an episode", [1e3 * trained], LOWER),
            Row("training on an episode that is there", "ms an episode", [1e3 * kept], LOWER),
            Row("training lost to waiting for data", "%", [100 * (1 - kept / trained)], LOWER),
            Row("workers", "processes", [float(effort.workers)], NEITHER)]


def scoring(backbone: str, sizes: bench_heads.Sizes, device: str) -> list[Row]:
    """Return the time of evaluating episodes of 5 ways and one shot from ready features of a tower's width.

    Args:
        sizes: episodes, classes and clips of the test; the size of the pictures is the tower's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tower = tower_name(backbone, Path(scratch))
        sizes = replace(sizes, size=tower_config(tower)["vision_cfg"]["image_size"])
        project = bench_heads.write_project(Path(scratch), sizes.classes, sizes.clips, sizes.size)
        name = resolve_config(project, []).config.VIDEO.HEAD.NAME
        return bench_heads.scoring_rows(project, name, sizes, ["VIDEO.HEAD.BACKBONE_NAME", tower],
                                        torch.device(device))


def two_ranks(data: Path, device: str, iterations: int) -> list[Row]:
    """Return the episodes a second of one and of two ranks, a GPU each. Raises BenchmarkError with fewer GPUs."""
    if device != "cuda":
        raise BenchmarkError("no GPU")
    if (count := torch.cuda.device_count()) < 2:
        raise BenchmarkError("one GPU")
    return bench_ranks.measure(data, counts=[1, 2], gpus=count, turns=1, iterations=iterations)
