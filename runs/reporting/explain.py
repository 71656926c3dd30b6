"""The report of a test: its examples are the first right and the first wrong queries, one a class."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runs.evaluation import summary as results
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.reporting.examples import Example, make_example, pixels
from runs.reporting.report import write_report
from utils.episode import Episode
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


def shares(scores: np.ndarray, scoring: str) -> torch.Tensor:
    """A query's scores as probabilities of the ways. [K]"""
    values = torch.from_numpy(np.asarray(scores, np.float64))
    return values.softmax(dim=-1) if scoring == "prototypes" else values / values.sum(dim=-1, keepdim=True)


@torch.inference_mode()
def explain(model: nn.Module, evaluator: Evaluator, evaluation: Evaluation) -> list[Example]:
    """The chosen queries with frames, costs and alignments; decodes their episodes anew, each once."""
    model.eval()
    head, split = model.head, evaluator.split
    found: dict[tuple[int, int], Example] = {}
    decoded: dict[int, tuple[Episode, Tensor]] = {}
    for number, query in choose(evaluation):
        if number not in decoded:
            episode = split.dataset.part()[number].to(evaluator.device)
            decoded = {number: (episode, head.prototypes(
                head.encode(episode.support_NTCHW), head.text(split.name)[episode.support_classes_N],
                episode.support_labels_N, episode.way))}
        found[number, query] = _example(head, evaluator, evaluation, (number, query), *decoded[number])
    return list(found.values())


def _example(head: nn.Module, evaluator: Evaluator, evaluation: Evaluation, place: tuple[int, int], episode: Episode,
             prototypes_KTD: Tensor) -> Example:
    """One query of a decoded episode; `place` is (episode, query)."""
    (number, query), split = place, evaluator.split
    clip = episode.query_MTCHW[query]
    frames = [pixels(clips, split.pixels["mean"], split.pixels["std"]) for clips in (clip, episode.support_NTCHW)]
    scores = evaluation.scores[evaluation.scoring][number, query]
    return make_example(
        query_TD=head.context2(head.encode(clip.unsqueeze(0)))[0], prototypes_KTD=prototypes_KTD,
        distance=head.distance, class_names=[split.class_names[index] for index in episode.classes_K.tolist()],
        true_label=int(episode.query_labels_M[query]), query_frames_THWC=frames[0], support_frames_NTHWC=frames[1],
        support_labels_N=episode.support_labels_N.cpu(), episode=number,
        query_video=split.records[episode.spec.query_M[query]].path,
        probabilities_K=shares(scores, evaluation.scoring))


def report(model: nn.Module, evaluator: Evaluator, evaluation: Evaluation, summary: Mapping[str, Any],
           output_dir: Path) -> Path:
    """Write OUTPUT_DIR/report.html."""
    split, path = evaluator.split, output_dir / "report.html"
    run_json = output_dir / "run.json"
    run = json.loads(run_json.read_text(encoding="utf-8")) if run_json.is_file() else None
    write_report(path, summary, read_records(output_dir / "log.jsonl"), results.confusion_of(evaluation, split),
                 split.class_names, explain(model, evaluator, evaluation), run=run)
    return path
