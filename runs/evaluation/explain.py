"""Choose a test's examples by a rule, explain them, and write its report."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.builder import FewShotModel
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.evaluation.summary import confusion_of
from runs.reporting.examples import MEASURES, Example, make_ways, pixels
from runs.reporting.report import write_report
from utils.episode import Episode
from utils.json_files import read_json
from utils.logging import read_records

_LOGGER = logging.getLogger(__name__)
MOST = 3  # right queries shown, and wrong ones


def choose(evaluation: Evaluation, most: int = MOST) -> list[tuple[int, int]]:
    """Return (episode, query) of the first right, then the first wrong queries in the order of the episodes, no true
    class twice among either: a rule, so that nobody picks the pictures."""
    correct, finite = evaluation.correct(), np.isfinite(evaluation.scores[evaluation.scoring]).all(axis=-1)
    chosen: list[tuple[int, int]] = []
    for wanted in (True, False):
        seen: dict[int, tuple[int, int]] = {}
        for episode, query in np.argwhere((correct == wanted) & finite):
            seen.setdefault(int(evaluation.true_EM[episode, query]), (int(episode), int(query)))
            if len(seen) == most:
                break
        chosen += seen.values()
    return chosen


@torch.inference_mode()
def explain(model: FewShotModel, evaluator: Evaluator, evaluation: Evaluation) -> list[Example]:
    """Return the chosen queries with their frames, and how the head says they meet the ways; decodes their episodes
    anew."""
    model.eval()
    examples = []
    episodes: dict[int, Episode] = {}  # of the one episode under way: consecutive examples may share it
    for number, query in choose(evaluation):
        if number not in episodes:
            episodes = {number: evaluator.split.dataset.part()[number].to(evaluator.device)}
        examples.append(_example(model, evaluator, evaluation, episodes[number], number, query))
    return examples


def _example(model: FewShotModel, evaluator: Evaluator, evaluation: Evaluation, episode: Episode, number: int,
             query: int) -> Example:
    """Return one query of a decoded episode as an example."""
    split, scoring, own = evaluator.split, evaluation.scoring, slice(query, query + 1)
    of_query, of_supports = (pixels(clips, split.pixels["mean"], split.pixels["std"])
                             for clips in (episode.query_MTCHW[query], episode.support_NTCHW))
    alone = replace(episode, query_MTCHW=episode.query_MTCHW[own], query_labels_M=episode.query_labels_M[own],
                    query_classes_M=episode.query_classes_M[own])
    labels_N = episode.support_labels_N.cpu().numpy()
    ways = make_ways([split.class_names[index] for index in episode.classes_K.tolist()],
                     [of_supports[labels_N == label] for label in range(episode.way)],
                     evaluation.scores[scoring][number, query], evaluation.scorings[scoring].kind,
                     model.head.explain(model.head.batch(alone, model.text(split.name))))
    return Example(number, split.records[evaluator.specs[number].query_M[query]].path, of_query,
                   int(episode.query_labels_M[query]), ways, MEASURES[evaluation.scorings[scoring].kind])


def report(model: FewShotModel, evaluator: Evaluator, evaluation: Evaluation, summary: Mapping[str, Any],
           output_dir: Path) -> None:
    """Write OUTPUT_DIR/report.html from the results, and from log.jsonl and run.json beside it."""
    split = evaluator.split
    examples: list[Example] = []
    try:
        examples = explain(model, evaluator, evaluation)
    except Exception as error:  # whatever a head's explain() or a video does, the results are there: show them
        _LOGGER.warning("report.html has no examples, as they could not be made: %s", error, exc_info=True)
    write_report(output_dir / "report.html", summary, read_records(output_dir / "log.jsonl"),
                 confusion_of(evaluation, split), split.class_names, examples, read_json(output_dir / "run.json") or {})
