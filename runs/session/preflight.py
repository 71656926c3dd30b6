"""Find what is wrong before a model is built or a weight downloaded: names, lists, videos."""

import logging
import posixpath
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from datasets.annotations import LIST_FORMATS, listed_once, missing_videos
from datasets.builder import SplitData, build_split
from datasets.decoding import AUTO, DECODERS
from datasets.few_shot import DATASETS
from models.builder import encoder_problems, with_encoder
from models.registries import HEADS
from runs.evaluation.identity import foreign_names
from runs.preparing.locate import lying
from runs.session.fresh import root_problem
from utils.config.checks import missing_classes
from utils.config.fields import Names
from utils.config.loader import Resolved
from utils.config.options import with_options
from utils.config.schema import Config
from utils.errors import ConfigError, VideoDecodeError

SHOWN = 5
_LOGGER = logging.getLogger(__name__)


def check_names(resolved: Resolved) -> Resolved:
    """Return the configuration with the head's options complete and typed, and its encoder and weights by name.

    Raises one ConfigError with every name that no registry knows, every option that is wrong, and every list of class
    names that the head needs and does not have: each with its key and the layer that set it.
    """
    cfg, sources = resolved.config, resolved.sources
    head, train = cfg.VIDEO.HEAD, cfg.TRAIN
    named: list[tuple[str, str | None, Names]] = [
        ("VIDEO.HEAD.NAME", head.NAME, HEADS),
        ("TRAIN.DATASET", train.DATASET, DATASETS), ("TEST.DATASET", cfg.TEST.DATASET, DATASETS),
        ("TRAIN.DATASET_FEW", train.DATASET_FEW, LIST_FORMATS),
        ("DATA.DECODER", None if cfg.DATA.DECODER == AUTO else cfg.DATA.DECODER, DECODERS),
    ]
    problems = [f"{sources[key]}: {key}: {registry.unknown(name)}" for key, name, registry in named
                if name is not None and name not in registry]
    problems += [f"{sources[key]}: {key}: {text}" for key, text in encoder_problems(head).items()]
    if head.NAME in HEADS:
        kind = HEADS[head.NAME]
        resolved, wrong = with_options(resolved, kind.Options)
        problems += wrong
        if kind.reads_text:
            problems += [f"{sources[lack.keys[0]]}: {lack.keys[0]}: {lack.text}" for lack in missing_classes(cfg)]
    if problems:
        raise ConfigError(problems)
    video = replace(resolved.config.VIDEO, HEAD=with_encoder(resolved.config.VIDEO.HEAD))
    return replace(resolved, config=replace(resolved.config, VIDEO=video))


def check_store(cfg: Config) -> None:
    """Raise ConfigError where features are to be kept in a directory that cannot be written."""
    if not (cfg.TEST.FEATURE_STORE and cfg.TEST.FEATURE_STORE_DIR):
        return
    try:
        Path(cfg.TEST.FEATURE_STORE_DIR).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cfg.TEST.FEATURE_STORE_DIR).close()
    except OSError as error:
        raise ConfigError([f"TEST.FEATURE_STORE_DIR: expected a directory that can be written, found "
                           f"{cfg.TEST.FEATURE_STORE_DIR} ({error.strerror})"]) from error


def read_splits(cfg: Config) -> dict[str, SplitData]:
    """Read and check every split that the run needs; the videos are looked for, not opened.

    Raises:
        ConfigError: no DATA_ROOT_DIR. AnnotationError, EpisodeError: a list is wrong.
        VideoDecodeError: videos are missing (DATA.ON_BAD_VIDEO: stop).
    """
    if problem := root_problem(cfg):
        raise ConfigError([problem])
    names = dict.fromkeys(["train", cfg.TRAIN.EVAL_SPLIT, "test"] if cfg.TRAIN.ENABLE else ["test"])
    splits = {name: build_split(cfg, name) for name in names}
    names_in = listed_once(Path(cfg.DATA.DATA_ROOT_DIR))  # splits often share their folders
    for split in splits.values():
        if problem := foreign_names(split.name, split.list_hash, split.class_names):
            raise ConfigError([f"{split.list_path}: {problem}; set DATA.ANNO_DIR or DATA.CLASSES (or the CLASS_NAME "
                               "keys) to match"])
        _check_videos(cfg, split, names_in)
        listed = len({record.class_index for record in split.records})
        if listed < len(split.class_names):
            _LOGGER.info("note: %s has %d classes for %d class names: the first %d names are taken", split.list_path,
                         listed, len(split.class_names), listed)
    return splits


def _check_videos(cfg: Config, split: SplitData, names_in: Callable[[str], set[str]]) -> None:
    """Raise VideoDecodeError if videos of a list are bad, or warn (DATA.ON_BAD_VIDEO: replace).

    Without a frame cache these are the missing files. A cache needs no files, and knows what could not be decoded.
    """
    cache = split.dataset.videos.cache
    if cache is not None:
        bad = [record for record in split.records if cache.entries[record.path].error is not None]
        what = f"could not be decoded for {cache.directory}"
    else:
        root = Path(cfg.DATA.DATA_ROOT_DIR)
        bad = missing_videos(names_in, split.records, cfg.TRAIN.DATASET_FEW)
        first = ", ".join(record.path for record in bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
        what = f"are not there: {first}. {lying(root, bad, cfg.TRAIN.DATASET_FEW, split.records)}" if bad else ""
    if not bad:
        return
    text = f"{len(bad)} of {len(split.records)} videos of {split.list_path} {what}"
    if cfg.DATA.ON_BAD_VIDEO == "replace":
        _LOGGER.warning("%s; others of their class are taken where they would be seen", text)
        return
    path, line = bad[0].path, bad[0].line
    reason = "no such video" if cache is None else cache.entries[path].error
    raise VideoDecodeError(Path(cfg.DATA.DATA_ROOT_DIR) / path if cache is None else path,
                           f"{reason} (line {line} of the list); {text}. DATA.ON_BAD_VIDEO: replace goes on without "
                           "them")


def shared_videos(splits: Mapping[str, SplitData]) -> int:
    """Count the videos that stand in more than one list of a run; each pair of lists is named in a warning.

    What was trained or selected on must not be tested on: published lists share none.
    """
    lines = {name: {posixpath.normpath(record.path): record.line for record in split.records}
             for name, split in splits.items()}
    shared: set[str] = set()
    for one, other in combinations(lines, 2):
        both = lines[one].keys() & lines[other].keys()
        shared |= both
        if both:
            path = min(both)
            _LOGGER.warning("%d videos stand in the %s and in the %s list, such as %s (lines %d and %d): the result "
                            "will say so", len(both), one, other, path, lines[one][path], lines[other][path])
    return len(shared)
