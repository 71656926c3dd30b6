"""Prepares the works whose cost is looked at as one size grows: made of random numbers, so that no video is needed."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from datasets.annotations import check_classes, list_hash, missing_videos, read_split_list
from datasets.cache.index import Entry, FrameIndex
from datasets.cache.store import CacheRequest, open_frame_cache
from datasets.episodes import EpisodeSampler
from models.builder import FewShotModel
from models.heads.base import FeatureBatch, Scoring
from models.layers.alignment import otam_distance
from runs.benchmarks.timing import Work
from runs.evaluation.evaluate import Evaluation, StoredEpisodes, score_stored
from runs.evaluation.predictions import read_predictions, write_predictions
from runs.evaluation.summary import confusion_of, summarise, write_confusion
from runs.reporting.report import render_report
from utils.episode import VideoRecord, episodes_hash

WAY, QUERIES, FRAMES, CLASSES, SIZE = 5, 5, 8, 24, (256, 256)
LIST, EPISODES = 100_000, 2_000  # videos and episodes where they do not grow
MEANING = {  # what a report says beside its number; none of it costs anything
    "method": "random", "backbone": "none", "protocol": "clean", "data_set": "none", "split": "test", "way": WAY,
    "shot": 1, "query": 1, "frames": FRAMES, "temporal_draws": None, "episode_seed": 0, "transductive": False,
    "texts": None, "pretraining": "random", "list": "none", "lists": {"test": "none"}, "list_sha256": "0" * 64,
    "episodes_sha256": "0" * 64, "checkpoint": "none", "iteration": 0, "selected_on": "nothing",
    "selection_accuracy": 0.0, "seed": 0,
}


def listed(count: int, classes: int) -> list[VideoRecord]:
    """Return so many videos, of all classes in turn."""
    return [VideoRecord(str(number), number % classes, number + 1) for number in range(count)]


def reading(folder: Path) -> Callable[[int], Work]:
    """Prepare the start of a run by the number of videos: read and check a list, look for every video."""
    def prepare(videos: int) -> Work:
        path, names = folder / "test_few_shot.txt", {f"{number}.mp4" for number in range(videos)}
        path.write_text("".join(f"test{one.class_index}/{one.path}\n" for one in listed(videos, CLASSES)),
                        encoding="utf-8")

        def work() -> object:
            records = read_split_list(path, "test")
            check_classes(records, [str(k) for k in range(CLASSES)], 2, path)
            sampler = EpisodeSampler(records, split="test", seed=0, way=WAY, shot=1, query=1)
            return sampler, list_hash(path), missing_videos(lambda folder: names, records)

        return work

    return prepare


def drawing(videos: int, episodes: int) -> Work:
    """Prepare the drawing of episodes from a list."""
    sampler = EpisodeSampler(listed(videos, CLASSES), split="test", seed=0, way=WAY, shot=1, query=1)
    return lambda: episodes_hash(map(sampler.spec, range(episodes)))


def cache_opening(folder: Path, videos: int) -> Work:
    """Prepare the opening of a frame cache, which lists its index and compares every video with its file."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    index = FrameIndex(folder, write=True)
    index.set_meta(format=1, decoder="pyav", codec={"mode": "lossless"},
                   lists={"test": {"sha256": "0", "size": list(SIZE), "complete": True}})
    index.put([Entry(str(number), *SIZE, 1, 1, frames=1, fps=25.0, start=40 * number, length=40, checksum=1)
               for number in range(videos)])
    index.close()
    with (folder / "frames.bin").open("wb") as file:
        file.truncate(40 * videos)
    request = CacheRequest("test", "0", SIZE, "pyav", [str(number) for number in range(videos)], lambda path: (1, 1))
    return lambda: open_frame_cache(folder, request)


def an_evaluation(episodes: int, classes: int = CLASSES, videos: int = 2400) -> tuple[Evaluation, Any]:
    """Return an evaluation of random scores, one query of a class, and what stands for its split."""
    draw = np.random.default_rng(0)
    records = listed(max(videos, 2 * classes), classes)
    of_class = np.argsort([one.class_index for one in records], kind="stable").reshape(classes, -1)[:, :2]
    chosen = (draw.integers(0, classes, (episodes, 1)) + np.arange(WAY)) % classes
    labels = np.tile(np.arange(WAY), (episodes, 1))
    scores = {"nearness": draw.standard_normal((episodes, WAY, WAY), np.float32)}
    split = SimpleNamespace(class_names=tuple(f"class {k}" for k in range(classes)), records=records)
    kinds = {"nearness": Scoring("nearness", "nearness", "distance")}
    return Evaluation(scores, kinds, "nearness", labels, chosen, of_class[chosen, 0], of_class[chosen, 1]), split


