"""Run every benchmark, or one, and say what has changed since an earlier run.

python runs/benchmarks/run.py --out output/benchmarks.json
python runs/benchmarks/run.py --compare OLD.json [--strict]         (measures, then compares)
python runs/benchmarks/run.py --read NEW.json --compare OLD.json    (measures nothing)
python runs/benchmarks/run.py step --backbone RN50                  (one of the commands below, with its own settings)

Videos are rendered under --data the first time. A row's figure is the median of its repeats. --compare flags changes
over 5 % (--threshold) that lie outside the spread of the repeats of both runs; others over 5 % are "within noise". On
another machine only ratios ("times", "%") are judged, with other settings nothing.
"""

import argparse
import sys
from pathlib import Path

COMMANDS = {
    "decode": ("clips a second from each decoder and from frame caches of the same videos",
               "python runs/benchmarks/run.py decode --clips 60"),
    "kinds": ("clips a second of `auto` beside decord and torchcodec on each kind of file; not part of the suite",
              "python runs/benchmarks/run.py kinds --keyframes 250"),
    "loader": ("how much of the loading two workers hide while the model works",
               "python runs/benchmarks/run.py loader --episodes 12 --turns 2"),
    "alignment": ("OTAM against a cell-by-cell loop, with a GPU also its kernels against the plain code",
                  "python runs/benchmarks/run.py alignment --repeats 20"),
    "step": ("a training step against the same step written plainly",
             "python runs/benchmarks/run.py step --backbone ViT-B/16 --query 5 --precision bf16 --compile"),
    "encode": ("encoding clips on a CPU, as an evaluation does it against the head as it is",
               "python runs/benchmarks/run.py encode --backbones RN50 --cpu-threads 2 --rivals"),
    "evaluation": ("stored features against episode by episode",
                   "python runs/benchmarks/run.py evaluation --classes 24 --clips 100 --episodes 10000"),
    "ranks": ("episodes a second by number of ranks", "python runs/benchmarks/run.py ranks --turns 2"),
    "gpu": ("everything that a GPU is needed for, with its goals, in ten minutes; not part of the suite",
            "python runs/benchmarks/run.py gpu --minutes 10 --out output/gpu.json"),
    "heads": ("each head beside its tower: training step, scoring of episodes; not part of the suite",
              "python runs/benchmarks/run.py heads --heads CNN_TRX CNN_OTAM --episodes 1000"),
    "own": ("own clips: learning again, adding one, timelines, imports; not part of the suite",
            "python runs/benchmarks/run.py own --backbone RN50"),
    "export": ("an exported tower against torch, one thread each; not part of the suite",
               "python runs/benchmarks/run.py export --backbones RN50 ViT-B/16"),
    "growth": ("how cost grows with videos, episodes, ways, shots, frames, classes; not part of the suite",
               "python runs/benchmarks/run.py growth --largest 100000 --strict"),
    "start": ("a run until its first episode is there, beside `import torch`; not part of the suite",
              "python runs/benchmarks/run.py start --turns 4"),
    "check": ("cores and memory of `prepare.py check`; not part of the suite",
              "python runs/benchmarks/run.py check --decoder pyav"),
}


def load(name: str) -> object:
    """Return the command of one benchmark; `gpu` is one with a table and a record of its own."""
    if name == "gpu":
        from runs.benchmarks import gpu

        return gpu
    from runs.benchmarks.suite import BENCHMARKS, Single

    return Single(name, BENCHMARKS[name])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the suite."""
    from runs.benchmarks.arguments import not_negative
    from runs.benchmarks.comparing import THRESHOLD
    from runs.benchmarks.suite import SUITE, names

    parser.add_argument("--only", type=names, default=list(SUITE), metavar="NAME,...", help=", ".join(SUITE))
    parser.add_argument("--quick", action="store_true", help="small settings: whether everything runs, not how fast")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where rendered videos lie (default: data)")
    parser.add_argument("--out", type=Path, default=Path("output/benchmarks.json"), metavar="FILE.json",
                        help="default: output/benchmarks.json")
    parser.add_argument("--read", type=Path, metavar="NEW.json", help="take this file's figures, measure nothing")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="flag what has changed since")
    parser.add_argument("--threshold", type=not_negative, default=THRESHOLD, metavar="PERCENT", help="default: 5")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where --compare finds something worse, "
                        "or nothing that it can judge")


def run(parsed: argparse.Namespace) -> int:
    """Run the suite, or read a record of it, and compare; 1 where a benchmark gave no figures, or --strict says so."""
    from runs.benchmarks.suite import suite

    return suite(parsed)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where the other commands lie, and what starts them
    from clip_fsar import start

    start("benchmark")
