"""Measure where the time of training steps goes: python runs/run.py --cfg X.yaml --profile N"""

import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.profiler import ProfilerActivity

from datasets.builder import build_loader
from datasets.device_loader import on_device
from models.builder import build_model
from runs.session.preflight import check_names, read_splits
from runs.training.loop import Hooks, Progress, train
from runs.training.setup import loop_options, optimizer_of, schedule_of
from runs.training.step import Learner
from utils.config.loader import Resolved
from utils.device import choose_device
from utils.errors import LaunchError
from utils.json_files import write_json
from utils.logging import setup_logging
from utils.phases import Recorder, recording
from utils.precision import set_tf32
from utils.seed import seed_everything
from utils.signals import under_launcher

REST = "the rest"
OPERATORS = 10  # rows of the table of operators


@dataclass(frozen=True, slots=True)
class Profile:
    """Holds where the time of some steps went.

    Args:
        steps, iterations: how many were timed. seconds: what they took in all. device: where they ran.
        phases: seconds of each phase, and of what lies in none.
    """

    steps: int
    iterations: int
    seconds: float
    phases: dict[str, float]
    device: str

    def in_words(self) -> str:
        """Return the profile as a table for the screen."""
        each = self.seconds / self.iterations
        lines = [f"steps {self.steps}, iterations {self.iterations}, in one process on {self.device}: {each:.3f} s an "
                 "iteration"]
        lines += [f"  {name:<10} {seconds / self.seconds:7.1%}  {seconds / self.iterations:.4f} s"
                  for name, seconds in self.phases.items()]
        return "\n".join(lines)


def profile(resolved: Resolved, steps: int) -> Profile:
    """Train a step to warm up, time `steps` more, and trace as many after them, in this process; nothing is validated
    or saved but OUTPUT_DIR/profile: trace.json.gz, profile.json, profile.png.

    Raises LaunchError: under a launcher, or fewer than one step; and what reading and training raise.
    """
    resolved = check_names(resolved)
    cfg = resolved.config
    if steps < 1:
        raise LaunchError(f"--profile: expected one step or more, found {steps}")
    if not cfg.TRAIN.ENABLE:
        raise LaunchError("--profile: expected TRAIN.ENABLE true, as steps of a training are looked at, found false")
    if under_launcher():
        raise LaunchError("--profile looks at one process: start it without torchrun")
    device = choose_device(min(cfg.NUM_GPUS, 1))
    set_tf32(False)
    directory = Path(cfg.OUTPUT_DIR) / "profile"
    setup_logging(directory, "profile.log")
    a_step = cfg.TRAIN.BATCH_SIZE_PER_TASK
    total = (1 + 2 * steps) * a_step
    split = read_splits(cfg)["train"]
    seed_everything(cfg.RANDOM_SEED)
    model = build_model(cfg).to(device)
    optimizer, progress, recorder = optimizer_of(cfg, model), Progress(), Recorder(device)
    episodes, schedule = iter(on_device(build_loader(cfg, split, stop=total), device)), schedule_of(cfg)

    quiet = Hooks(validate=lambda _: None, after_pass=lambda _: None, record=lambda _: None)

    def train_until(iteration: int) -> None:
        options = replace(loop_options(cfg), iterations=iteration, validate_every=total)
        learner = Learner(model, optimizer, options, lambda _: "  (profile)", device)
        train(learner, episodes, schedule, quiet, progress)

    train_until(a_step)
    start = time.perf_counter()
    with recording(recorder):
        train_until((1 + steps) * a_step)
    seconds = time.perf_counter() - start
    phases = {**recorder.seconds, REST: seconds - sum(recorder.seconds.values())}
    measured = Profile(steps, steps * a_step, seconds, phases, str(device))
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else the tracer reports on itself on the terminal
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with recording(Recorder(device)), torch.profiler.profile(activities=kinds) as tracer:
        train_until(total)
    _write(measured, tracer, directory)
    return measured


def _write(measured: Profile, tracer: torch.profiler.profile, directory: Path) -> None:
    """Write the table on the screen and as JSON, the picture, and the trace."""
    tracer.export_chrome_trace(str(directory / "trace.json.gz"))
    order = f"self_{torch.device(measured.device).type}_time_total"
    operators = tracer.key_averages().table(sort_by=order, row_limit=OPERATORS, max_name_column_width=40)
    write_json(directory / "profile.json", asdict(measured))
    plot_phases(measured, directory / "profile.png")
    sys.stdout.write(f"\n{operators}\n{measured.in_words()}\nWritten to {directory}: profile.png, profile.json, "
                     f"and trace.json.gz, of {measured.steps} more steps, for chrome://tracing or ui.perfetto.dev\n")


def plot_phases(measured: Profile, path: Path) -> None:
    """Draw the milliseconds that each phase takes of an iteration, as a PNG."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(measured.phases), [1000 * s / measured.iterations for s in measured.phases.values()])
    axes.bar_label(bars, [f"{s / measured.seconds:.1%}" for s in measured.phases.values()], padding=3)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds an iteration", title=f"{measured.iterations} iterations on {measured.device}")
    figure.savefig(path, dpi=110)
