"""Made-up but lifelike content for the report's tests: rendered clips, features of a random tower, confusions."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from datasets.demo.scenes import COLOURS, MOTIONS, SHAPES, render_frames
from models.heads.base import Alignment
from models.layers.alignment import otam_distance, visiting_probabilities
from models.layers.similarity import cos_similarity
from runs.reporting.examples import Example, make_ways

NASTY = '<b>"Pouring" & \'spilling\' $x_1$ — naïve 茶</b><script>alert(1)</script>'
FRAMES = 8


def names_of(count: int, nasty: bool = True) -> list[str]:
    """Class names of the demo's kind; the second one is full of characters that a page must escape."""
    words = [f"a {c} {s} {m}" for s in SHAPES for m in MOTIONS for c in COLOURS]
    step = max(1, len(words) // count - 1)
    names = [words[i * step] for i in range(count)]
    if nasty and count > 1:
        names[1] = NASTY
    return names


def _clip(name: str, number: int) -> np.ndarray:
    """FRAMES frames of a rendered clip, uint8 [T, 96, 128, 3]; the nasty name shows a red ball bouncing."""
    colour, shape, motion = ("red", "ball", "rising") if name == NASTY else name.split(" ", 3)[1:]
    generator = np.random.default_rng([number, len(name), ord(colour[0])])
    return render_frames(colour, shape, motion, FRAMES, 96, 128, generator)


def _tower(clips: np.ndarray) -> torch.Tensor:
    """Random features of frames, centred so that their cosines spread. [..., T, H, W, 3] -> [..., T, 64]"""
    pixels = torch.tensor(clips).float().div(255).flatten(0, -4).movedim(-1, 1)
    small = F.adaptive_avg_pool2d(pixels, 12).flatten(1)
    weights = torch.randn(small.shape[1], 64, generator=torch.Generator().manual_seed(0))
    return ((small - small.mean(dim=0)) @ weights).reshape(*clips.shape[:-3], 64)


def example(number: int, names: list[str], way: int = 5, shot: int = 1, wrong: bool = False) -> Example:
    """An example whose features come from its pictures; `wrong`: the most distant class is called the true one."""
    chosen = [names[(number + k) % len(names)] for k in range(way)]
    supports = [np.stack([_clip(name, 100 * number + s) for s in range(shot)]) for name in chosen]
    query = _clip(chosen[0], 100 * number + 50)
    features = _tower(np.concatenate([query[None], *supports]))
    prototypes = features[1:].reshape(way, shot, FRAMES, -1).mean(dim=1)
    costs = 1 - cos_similarity(features[:1], prototypes)
    scores = -otam_distance(costs)
    alignment = Alignment(costs, visiting_probabilities(costs, otam_distance))
    return Example(17 * number, f"test{number}//videos/{chosen[0]}/{number:03d}.mp4", query,
                   int(scores.argmin() if wrong else scores.argmax()),
                   make_ways(chosen, supports, scores.numpy(), "distance", alignment), "distance")


def wilson(correct: int, queries: int) -> list[float]:
    """Wilson 95 % interval of a share."""
    z, p = 1.959964, correct / queries
    centre = (p + z * z / (2 * queries)) / (1 + z * z / queries)
    half = z * math.sqrt(p * (1 - p) / queries + (z / (2 * queries)) ** 2) / (1 + z * z / queries)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def confusion_of(classes: int, queries: int = 300) -> np.ndarray:
    """Counts [G, G] with a strong diagonal and a few favourite mistakes."""
    generator = np.random.default_rng(classes)
    skill = generator.uniform(0.35, 0.97, classes)
    rows = []
    for index in range(classes):
        shares = generator.gamma(0.25, size=classes)
        shares[index] = 0
        rows.append(generator.multinomial(queries, shares / shares.sum() * (1 - skill[index])
                                          + skill[index] * (np.arange(classes) == index)))
    return np.array(rows)


def results_of(names: list[str], confusion: np.ndarray, **changes) -> dict:
    """results.json of a test with these confusions."""
    accuracy = float(np.trace(confusion) / confusion.sum())
    figures = {"accuracy": accuracy, "interval95": 0.0089, "interval95_videos": [accuracy - 0.03, accuracy + 0.028],
               "ece": 0.0415}
    per_class = {}
    for index, name in enumerate(names):
        correct, queries = int(confusion[index, index]), int(confusion[index].sum())
        per_class[name] = {"accuracy": correct / queries, "correct": correct, "queries": queries,
                           "wilson95": wilson(correct, queries)}
    wrong = sorted(((int(confusion[i, j]), i, j) for i, j in np.argwhere(confusion) if i != j), reverse=True)[:7]
    return {
        "method": "CLIP-FSAR", "data_set": "demo <clips>", **figures, "scoring": "prototypes",
        "scorings": {"prototypes": {**figures, "title": "prototypes", "kind": "distance"},
                     "fused": {**figures, "accuracy": accuracy + 0.0123, "ece": 0.0312, "text_weight": 0.9,
                               "title": "fused with text", "kind": "probabilities"},
                     "text": {**figures, "accuracy": accuracy - 0.1, "ece": 0.2034, "title": "text only",
                              "kind": "probabilities"}},
        "episodes": 10000, "protocol": "upstream", "split": "test", "way": 5, "shot": 1, "query": 1, "frames": FRAMES,
        "temporal_draws": None, "seed": 1234567, "episode_seed": 0, "backbone": "RN50",
        "lists": {"train": "ssv2_full@67013", "val": "ssv2_full@1926", "test": "ssv2_full@2854"},
        "list_id": "ssv2_full@2854", "list_sha256": "ab" * 32, "episodes_sha256": "cd" * 32,
        "checkpoint": "output/a_rather_long_directory_name/checkpoints/checkpoint_best.pyth", "iteration": 4200,
        "selected_on": "val", "selection_accuracy": 0.8612, "bad_videos": 3,
        "transductive": False, "texts": "names", "pretraining": "CLIP, 400 M image-text pairs (OpenAI)",
        "top_confusions": [{"true": names[i], "predicted": names[j], "count": count,
                            "rate": count / int(confusion[i].sum())} for count, i, j in wrong],
        "per_class": per_class, **changes,
    }


def records_of(iterations: int = 5000, every: int = 10) -> list[dict]:
    """log.jsonl of a training; one loss was not finite, and other kinds of record lie between."""
    generator = np.random.default_rng(0)
    records: list[dict] = [{"kind": "start", "iteration": 0}]
    for step in range(every, iterations + 1, every):
        progress = step / iterations
        loss = 1.7 * math.exp(-3 * progress) + 0.35 + 0.06 * generator.normal()
        records.append({"kind": "train", "iteration": step, "loss": None if step == 5 * every else loss,
                        "accuracy": min(1.0, 0.3 + 0.6 * progress**0.5 + 0.03 * generator.normal()),
                        "lr": 1e-5 * min(1.0, 10 * progress) * math.cos(1.5 * progress)})
        if step % (iterations // 10) == 0:
            records.append({"kind": "validation", "iteration": step, "split": "val",
                            "accuracy": 0.35 + 0.5 * progress**0.5, "interval95": 0.021})
    return records


RUN = {
    "command": ["runs/run.py", "--cfg", "configs/projects/demo/CLIPFSAR_Demo_1shot.yaml", "OUTPUT_DIR", "a b"],
    "git_commit": "0123456789abcdef0123456789abcdef01234567+changes", "device": "cuda",
    "versions": {"python": "3.11.7", "torch": "2.4.0"},
    "config": {"TRAIN": {"WAY": 5, "CLASS_NAME": names_of(60)}, "OUTPUT_DIR": "a b", "SOLVER": {"BASE_LR": 1e-5}},
    "sources": {"TRAIN.WAY": "base.yaml", "SOLVER.BASE_LR": "demo.yaml"},
}


def content(classes: int = 12, examples: int = 8, shot: int = 1, **changes) -> dict:
    """Arguments of write_report but the path: every second example is wrong."""
    names, confusion = names_of(classes), confusion_of(classes)
    return {"results": results_of(names, confusion, shot=shot, **changes), "records": records_of(),
            "confusion_GG": confusion, "class_names": names,
            "examples": [example(k, names, shot=shot, wrong=k % 2 == 1) for k in range(examples)], "run": RUN}
