"""Find settings that cannot hold together, although each has the right type, and settings that are worth a remark."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from string import Formatter

import psutil

from utils.config.class_names import TARGETS
from utils.config.schema import Config


@dataclass(frozen=True, slots=True)
class Finding:
    """Say something about one or more keys; the first is the one to change."""

    keys: tuple[str, ...]
    text: str


def impossible(cfg: Config) -> list[Finding]:
    """Every combination that cannot run, found without importing torch or touching data."""
    checks = (_work, _class_twice, _enough_classes, _schedule, _optimizer, _pictures, _pixels, _text, _draws, _seeds,
              _ranks, _passes, _places, _memory)
    return [finding for check in checks for finding in check(cfg)]


def remarks(cfg: Config, sources: dict[str, str]) -> Iterator[Finding]:
    """Yield what runs, but may not mean what its author thinks."""
    train, solver = cfg.TRAIN, cfg.SOLVER
    if train.ENABLE and train.EVAL_SPLIT == "test":
        yield Finding(("TRAIN.EVAL_SPLIT",), "the checkpoint is selected on the test list, as in the published code; "
                                             "the result is labelled so")
    if solver.MEAN is not None and cfg.DATA.MEAN_FROM == "DATA":
        yield Finding(("SOLVER.MEAN",), "has no effect: DATA.MEAN_FROM is DATA (upstream), so frames are normalised "
                                        f"with DATA.MEAN {list(cfg.DATA.MEAN)}")
    unread = "SOLVER" if solver.WEIGHT_DECAY_FROM == "OPTIMIZER" else "OPTIMIZER"
    if sources[f"{unread}.WEIGHT_DECAY"] == "command line":
        yield Finding((f"{unread}.WEIGHT_DECAY",), "has no effect: SOLVER.WEIGHT_DECAY_FROM is "
                                                   f"{solver.WEIGHT_DECAY_FROM}")
    shared = sorted(set(train.CLASS_NAME or ()) & set(cfg.TEST.CLASS_NAME or ()))
    if shared and train.ENABLE:
        yield Finding(("TEST.CLASS_NAME", "TRAIN.CLASS_NAME"),
                      f"{len(shared)} of the test classes are training classes, too ({shared[0]!r}, ...)")
    if cfg.NUM_GPUS == 0 and cfg.AUGMENTATION.USE_GPU:
        yield Finding(("AUGMENTATION.USE_GPU",), "there is no GPU (NUM_GPUS 0): the training process does, to the same "
                                                 "pixels, what loader workers would do beside it")
    if cfg.NUM_GPUS == 0 and train.PRECISION == "tf32":
        yield Finding(("TRAIN.PRECISION",), "tf32 has no effect on a CPU (NUM_GPUS 0): it computes in float32")


def _work(cfg: Config) -> Iterator[Finding]:
    if not cfg.TRAIN.ENABLE and not cfg.TEST.ENABLE:
        yield Finding(("TRAIN.ENABLE", "TEST.ENABLE"), "nothing to do: set TRAIN.ENABLE or TEST.ENABLE to true")


def _class_lists(cfg: Config) -> dict[str, tuple[str, ...] | None]:
    return {key: attrgetter(key)(cfg) for key in TARGETS.values()}


def _lists_used(cfg: Config) -> list[str]:
    """Return the class lists whose splits this run draws episodes from."""
    used = {"test": True, "train": cfg.TRAIN.ENABLE, "val": cfg.TRAIN.ENABLE and cfg.TRAIN.EVAL_SPLIT == "val"}
    return [TARGETS[split] for split, is_used in used.items() if is_used]


def missing_classes(cfg: Config) -> Iterator[Finding]:
    """Yield class lists that a head which reads text needs, and does not have."""
    for key in _lists_used(cfg):
        if _class_lists(cfg)[key] is None:
            how = "set it, or DATA.CLASSES to a class file (a name in configs/pool/classes, or a path) that has it"
            if key == "TRAIN.VAL_CLASS_NAME":
                how += ", or TRAIN.EVAL_SPLIT to test to select the checkpoint on the test list, as published"
            yield Finding((key, "DATA.CLASSES", "TRAIN.CLASS_NAME", "TRAIN.ENABLE", "TRAIN.EVAL_SPLIT"),
                          f"no class names: {how}")


def _class_twice(cfg: Config) -> Iterator[Finding]:
    for key, names in _class_lists(cfg).items():
        if twice := [name for name, count in Counter(names or ()).items() if count > 1]:
            yield Finding((key,), f"class named twice: {', '.join(map(repr, twice[:5]))}")


def _enough_classes(cfg: Config) -> Iterator[Finding]:
    for key in _lists_used(cfg):
        way_key = "TRAIN.WAY_TEST" if cfg.TRAIN.WAY_TEST and key != "TRAIN.CLASS_NAME" else "TRAIN.WAY"
        way, names = attrgetter(way_key)(cfg), _class_lists(cfg)[key]
        if names is not None and len(names) < way:
            yield Finding((way_key, key), f"an episode takes {way} classes, {key} has {len(names)}")


def _schedule(cfg: Config) -> Iterator[Finding]:
    solver, steps = cfg.SOLVER, list(cfg.SOLVER.STEPS)
    if solver.LR_POLICY.startswith("cosine"):
        if solver.MAX_EPOCH <= solver.WARMUP_EPOCHS:
            yield Finding(("SOLVER.MAX_EPOCH", "SOLVER.WARMUP_EPOCHS", "SOLVER.LR_POLICY"),
                          f"expected more than SOLVER.WARMUP_EPOCHS ({solver.WARMUP_EPOCHS:g}), found "
                          f"{solver.MAX_EPOCH:g}")
        return
    if len(steps) != len(solver.LRS):
        yield Finding(("SOLVER.STEPS", "SOLVER.LRS"), f"{len(steps)} steps, but SOLVER.LRS has {len(solver.LRS)} "
                                                      "factors; each step needs one")
    if not steps or steps[0] != 0:
        yield Finding(("SOLVER.STEPS",), f"expected 0 as the first step, found {steps}")
    if any(after <= before for before, after in zip(steps, steps[1:], strict=False)):
        yield Finding(("SOLVER.STEPS",), f"expected increasing steps, found {steps}")


def _optimizer(cfg: Config) -> Iterator[Finding]:
    optim = cfg.OPTIMIZER
    if optim.OPTIM_METHOD == "sgd" and optim.NESTEROV and (optim.MOMENTUM == 0 or optim.DAMPENING != 0):
        keys = ("OPTIMIZER.NESTEROV", "OPTIMIZER.OPTIM_METHOD", "OPTIMIZER.MOMENTUM", "OPTIMIZER.DAMPENING")
        yield Finding(keys, "Nesterov momentum needs OPTIMIZER.MOMENTUM over 0 and OPTIMIZER.DAMPENING 0")


def _pictures(cfg: Config) -> Iterator[Finding]:
    """Frames must be at least as large as the crop."""
    data = cfg.DATA
    test_scale = data.TEST_SCALE if isinstance(data.TEST_SCALE, tuple) else (data.TEST_SCALE,) * 2
    for scale_key, scale, crop_key, crop in (
        ("DATA.TRAIN_JITTER_SCALES", data.TRAIN_JITTER_SCALES, "DATA.TRAIN_CROP_SIZE", data.TRAIN_CROP_SIZE),
        ("DATA.TEST_SCALE", test_scale, "DATA.TEST_CROP_SIZE", data.TEST_CROP_SIZE),
    ):
        if crop > min(scale):
            yield Finding((crop_key, scale_key), f"a crop of {crop} pixels does not fit into {scale_key} {scale[0]} x "
                                                 f"{scale[1]}")


def _pixels(cfg: Config) -> Iterator[Finding]:
    area = cfg.AUGMENTATION.RANDOM_ERASING.AREA_RANGE
    if area[0] > area[1]:
        yield Finding(("AUGMENTATION.RANDOM_ERASING.AREA_RANGE",), "expected the least share first, found "
                                                                   f"{list(area)}")
    if cfg.DATA.MEAN_FROM == "SOLVER" and (cfg.SOLVER.MEAN is None) != (cfg.SOLVER.STD is None):
        yield Finding(("SOLVER.MEAN", "SOLVER.STD", "DATA.MEAN_FROM"),
                      "expected SOLVER.MEAN and SOLVER.STD together, found one of them")


def _text(cfg: Config) -> Iterator[Finding]:
    prompt = cfg.TEST.PROMPT
    try:
        places = [part[1:] for part in Formatter().parse(prompt) if part[1] is not None]
    except ValueError:
        places = []
    if places != [("", "", None)] and set(places) != {("0", "", None)}:
        yield Finding(("TEST.PROMPT",), f"expected a sentence with {{}} where the class name goes, found {prompt!r}")


def _draws(cfg: Config) -> Iterator[Finding]:
    """A feature store holds a fixed number of choices of frames."""
    data, test = cfg.DATA, cfg.TEST
    drawn = data.TEST_SAMPLING != "center" and (data.NUM_INPUT_FRAMES == 1 or data.SAMPLING_RATE > 40)
    if drawn and test.FEATURE_STORE and not test.TEMPORAL_DRAWS:
        yield Finding(("TEST.TEMPORAL_DRAWS", "TEST.FEATURE_STORE", "DATA.TEST_SAMPLING"),
                      "0 (fresh frames each time) needs TEST.FEATURE_STORE false; with it expected 1 or more")


def _seeds(cfg: Config) -> Iterator[Finding]:
    seeds = cfg.RANDOM_SEEDS
    if seeds is None:
        return
    if not cfg.TRAIN.ENABLE and cfg.TEST.CHECKPOINT_FILE_PATH:
        yield Finding(("RANDOM_SEEDS", "TEST.CHECKPOINT_FILE_PATH"), "a checkpoint has one seed: leave "
                      "TEST.CHECKPOINT_FILE_PATH empty to test the best of each OUTPUT_DIR/seed_<n>")
    elif len(seeds) < 2 or len(set(seeds)) < len(seeds):
        yield Finding(("RANDOM_SEEDS",), f"expected two or more different seeds, or null, found {list(seeds)}")


def _ranks(cfg: Config) -> Iterator[Finding]:
    if cfg.NUM_GPUS and cfg.NUM_PROCESSES > 1:
        yield Finding(("NUM_PROCESSES", "NUM_GPUS"), f"{cfg.NUM_PROCESSES} ranks on the CPU need NUM_GPUS 0, found "
                      f"{cfg.NUM_GPUS}; on GPUs there is one rank each: leave NUM_PROCESSES at 1")


def _passes(cfg: Config) -> Iterator[Finding]:
    train = cfg.TRAIN
    if train.BATCH_SIZE_PER_TASK % train.EPISODES_PER_STEP:
        yield Finding(("TRAIN.EPISODES_PER_STEP", "TRAIN.BATCH_SIZE_PER_TASK"), "expected a divisor of the "
                      f"{train.BATCH_SIZE_PER_TASK} iterations whose gradients add up to a step, found "
                      f"{train.EPISODES_PER_STEP}")


def _memory(cfg: Config) -> Iterator[Finding]:
    """What a machine's memory cannot hold even at the least that it takes."""
    data, train, total = cfg.DATA, cfg.TRAIN, psutil.virtual_memory().total
    clips = min(train.WAY * (train.SHOT + train.QUERY_PER_CLASS), 64)  # of an episode; the lists tell of larger ones
    picture = 12 * data.NUM_INPUT_FRAMES  # bytes of the same pixel in all frames of a clip
    scales = [*data.TRAIN_JITTER_SCALES, *([data.TEST_SCALE] if isinstance(data.TEST_SCALE, int) else data.TEST_SCALE)]
    for key, size in (
        *((f"TRAIN.NUM_{split}_TASKS", 200) for split in ("TRAIN", "VAL", "TEST")),  # an episode's videos
        ("DATA_LOADER.NUM_WORKERS", 1 << 25), ("NUM_PROCESSES", 1 << 27),
        ("DATA.NUM_INPUT_FRAMES", 12 * (clips * data.TRAIN_CROP_SIZE**2 if train.ENABLE else data.TEST_CROP_SIZE**2)),
        *((key, picture * max(scales)) for key in ("DATA.TRAIN_JITTER_SCALES", "DATA.TEST_SCALE")),
    ):
        value = attrgetter(key)(cfg)
        count = max(value) if isinstance(value, tuple) else value or 0
        if count * size > total:
            yield Finding((key,), f"{count:,} need {count * size / 2**30:,.0f} GiB of memory or more, and there are "
                                  f"{total / 2**30:,.0f}: expected at most {total // size:,}")


def _places(cfg: Config) -> Iterator[Finding]:
    """Directories and files that a run reads and writes must have names."""
    for key in ("OUTPUT_DIR", "DATA.DATA_ROOT_DIR", "DATA.ANNO_DIR"):
        if not attrgetter(key)(cfg).strip():
            yield Finding((key,), "expected a directory, found no name; . is the current directory")
    for key in ("TRAIN.LOG_FILE", "TEST.LOG_FILE"):
        value = attrgetter(key)(cfg)
        if value in ("", ".", "..") or "/" in value or "\\" in value:
            yield Finding((key,), f"expected the name of a file in OUTPUT_DIR, without a directory, found {value!r}")
        elif value.endswith((".json", ".jsonl", ".parquet", ".html", ".csv", ".png", ".lock")):
            yield Finding((key,), f"expected the name of a text log, such as training.log, found {value!r}")
