"""Cores and memory that `prepare.py check` uses on 2,000 short rendered files.

python runs/benchmarks/bench_check.py --data data/bench_check    (renders 20 classes x 100 clips there the first time)

Prints the check's own line (on a machine that does other things, too, read how many processes were at work: the cores
are shared), the machine's idle cores meanwhile, and the largest sum of the memory of its processes, shared pages
counted once (PSS).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import psutil  # noqa: E402

from datasets.demo.render import SPLITS, class_names, render_demo  # noqa: E402
from runs.benchmarks.ending import ending  # noqa: E402
from utils.command import command  # noqa: E402

CLASSES, CLIPS = 20, 100
PROJECT = """
NUM_GPUS: 0
TRAIN: {{DATASET_FEW: HMDB_few_shot, CLASS_NAME: {names}, VAL_CLASS_NAME: {names}}}
TEST: {{CLASS_NAME: {names}}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {data}, DECODER: {decoder}}}
"""


def _memory(process: psutil.Process) -> int:
    """Bytes of a process and its children; pages that they share count once (Linux), else each time."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            found = one.memory_full_info()
            total += getattr(found, "pss", found.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended between the two calls
            continue
    return total


def main() -> int:
    """One check in a process of its own; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the rendered videos")
    parser.add_argument("--decoder", default="decord")
    arguments = parser.parse_args()
    few = dict.fromkeys(SPLITS, 1)
    render_demo(arguments.data, clips_per_class={**few, "train": CLIPS}, max_classes={**few, "train": CLASSES})
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "project.yaml"
        project.write_text(PROJECT.format(names=json.dumps(class_names("train")[:CLASSES]),
                                          data=arguments.data.resolve(), decoder=arguments.decoder))
        idle, started, memory = psutil.cpu_times().idle, time.perf_counter(), 0
        command = [sys.executable, "runs/prepare.py", "check", "--cfg", project, "--splits", "train", "--out", scratch]
        check = psutil.Popen([str(part) for part in command], cwd=sys.path[0], stdout=subprocess.PIPE, text=True)
        with ending(check):
            while check.poll() is None:
                memory = max(memory, _memory(check))
                time.sleep(0.5)  # reading it costs the check time
            seconds = time.perf_counter() - started
            idle = (psutil.cpu_times().idle - idle) / seconds
            text = check.stdout.read()
    if check.returncode:
        sys.stdout.write(text)
        return check.returncode
    line = next(line for line in text.splitlines() if "files looked at" in line)
    sys.stdout.write(f"{line}\nidle meanwhile, start included: {idle:.2f} cores of {psutil.cpu_count()}; at most "
                     f"{memory / 1e6:.0f} MB in all\n")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
