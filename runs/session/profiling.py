"""Where the time of training steps goes: python runs/run.py --cfg X.yaml --profile N"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from utils.errors import LaunchError
from utils.json_files import write_json
from utils.launch import choose_device
from utils.logging import setup_logging
from utils.phases import Recorder, recording
from utils.precision import set_tf32
from utils.seed import seed_everything
from utils.signals import under_launcher

REST = "the rest"
OPERATORS = 10  # rows of the table of operators


@dataclass(frozen=True, slots=True)
class Profile:
    """What was found.

    Args:
        steps, iterations: that were timed. seconds: they took, in all.
        phases: seconds of each phase, and of what lies in none.
        device: they ran on.
    """

    steps: int
    iterations: int
    seconds: float
    phases: dict[str, float]
    device: str

    def in_words(self) -> str:
        """A table."""
        each = self.seconds / self.iterations
        lines = [f"steps {self.steps}, iterations {self.iterations}, in one process on {self.device}: {each:.3f} s an "
                 "iteration"]
        lines += [f"  {name:<10} {seconds / self.seconds:7.1%}  {seconds / self.iterations:.4f} s"
                  for name, seconds in self.phases.items()]
        return "\n".join(lines)


class Stages:
    """Hooks of the loop: after a step to warm up, N steps are timed, then N steps are traced."""

    def __init__(self, steps: int, a_step: int, device: torch.device, directory: Path):
        self._steps, self._a_step, self._device, self._directory = steps, a_step, device, directory
        self._recorder, self._open, self._start = Recorder(device), ExitStack(), 0.0
        self.found: Profile | None = None
        self.operators = ""

    def after_pass(self, progress: Progress) -> None:
        """Called after every pass."""
        if progress.iteration == self._a_step:
            self._open.enter_context(recording(self._recorder))
            self._start = time.perf_counter()
        elif progress.iteration == (1 + self._steps) * self._a_step:
            seconds = time.perf_counter() - self._start
            phases = dict(self._recorder.seconds)
            self.found = Profile(self._steps, self._steps * self._a_step, seconds,
                                 {**phases, REST: seconds - sum(phases.values())}, str(self._device))
            self._open.enter_context(self._traced())

    def close(self, *_: object) -> None:
        """Called at the end."""
        self._open.close()

    @contextmanager
    def _traced(self) -> Iterator[None]:
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else the tracer reports on itself on the terminal
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])]
        with torch.profiler.profile(activities=kinds) as tracer:
            yield
        tracer.export_chrome_trace(str(self._directory / "trace.json.gz"))
        order = f"self_{'cuda' if self._device.type == 'cuda' else 'cpu'}_time_total"
        self.operators = tracer.key_averages().table(sort_by=order, row_limit=OPERATORS, max_name_column_width=40)


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
    options = replace(loop_options(cfg), iterations=total, validate_every=total)
    learner = Learner(model, optimizer_of(cfg, model), options, lambda _: "  (profile)", device)
    stages = Stages(steps, a_step, device, directory)
    train(learner, on_device(build_loader(cfg, split, stop=total), device), schedule_of(cfg),
          Hooks(validate=stages.close, after_pass=stages.after_pass, record=lambda _: None), Progress())
    if stages.found is None:
        raise LaunchError(f"--profile: expected {total} iterations to look at, found fewer episodes")
    _write(stages.found, stages.operators, directory)
    return stages.found


def _write(found: Profile, operators: str, directory: Path) -> None:
    """The table on the screen and as JSON, the picture."""
    write_json(directory / "profile.json", asdict(found))
    plot_phases(found, directory / "profile.png")
    sys.stdout.write(f"\n{operators}\n{found.in_words()}\nWritten to {directory}: profile.png, profile.json, "
                     f"and trace.json.gz, of {found.steps} more steps, for chrome://tracing or ui.perfetto.dev\n")


def plot_phases(found: Profile, path: Path) -> None:
    """Milliseconds an iteration by phase, as a PNG."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    values = [1000 * seconds / found.iterations for seconds in found.phases.values()]
    bars = axes.barh(list(found.phases), values, color="tab:blue")
    axes.bar_label(bars, [f"{seconds / found.seconds:.1%}" for seconds in found.phases.values()], padding=3)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds an iteration", title=f"{found.iterations} iterations on {found.device}")
    figure.savefig(path, dpi=110)
