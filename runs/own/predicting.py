"""Carries out the command predict: learn from clips or packs, answer, write."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from runs.own.actions import Actions, named_queries
from runs.own.calibration import Wishes
from runs.own.folders import read_actions
from runs.own.models import OwnModel, Source
from runs.own.outputs import as_csv, as_json, summary, table, write_outputs
from runs.own.pages import Drawn, drawn, write_page
from runs.own.recognizer import Recognizer, model_of_packs
from runs.own.reference import write_reference
from utils.command import printed
from utils.errors import OwnClipsError

PART = 3  # exit status: some videos could not be read


def source_of(parsed: argparse.Namespace) -> Source:
    """Return which model the options ask for."""
    return Source(parsed.checkpoint, parsed.cfg, parsed.weights, parsed.text == "on", parsed.scoring, parsed.device,
                  tuple(parsed.overrides))


def learned(parsed: argparse.Namespace) -> Actions:
    """Return the actions of the folder or the packs that the options name."""
    source = source_of(parsed)
    if parsed.support is not None:
        read_actions(parsed.support, parsed.none)  # a wrong folder is told before a model is fetched
    if parsed.pack:
        return model_of_packs(parsed.pack, source)[1]
    return Recognizer.of(source).learn(parsed.support, none=parsed.none, jobs=parsed.jobs, strict=parsed.strict)


def model_facts(model: OwnModel) -> dict[str, Any]:
    """Return what predictions.json says of the model."""
    return {"name": model.name, "weights_sha256": model.facts["weights"],
            "checkpoint": None if model.checkpoint is None else model.checkpoint.name,
            "trained_for_few_shots": model.trained, "frames": model.reading.frames, "scoring": model.scoring}


def predict(parsed: argparse.Namespace) -> int:
    """Learn, answer, write; returns the exit status. Raises FewShotError."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if parsed.reference:
        sys.stdout.write(f"written to {write_reference(Recognizer.of(source_of(parsed)).model)}\n")
        return 0
    wishes, paths = Wishes(parsed.keep, parsed.threshold, parsed.balance), named_queries(parsed.query)
    actions = learned(parsed)
    check = actions.check(wishes)
    said = summary(check, actions.model.name, str(parsed.support or ", ".join(map(str, parsed.pack))))
    (sys.stderr if parsed.format != "table" else sys.stdout).write(f"{said}\n")
    if parsed.save is not None:
        actions.save(parsed.save)
        sys.stderr.write(f"written to {parsed.save}\n")
    found: dict[Path, Drawn] = {}
    try:
        for path, answer, query in actions.answers(paths, wishes, parsed.timeline, parsed.jobs):
            found[path] = drawn(actions, path, answer, query if parsed.out is not None else None)
    finally:  # what is finished is written, whatever ends the command
        done = [found[path] for path in paths if path in found]
        answers = [one.answer for one in done]
        if parsed.out is not None:
            write_outputs(parsed.out, as_json(check, model_facts(actions.model), answers),
                          as_csv(answers, actions.names))
            write_page(parsed.out / "index.html", actions, check, done, parsed.support)
    if parsed.format == "json":
        printed(as_json(check, model_facts(actions.model), answers))
    elif parsed.format == "csv":
        printed(as_csv(answers, actions.names))
    elif answers:
        printed(f"\n{table(answers)}\n")
    unread = [answer for answer in answers if answer.error is not None]
    if answers and len(unread) == len(answers):
        raise OwnClipsError(f"none of the {len(unread)} videos can be read; the first: {unread[0].file}: "
                            f"{unread[0].error}")
    return PART if unread else 0

