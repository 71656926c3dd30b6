"""Carry out one run of a resolved configuration: set up, train, test the best, write results."""

import logging
import shutil
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from datasets.builder import SplitData, build_split
from models.builder import FewShotModel, build_model
from models.layers.batch_norm import over_ranks
from runs.evaluation.evaluate import Evaluator
from runs.evaluation.identity import list_name
from runs.reporting.run_record import write_run as write_run_record
from runs.session.preflight import check_names, check_store, read_splits, shared_videos
from runs.training.complexity import complexity_line, parameter_counts
from runs.training.driver import Trainer, videos_of
from runs.training.setup import keep_memory, loop_options, optimizer_of, schedule_of
from runs.training.state import TrainingParts, find_best, keep_best, training_differences, training_finished
from runs.training.step import Learner
from utils import checkpoint
from utils.collecting import uncollected
from utils.config.loader import Resolved
from utils.config.schema import Config
from utils.config.show import describe_notes
from utils.device import choose_device
from utils.distributed import ALONE, Ranks
from utils.errors import CheckpointError, ConfigError
from utils.json_files import read_json
from utils.lock import output_lock
from utils.logging import setup_logging
from utils.precision import set_tf32
from utils.seed import seed_everything
from utils.signals import Stopped, number_of

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """Holds what every part of a run shares."""

    resolved: Resolved
    cfg: Config
    device: torch.device
    output_dir: Path
    store: checkpoint.CheckpointStore
    splits: dict[str, SplitData]
    test: Evaluator
    ranks: Ranks


def prepare_output(cfg: Config, store: checkpoint.CheckpointStore) -> None:
    """Refuse to mix two runs in one directory; set old checkpoints aside when AUTO_RESUME is off."""
    store.sweep()
    if not cfg.TRAIN.ENABLE or not store.states():
        return
    if not cfg.TRAIN.AUTO_RESUME:
        aside = next(p for n in range(1, 10**6)
                     if not (p := store.directory.with_name(f"checkpoints_before_{n}")).exists())
        shutil.move(store.directory, aside)
        _LOGGER.info("TRAIN.AUTO_RESUME is off: earlier checkpoints moved to %s", aside)
        return
    for path, state in store.readable():
        if differences := training_differences(state, cfg):
            raise ConfigError([f"OUTPUT_DIR: {cfg.OUTPUT_DIR} holds a run with other settings ({path.name}): "
                               + "; ".join(differences) + ". Choose another OUTPUT_DIR, or start over with "
                               "TRAIN.AUTO_RESUME false"])
        _drop_superseded(store, path)
        return


def _drop_superseded(store: checkpoint.CheckpointStore, latest: Path) -> None:
    """Remove what a save that was killed would have removed; never what is newer than the state that can be read."""
    numbered = store.numbered()
    if latest in numbered:
        numbered = numbered[numbered.index(latest):][store.keep:]
        with suppress(CheckpointError):  # one that cannot be read may be the state that was further along
            checkpoint.read(store.last)
            numbered.append(store.last)
    else:
        numbered = numbered[store.keep:]
    for path in filter(Path.is_file, numbered):
        path.unlink()


def open_session(resolved: Resolved, ranks: Ranks = ALONE) -> Session:
    """Return the session of a configuration: device, log, split lists. Everything that can fail early fails here."""
    resolved = check_names(resolved)
    cfg = resolved.config
    check_store(cfg)
    device = choose_device(cfg.NUM_GPUS, ranks.local_rank)
    set_tf32(False)
    output_dir = Path(cfg.OUTPUT_DIR)
    setup_logging(output_dir, cfg.TRAIN.LOG_FILE if cfg.TRAIN.ENABLE else cfg.TEST.LOG_FILE, ranks.rank)
    if notes := describe_notes(resolved).strip():
        _LOGGER.info("%s", notes)
    store = checkpoints_of(cfg)
    if ranks.main:
        prepare_output(cfg, store)
    splits = read_splits(cfg)
    test = Evaluator(cfg, splits["test"], device, ranks)
    return Session(resolved, cfg, device, output_dir, store, splits, test, ranks)


def write_run(session: Session, directory: Path, model: FewShotModel, splits: Iterable[SplitData]) -> None:
    """Write run.json, before anything is trained."""
    lists = {split.name: {"path": str(split.list_path), "sha256": split.list_hash, "videos": len(split.records),
                          "name": list_name(split.name, split.list_hash), "classes": len(split.class_names),
                          "frame_cache": split.pixels.get("frame_cache")}
             for split in splits}
    parameters, trained = parameter_counts(model)
    write_run_record(directory, session.resolved, {
        "device": str(session.device), "lists": lists, "test_episodes_sha256": session.test.episodes_hash,
        "decoder": session.test.split.dataset.videos.decoder,  # what DATA.DECODER auto picked
        "parameters": parameters, "trained_parameters": trained,
    })


def finished(session: Session) -> int | None:
    """Return the iterations of a training in OUTPUT_DIR that has ended with its test and is not to go on, or None."""
    earlier = read_json(session.output_dir / "results.json") or {}
    if not session.cfg.TRAIN.AUTO_RESUME or earlier.get("trained_to") is None:
        return None
    _, state = next(session.store.readable(), (None, {}))
    if "resume" not in state or not training_finished(state, session.cfg):
        return None
    resume = state["resume"]
    return resume["iteration"] if keep_best(session.store, resume["best_iteration"]) else None


