"""Carries out the command export: learn or load, write, prove; what is not proved does not get its name."""

import argparse
import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from runs.own.actions import Actions
from runs.own.calibration import AS_USUAL, Wishes
from runs.own.clips import read_clips
from runs.own.export.bundle import (
    ACTIONS,
    CHECK,
    RECOGNISE,
    RUNNER,
    examples_of,
    exportable,
    facts_of,
    parts_of,
    whole_folder,
    write_actions,
    write_facts,
)
from runs.own.export.modules import check_installed, write_part
from runs.own.export.proof import NOISE_BATCHES, TOLERANCE, Proof, load_runner, prove, prove_clips, torch_runtime
from runs.own.export.quantized import Change, measured, write_int8
from runs.own.folders import read_actions
from runs.own.predicting import learned
from utils.command import printed
from utils.errors import ExportError, VideoDecodeError
from utils.feature_file import scratch


@dataclass(frozen=True, slots=True)
class Forms:
    """Says what is written beside the usual files: 8-bit weights, fixed sizes in place of free ones, torch.export."""

    int8: bool = False
    static: bool = False
    pt2: bool = False


AS_IT_IS = Forms()


def read_again(actions: Actions, folder: Path, none: str, jobs: int | None, scratch_in: Path
               ) -> tuple[list[Path], Tensor]:
    """Return where the examples lie, in the order of `actions.clips`, and their pictures, [N, T, 3, S, S].

    It is done before the runner's threads are there: the processes that read videos are forked from this one.

    Raises VideoDecodeError: one cannot be read any more.
    """
    found = {f"{name}/{path.name}": path for name, own in read_actions(folder, none).actions.items() for path in own}
    paths = [found[one.clip.name] for one in actions.clips]
    reading = actions.model.reading
    pictures = scratch((len(paths), reading.frames, 3, reading.pixels.crop, reading.pixels.crop), scratch_in)
    for path, clip in read_clips(paths, reading, jobs, "reading again"):
        if isinstance(clip, VideoDecodeError):
            raise clip
        pictures[paths.index(path)] = clip.pixels
    return paths, pictures


def export_bundle(actions: Actions, out: Path, wishes: Wishes = AS_USUAL, forms: Forms = AS_IT_IS,
                  support: tuple[Path, str, int | None] | None = None) -> tuple[Proof, Change | None]:
    """Write a bundle and prove it; returns what was compared, and what 8-bit weights change.

    Args:
        actions: of a model on the CPU. support: their folder, the name of that of none, and processes that decode;
            None: no pictures are compared, but for noise.

    Raises ExportError: the head, the scoring or the tower cannot be exported, or the bundle gives other numbers than
    torch; DiskError. Then nothing is left.
    """
    made = exportable(actions)
    examples = examples_of(actions.matcher, made)
    with whole_folder(out) as part:
        clips = None if support is None else read_again(actions, *support, part.parent)
        references = examples.references(torch_runtime(made))
        for one in parts_of(actions, made, len(references), forms.static):
            write_part(one, part, forms.pt2)
        if forms.int8:
            write_int8(part)
        write_actions(actions, references, part / ACTIONS)
        shutil.copyfile(RECOGNISE, part / RUNNER)
        facts = facts_of(actions, examples, made, wishes, forms.static)
        write_facts(part, facts)
        runner = load_runner(part)
        bundle = runner.Bundle(part)
        proof = prove(actions, examples, made, bundle, forms.static)
        if clips is not None:
            prove_clips(proof, actions, bundle, *clips)
        if not proof.holds:
            raise ExportError(f"{out}: the bundle gives other numbers than torch, so it is not kept. Largest "
                              f"differences: {proof} (at most {TOLERANCE:g} and no other answer are allowed)")
        change = None
        if forms.int8:
            change = measured(bundle, runner.Bundle(part, int8=True), actions.model.reading.pixels.crop,
                              None if clips is None else clips[1].numpy(), examples, actions.held_out.clips_n)
        (part / CHECK).write_text(check_text(proof, change, forms, facts), encoding="utf-8")
    return proof, change


def check_text(proof: Proof, change: Change | None, forms: Forms, facts: dict[str, Any]) -> str:
    """Say what was compared with what, for CHECK.txt."""
    noise = ", ".join(map(str, NOISE_BATCHES))
    lines = [f"This bundle was compared with torch {facts['versions']['torch']} by its own runner, recognise.py, on "
             f"onnxruntime {facts['versions']['onnxruntime']}.",
             f"Compared: features of {noise} frames of noise; references, distances and held-out answers from the "
             f"features of {proof.clips} examples; " + (
                 f"{proof.read} examples read again from their files." if proof.read else
                 "no example itself, as a pack holds no pictures."),
             *(["Its sizes are fixed. Where it has a modulator, that takes one query at a time, so the references were "
                "made by torch alone."] if forms.static else []),
             f"Largest absolute differences (allowed: {TOLERANCE:g}):",
             *(f"  {kind}: {value:.2e}" for kind, value in proof.differences.items()),
             f"Answers of held-out clips that differ: {proof.changed} of {proof.held_out}."]
    return "\n".join([*lines, *([str(change)] if change is not None else [])]) + "\n"


def export(parsed: argparse.Namespace) -> int:
    """Learn, write, prove; returns the exit status. Raises FewShotError."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    check_installed()
    if parsed.device not in ("auto", "cpu"):
        raise ExportError(f"--device: expected cpu, on which a bundle is written and proved, found {parsed.device!r}")
    parsed.device = "cpu"
    actions = learned(parsed)
    support = None if parsed.support is None else (parsed.support, parsed.none, parsed.jobs)
    proof, change = export_bundle(actions, parsed.out, Wishes(parsed.keep, parsed.threshold),
                                  Forms(parsed.int8, parsed.static, parsed.pt2), support)
    size = sum(path.stat().st_size for path in parsed.out.iterdir()) / 2**20
    printed(f"{parsed.out}: {len(actions.names)} actions, {size:.1f} MiB; equal to torch: largest differences {proof}\n"
            + (f"{change}\n" if change is not None else "")
            + f"python {parsed.out / RUNNER} VIDEO ...   (needs numpy, onnxruntime and av)\n")
    return 0