def fresh(evaluation: Evaluation) -> Evaluation:
    """Return the same evaluation without what it keeps of earlier questions."""
    return replace(evaluation)


def summing(evaluation: Evaluation, split: Any) -> Work:
    """Prepare the content of results.json."""
    return lambda: summarise(fresh(evaluation), split, MEANING)


def reporting(evaluation: Evaluation, split: Any) -> Work:
    """Prepare the report of a test without examples."""
    results, counts = summarise(evaluation, split, MEANING), confusion_of(evaluation, split)
    return lambda: render_report(results, [], counts, split.class_names, [], {})


def confusing(folder: Path, evaluation: Evaluation, split: Any) -> Work:
    """Prepare the counting and writing of confusion.csv."""
    return lambda: write_confusion(folder / "confusion.csv", confusion_of(fresh(evaluation), split), split.class_names)


def predicting(folder: Path, evaluation: Evaluation, split: Any) -> tuple[Work, Work]:
    """Prepare the writing of predictions.parquet, and its reading."""
    path, origin = folder / "predictions.parquet", {"scoring": "nearness"}

    def write() -> None:
        write_predictions(path, fresh(evaluation), split, origin)

    def read() -> object:
        return read_predictions(path)

    write()
    return write, read


def ready_features(model: FewShotModel, rows: int, frames: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return random frames as the head keeps them of supports and of queries."""
    text_GD = model.text("test")
    assert text_GD is not None
    given = {"frames": torch.randn(rows, frames, model.head.dim, generator=torch.Generator().manual_seed(0))}
    with torch.inference_mode():
        return {"support": model.head.in_role(given, text_GD[torch.arange(rows) % len(text_GD)], "support"),
                "query": model.head.in_role(given, None, "query")}


def scoring(model: FewShotModel, episodes: int) -> Work:
    """Prepare the scoring of stored episodes."""
    features, draw = ready_features(model, CLASSES * 10, FRAMES), torch.Generator().manual_seed(0)
    support, query = (torch.randint(0, CLASSES * 10, shape, generator=draw)
                      for shape in ((episodes, WAY, 1), (episodes, QUERIES)))
    classes = torch.randint(0, CLASSES, (episodes, WAY), generator=draw)
    stored = StoredEpisodes(features["support"], features["query"], support, query, classes, [], model.text("test"),
                            torch.device("cpu"))
    return lambda: score_stored(model, stored, "growth")


def matching(model: FewShotModel, *, way: int = WAY, shot: int = 1, frames: int = FRAMES) -> Work:
    """Prepare the making of one episode's supports and queries from frames, and a head's match of them."""
    text_GD = model.text("test")
    assert text_GD is not None
    draw, classes = torch.Generator().manual_seed(0), torch.arange(way) % len(text_GD)
    of_support, of_query = ({"frames": torch.randn(rows, frames, model.head.dim, generator=draw)}
                            for rows in (way * shot, 25))

    @torch.inference_mode()
    def work() -> object:
        support = model.head.in_role(of_support, text_GD[classes.repeat_interleave(shot)], "support")
        query = model.head.in_role(of_query, None, "query")
        return model.head.match(FeatureBatch(
            {name: value.unflatten(0, (1, way, shot)) for name, value in support.items()},
            {name: value.unsqueeze(0) for name, value in query.items()}, text_GD[classes].unsqueeze(0)))

    return work


def aligning(*, queries: int = 25, way: int = WAY, frames: int = FRAMES) -> Work:
    """Prepare OTAM, forward and backward."""
    costs = torch.rand(queries, way, frames, frames, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return lambda: otam_distance(costs).sum().backward()


def spaced(least: int, most: int, count: int) -> list[int]:
    """Return whole numbers from least to most, evenly apart in their logarithms, each once."""
    steps = np.linspace(math.log(least), math.log(most), count)
    return list(dict.fromkeys(round(math.exp(step)) for step in steps))