def checkpoints_of(cfg: Config) -> checkpoint.CheckpointStore:
    """Return the store of the checkpoints in OUTPUT_DIR."""
    return checkpoint.CheckpointStore(Path(cfg.OUTPUT_DIR) / "checkpoints", cfg.TRAIN.KEEP_CHECKPOINTS)


def going_on(cfg: Config) -> str:
    """Say what the same command does after an interruption."""
    if cfg.RANDOM_SEEDS:
        return "the same command goes on with the seed that was under way"
    if not cfg.TRAIN.ENABLE:
        return "the same command starts the test anew"
    saved = checkpoints_of(cfg).latest()
    if saved is None:
        return "nothing saved yet: the same command starts anew"
    command = "the same command" + ("" if cfg.TRAIN.AUTO_RESUME else " with TRAIN.AUTO_RESUME true")
    return f"{command} goes on from {saved}"


def run(resolved: Resolved, ranks: Ranks = ALONE) -> dict:
    """Train (TRAIN.ENABLE), test the best checkpoint or TEST.CHECKPOINT_FILE_PATH, return results.json's content
    (ranks other than 0: nothing).

    Raises OutputDirError when another run is at work in OUTPUT_DIR; Stopped, which says where the run goes on.
    """
    with output_lock(Path(resolved.config.OUTPUT_DIR)) if ranks.main else nullcontext():
        with uncollected(loads="torchvision"):
            session = open_session(resolved, ranks)
        try:
            return train_and_test(session)
        except KeyboardInterrupt as stop:
            raise Stopped(number_of(stop), going_on(session.cfg)) from stop


def train_and_select(session: Session, model: FewShotModel) -> int:
    """Train to the end, leaving the best checkpoint; returns the iterations done."""
    cfg, selection = session.cfg, session.test
    keep_memory(cfg)
    if cfg.TRAIN.EVAL_SPLIT != "test":
        selection = Evaluator(cfg, session.splits[cfg.TRAIN.EVAL_SPLIT], session.device, session.ranks)
    if session.ranks.main:
        write_run(session, session.output_dir, model, session.splits.values())
    _LOGGER.info("%s", complexity_line(model, cfg.DATA.NUM_INPUT_FRAMES, cfg.DATA.TEST_CROP_SIZE))
    with uncollected(loads="torch._dynamo"):
        optimizer = optimizer_of(cfg, model)
    train_split = session.splits["train"]
    learner = Learner(model, optimizer, loop_options(cfg), partial(videos_of, train_split), session.device,
                      session.ranks)
    parts = TrainingParts(cfg, model, optimizer, learner.scaler, train_split, selection.split, session.ranks)
    return Trainer(parts, learner, schedule_of(cfg), session.store, selection).run().iteration


def directory_of_test(session: Session, model: FewShotModel, path: Path) -> Path:
    """Return the directory of a test without training before it, and write its run.json there."""
    from runs.evaluation.score_checkpoint import identity_of_test, results_dir

    sampler = session.test.split.sampler
    directory = results_dir(session.output_dir, identity_of_test(session.cfg, session.test, path),
                            f"{sampler.way}way_{sampler.shot}shot_{path.stem}")
    if directory != session.output_dir:
        _LOGGER.info("%s holds the results of another test: this one goes to %s", session.output_dir, directory)
        directory.mkdir(parents=True, exist_ok=True)
    if directory != session.output_dir or not (directory / "run.json").is_file():
        write_run(session, directory, model, [session.test.split])
    return directory


def train_and_test(session: Session) -> dict:
    """Do what `run` does, once OUTPUT_DIR is locked."""
    cfg, directory, path, ranks = session.cfg, session.output_dir, session.store.best, session.ranks
    seed_everything(cfg.RANDOM_SEED)
    with uncollected(loads="open_clip"):
        model = build_model(cfg).to(session.device)
    if cfg.BN.SYNC and ranks.world > 1 and not cfg.BN.FREEZE:
        over_ranks(model, ranks.group)
    trained_to = ranks.broadcast(finished(session) if ranks.main else None)
    if cfg.TRAIN.ENABLE and trained_to is None:
        trained_to = train_and_select(session, model)
    else:
        if cfg.TRAIN.ENABLE:
            _LOGGER.info("training is complete (iteration %d)", trained_to)
        elif cfg.TEST.CHECKPOINT_FILE_PATH:
            path, trained_to = Path(cfg.TEST.CHECKPOINT_FILE_PATH), None
        elif not model.head.trains and ranks.main and not path.exists():
            checkpoint.atomic_save({"epoch": 0, "model_state": model.state_dict()}, path)  # the tower as it is
        directory = directory_of_test(session, model, path) if ranks.main else directory
    if path == session.store.best and ranks.main:
        find_best(session.store)
    _LOGGER.info("testing %s on %d episodes of %s", path, len(session.test.specs), session.test.split.name)
    entries = {"trained_to": trained_to, "shared_videos": shared_videos(session.splits)}
    calibration = None
    if model.head.calibrates:
        calibration = Evaluator(cfg, session.splits.get("val") or build_split(cfg, "val"), session.device, ranks)
    from runs.evaluation.score_checkpoint import score_checkpoint  # its tables and pages are not of training
    from runs.evaluation.summary import in_words

    results = score_checkpoint(cfg, model, path, session.test, directory, entries, calibration)
    if ranks.main:
        sys.stdout.write("\n" + in_words(results) + f"\nWritten to {directory}/results.json; look at "
                         f"{directory}/report.html\n")
    return results
