"""Episodes a second that 2 gloo ranks train on two cores, one thread each, against one rank with one thread.

python runs/benchmarks/bench_ranks.py --data data/bench_ranks    (renders 8 classes x 12 clips there the first time)

Both train in turns, several times; a run's figure is the mean over its last 50 iterations at most, loading included, as
log.jsonl has it, and the median over the turns is printed. Ranks on the CPU pay where a step's work is large beside the
exchange of gradients: the tower here is a ViT of 4 layers and 192 channels at 112 pixels.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from datasets.synthetic import SPLITS, class_names, render_demo  # noqa: E402

CLASSES, CLIPS, SIZE = 8, 12, 112
TOWER = {"embed_dim": 128, "quick_gelu": True,
         "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 192, "head_width": 64, "patch_size": 16},
         "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1}}
PROJECT = """
NUM_GPUS: 0
LOG_PERIOD: {iterations}
TRAIN: {{DATASET_FEW: HMDB_few_shot, WAY: 5, SHOT: 1, QUERY_PER_CLASS: 2, NUM_TRAIN_TASKS: {iterations},
        NUM_VAL_TASKS: 1, NUM_TEST_TASKS: 1, VAL_FRE_ITER: {iterations}, BATCH_SIZE_PER_TASK: 4, CLASS_NAME: {train},
        VAL_CLASS_NAME: {val}}}
TEST: {{CLASS_NAME: {test}}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {data}, TRAIN_JITTER_SCALES: [128, 128], TEST_SCALE: 128,
       TRAIN_CROP_SIZE: {size}, TEST_CROP_SIZE: {size}}}
DATA_LOADER: {{NUM_WORKERS: 0}}
VIDEO: {{HEAD: {{BACKBONE_NAME: {tower}, BACKBONE_WEIGHTS: random}}}}
"""


def write_project(scratch: Path, data: Path, iterations: int) -> Path:
    """The project file."""
    tower, project = scratch / "tower.json", scratch / "project.yaml"
    tower.write_text(json.dumps(TOWER))
    names = {split: json.dumps(class_names(split)[:CLASSES]) for split in SPLITS}
    project.write_text(PROJECT.format(data=data, tower=tower, size=SIZE, iterations=iterations, **names))
    return project


def episodes_a_second(project: Path, ranks: int, output: Path) -> float:
    """Of one run, over its last 50 iterations at most."""
    subprocess.run([sys.executable, "runs/run.py", "--cfg", str(project), "NUM_PROCESSES", str(ranks), "OUTPUT_DIR",
                    str(output)], cwd=sys.path[0], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return ranks / next(r["seconds_an_iteration"] for r in records if r["kind"] == "train")


def main() -> int:
    """Print both figures and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the rendered videos")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    render_demo(arguments.data, clips_per_class=CLIPS, max_classes=dict.fromkeys(SPLITS, CLASSES))
    counts, found = (1, arguments.ranks), {1: [], arguments.ranks: []}
    with tempfile.TemporaryDirectory() as scratch:
        project = write_project(Path(scratch), arguments.data.resolve(), arguments.iterations)
        for turn in range(arguments.turns):
            for count in counts:
                found[count].append(episodes_a_second(project, count, Path(scratch) / f"{turn}_{count}"))
    one, many = (statistics.median(found[count]) for count in counts)
    ratios = ", ".join(f"{b / a:.2f}" for a, b in zip(*(found[count] for count in counts), strict=True))
    sys.stdout.write(f"one rank {one:.2f} episodes/s, {arguments.ranks} ranks {many:.2f}: {many / one:.2f} times "
                     f"(turn by turn {ratios})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
