"""The report of a test: its examples are the first right and the first wrong queries, one a class."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.builder import FewShotModel
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.evaluation.summary import confusion_of
from runs.reporting.examples import Example, QueryPictures, make_example, pixels
from runs.reporting.report import write_report
from utils.episode import Episode
from utils.json_files import read_json
from utils.logging import read_records

MOST = 3  # right queries shown, and wrong ones


def choose(evaluation: Evaluation, most: int = MOST) -> list[tuple[int, int]]:
    """(episode, query) of the first right, then the first wrong queries in the order of the episodes, no true class
    twice among either: a rule, so that nobody picks the pictures."""
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
    """The chosen queries with their frames, and how the head says they meet; decodes their episodes anew, each once."""
    model.eval()
    decoded: dict[int, Episode] = {}
    found = []
    for number, query in choose(evaluation):
        if number not in decoded:
            decoded = {number: evaluator.split.dataset.part()[number].to(evaluator.device)}
        found.append(_example(model, evaluator, evaluation, (number, query), decoded[number]))
    return found


def _example(model: FewShotModel, evaluator: Evaluator, evaluation: Evaluation, chosen: tuple[int, int],
             episode: Episode) -> Example:
    """One query of a decoded episode; `chosen` is (episode, query)."""
    (number, query), split = chosen, evaluator.split
    clip, spec = episode.query_MTCHW[query], evaluator.specs[number]
    of_query, of_supports = (pixels(clips, split.pixels["mean"], split.pixels["std"])
                             for clips in (clip, episode.support_NTCHW))
    pictures = QueryPictures(of_query, of_supports, episode.support_labels_N.cpu().numpy(), number,
                             split.records[spec.query_M[query]].path)
    own = slice(query, query + 1)
    alone = replace(episode, query_MTCHW=episode.query_MTCHW[own], query_labels_M=episode.query_labels_M[own],
                    query_classes_M=episode.query_classes_M[own])
    scoring, alignment = evaluation.scoring, model.head.explain(model.head.batch(alone, model.text(split.name)))
    return make_example(
        pictures, [split.class_names[index] for index in episode.classes_K.tolist()],
        int(episode.query_labels_M[query]), evaluation.scores[scoring][number, query],
        evaluation.scorings[scoring].kind, alignment)


def report(model: FewShotModel, evaluator: Evaluator, evaluation: Evaluation, summary: Mapping[str, Any],
           output_dir: Path) -> Path:
    """Write OUTPUT_DIR/report.html."""
    split, path = evaluator.split, output_dir / "report.html"
    write_report(path, summary, read_records(output_dir / "log.jsonl"), confusion_of(evaluation, split),
                 split.class_names, explain(model, evaluator, evaluation), run=read_json(output_dir / "run.json"))
    return path
