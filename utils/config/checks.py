"""Find settings that cannot hold together, although each has the right type, and settings that are worth a remark."""

from collections import Counter
from dataclasses import dataclass

from utils.config.schema import Config


@dataclass(frozen=True, slots=True)
class Finding:
    """Say something about one or more keys; the first is the one to change."""

    keys: tuple[str, ...]
    text: str


def impossible(cfg: Config) -> list[Finding]:
    """Every combination that cannot run, found without importing torch or touching data."""
    checks = (_work, _class_twice, _enough_classes, _schedule, _optimizer, _pictures, _pixels, _colours, _erasing,
              _text, _draws, _seeds, _ranks, _passes, _places)
    return [finding for check in checks for finding in check(cfg)]


def remarks(cfg: Config, sources: dict[str, str]) -> list[Finding]:
    """Return what runs, but may not mean what its author thinks."""
    found = []
    train, solver = cfg.TRAIN, cfg.SOLVER
    if train.ENABLE and train.EVAL_SPLIT == "test":
        found.append(Finding(("TRAIN.EVAL_SPLIT",), "the checkpoint is selected on the test list, as in the published "
                                                    "code; the result is labelled so"))
    if solver.MEAN is not None and cfg.DATA.MEAN_FROM == "DATA":
        found.append(Finding(("SOLVER.MEAN",), "has no effect: DATA.MEAN_FROM is DATA (upstream), so frames are "
                                               f"normalised with DATA.MEAN {list(cfg.DATA.MEAN)}"))
    unread = "SOLVER" if solver.WEIGHT_DECAY_FROM == "OPTIMIZER" else "OPTIMIZER"
    if sources[f"{unread}.WEIGHT_DECAY"] == "command line":
        found.append(Finding((f"{unread}.WEIGHT_DECAY",), "has no effect: SOLVER.WEIGHT_DECAY_FROM is "
                                                          f"{solver.WEIGHT_DECAY_FROM}"))
    if train.CLASS_NAME and cfg.TEST.CLASS_NAME and train.ENABLE:
        shared = sorted(set(train.CLASS_NAME) & set(cfg.TEST.CLASS_NAME))
        if shared:
            found.append(Finding(("TEST.CLASS_NAME", "TRAIN.CLASS_NAME"),
                                 f"{len(shared)} of the test classes are training classes, too ({shared[0]!r}, ...)"))
    return found + (_without_gpu(cfg) if cfg.NUM_GPUS == 0 else [])


def _without_gpu(cfg: Config) -> list[Finding]:
    found = []
    if cfg.AUGMENTATION.USE_GPU:
        found.append(Finding(("AUGMENTATION.USE_GPU",), "there is no GPU (NUM_GPUS 0): the training process does, to "
                                                        "the same pixels, what loader workers would do beside it"))
    if cfg.TRAIN.PRECISION == "tf32":
        found.append(Finding(("TRAIN.PRECISION",), "tf32 has no effect on a CPU (NUM_GPUS 0): it computes in float32"))
    return found


def _work(cfg: Config) -> list[Finding]:
    if cfg.TRAIN.ENABLE or cfg.TEST.ENABLE:
        return []
    return [Finding(("TRAIN.ENABLE", "TEST.ENABLE"), "nothing to do: set TRAIN.ENABLE or TEST.ENABLE to true")]


def _class_lists(cfg: Config) -> dict[str, tuple[str, ...] | None]:
    return {"TRAIN.CLASS_NAME": cfg.TRAIN.CLASS_NAME, "TRAIN.VAL_CLASS_NAME": cfg.TRAIN.VAL_CLASS_NAME,
            "TEST.CLASS_NAME": cfg.TEST.CLASS_NAME}


def missing_classes(cfg: Config) -> list[Finding]:
    """Class lists that a head which reads text needs, and does not have."""
    lists = _class_lists(cfg)
    needed = ["TEST.CLASS_NAME"]
    if cfg.TRAIN.ENABLE:
        needed.append("TRAIN.CLASS_NAME")
        if cfg.TRAIN.EVAL_SPLIT == "val":
            needed.append("TRAIN.VAL_CLASS_NAME")
    found = []
    for key in needed:
        if lists[key] is None:
            how = "set it, or DATA.CLASSES to a class file (a name in configs/pool/classes, or a path) that has it"
            if key == "TRAIN.VAL_CLASS_NAME":
                how += ", or TRAIN.EVAL_SPLIT to test to select the checkpoint on the test list, as published"
            found.append(Finding((key, "DATA.CLASSES", "TRAIN.CLASS_NAME", "TRAIN.ENABLE", "TRAIN.EVAL_SPLIT"),
                                 f"no class names: {how}"))
    return found


def _class_twice(cfg: Config) -> list[Finding]:
    """Class lists that name a class twice."""
    found = []
    for key, names in _class_lists(cfg).items():
        twice = [name for name, count in Counter(names or ()).items() if count > 1]
        if twice:
            found.append(Finding((key,), f"class named twice: {', '.join(repr(name) for name in twice[:5])}"))
    return found


def _enough_classes(cfg: Config) -> list[Finding]:
    train = cfg.TRAIN
    test_key, test_way = ("TRAIN.WAY_TEST", train.WAY_TEST) if train.WAY_TEST else ("TRAIN.WAY", train.WAY)
    wanted = {"TEST.CLASS_NAME": (test_key, test_way)}
    if train.ENABLE:
        wanted["TRAIN.CLASS_NAME"] = ("TRAIN.WAY", train.WAY)
        if train.EVAL_SPLIT == "val":
            wanted["TRAIN.VAL_CLASS_NAME"] = (test_key, test_way)
    found = []
    for key, names in _class_lists(cfg).items():
        if key in wanted and names is not None and len(names) < wanted[key][1]:
            way_key, way = wanted[key]
            found.append(Finding((way_key, key), f"an episode takes {way} classes, {key} has {len(names)}"))
    return found


def _schedule(cfg: Config) -> list[Finding]:
    solver = cfg.SOLVER
    if solver.LR_POLICY == "cosine":
        if solver.MAX_EPOCH > solver.WARMUP_EPOCHS:
            return []
        return [Finding(("SOLVER.MAX_EPOCH", "SOLVER.WARMUP_EPOCHS", "SOLVER.LR_POLICY"),
                        f"expected more than SOLVER.WARMUP_EPOCHS ({solver.WARMUP_EPOCHS:g}), found "
                        f"{solver.MAX_EPOCH:g}")]
    found, steps = [], list(solver.STEPS)
    if len(steps) != len(solver.LRS):
        found.append(Finding(("SOLVER.STEPS", "SOLVER.LRS"), f"{len(steps)} steps, but SOLVER.LRS has "
                                                             f"{len(solver.LRS)} factors; each step needs one"))
    if not steps or steps[0] != 0:
        found.append(Finding(("SOLVER.STEPS",), f"expected 0 as the first step, found {steps}"))
    if any(after <= before for before, after in zip(steps, steps[1:], strict=False)):
        found.append(Finding(("SOLVER.STEPS",), f"expected increasing steps, found {steps}"))
    if any(factor < 0 for factor in solver.LRS):
        found.append(Finding(("SOLVER.LRS",), f"expected factors of 0 or more, found {list(solver.LRS)}"))
    return found


def _optimizer(cfg: Config) -> list[Finding]:
    found, optim = [], cfg.OPTIMIZER
    if optim.OPTIM_METHOD == "sgd" and optim.NESTEROV and (optim.MOMENTUM == 0 or optim.DAMPENING != 0):
        keys = ("OPTIMIZER.NESTEROV", "OPTIMIZER.OPTIM_METHOD", "OPTIMIZER.MOMENTUM", "OPTIMIZER.DAMPENING")
        found.append(Finding(keys, "Nesterov momentum needs OPTIMIZER.MOMENTUM over 0 and OPTIMIZER.DAMPENING 0"))
    if cfg.TRAIN.CLIP_GRAD_NORM == 0:
        found.append(Finding(("TRAIN.CLIP_GRAD_NORM",), "expected more than 0, or null for no clipping, found 0"))
    return found


def _pictures(cfg: Config) -> list[Finding]:
    """Frames must be at least as large as the crop."""
    data = cfg.DATA
    test_scale = data.TEST_SCALE if isinstance(data.TEST_SCALE, tuple) else (data.TEST_SCALE, data.TEST_SCALE)
    found = []
    for scale_key, scale, crop_key, crop in (
        ("DATA.TRAIN_JITTER_SCALES", data.TRAIN_JITTER_SCALES, "DATA.TRAIN_CROP_SIZE", data.TRAIN_CROP_SIZE),
        ("DATA.TEST_SCALE", test_scale, "DATA.TEST_CROP_SIZE", data.TEST_CROP_SIZE),
    ):
        if len(scale) != 2:
            found.append(Finding((scale_key,), f"expected height and width, found {list(scale)}"))
        elif crop > min(scale):
            found.append(Finding((crop_key, scale_key), f"a crop of {crop} pixels does not fit into {scale_key} "
                                                        f"{scale[0]} x {scale[1]}"))
    return found


def _pixels(cfg: Config) -> list[Finding]:
    """Check that mean and deviation have three channels."""
    named = {"DATA.MEAN": cfg.DATA.MEAN, "DATA.STD": cfg.DATA.STD, "SOLVER.MEAN": cfg.SOLVER.MEAN,
             "SOLVER.STD": cfg.SOLVER.STD}
    found = []
    for key, values in named.items():
        if values is not None and len(values) != 3:
            found.append(Finding((key,), f"expected one number for each of R, G, B, found {list(values)}"))
        elif values is not None and key.endswith("STD") and min(values) <= 0:
            found.append(Finding((key,), f"expected numbers over 0, found {list(values)}"))
    if cfg.DATA.MEAN_FROM == "SOLVER" and (cfg.SOLVER.MEAN is None) != (cfg.SOLVER.STD is None):
        found.append(Finding(("SOLVER.MEAN", "SOLVER.STD", "DATA.MEAN_FROM"),
                             "expected SOLVER.MEAN and SOLVER.STD together, found one of them"))
    return found


def _colours(cfg: Config) -> list[Finding]:
    augmentation, found = cfg.AUGMENTATION, []
    for key, value, largest in (
        ("AUGMENTATION.HUE", augmentation.HUE, 0.5), ("AUGMENTATION.GRAYSCALE", augmentation.GRAYSCALE, 1),
        ("AUGMENTATION.RANDOM_ERASING.PROB", augmentation.RANDOM_ERASING.PROB, 1),
    ):
        if value > largest:
            found.append(Finding((key,), f"expected {largest:g} or less, found {value:g}"))
    return found


def _erasing(cfg: Config) -> list[Finding]:
    erasing = cfg.AUGMENTATION.RANDOM_ERASING
    area, found = list(erasing.AREA_RANGE), []
    if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
        found.append(Finding(("AUGMENTATION.RANDOM_ERASING.AREA_RANGE",),
                             f"expected two shares, 0 < least <= most <= 1, found {area}"))
    if erasing.MIN_ASPECT > 1:
        found.append(Finding(("AUGMENTATION.RANDOM_ERASING.MIN_ASPECT",),
                             f"expected 1 or less, found {erasing.MIN_ASPECT:g}"))
    return found


def _text(cfg: Config) -> list[Finding]:
    prompt = cfg.TEST.PROMPT
    try:
        filled = prompt.format("\0")
    except (IndexError, KeyError, ValueError, AttributeError):
        filled = ""
    if "\0" in filled:
        return []
    return [Finding(("TEST.PROMPT",), f"expected a sentence with {{}} where the class name goes, found {prompt!r}")]


def _draws(cfg: Config) -> list[Finding]:
    """A feature store holds a fixed number of choices of frames."""
    data = cfg.DATA
    if cfg.TEST.TEMPORAL_DRAWS or not cfg.TEST.FEATURE_STORE or data.TEST_SAMPLING == "center":
        return []
    if data.NUM_INPUT_FRAMES > 1 and data.SAMPLING_RATE <= 40:
        return []
    return [Finding(("TEST.TEMPORAL_DRAWS", "TEST.FEATURE_STORE", "DATA.TEST_SAMPLING"),
                    "0 (fresh frames each time) needs TEST.FEATURE_STORE false; with it expected 1 or more")]


def _seeds(cfg: Config) -> list[Finding]:
    seeds = cfg.RANDOM_SEEDS
    if seeds is not None and not cfg.TRAIN.ENABLE and cfg.TEST.CHECKPOINT_FILE_PATH:
        return [Finding(("RANDOM_SEEDS", "TEST.CHECKPOINT_FILE_PATH"), "a checkpoint has one seed: leave "
                        "TEST.CHECKPOINT_FILE_PATH empty to test the best of each OUTPUT_DIR/seed_<n>")]
    if seeds is None or len(seeds) > 1 and len(set(seeds)) == len(seeds):
        return []
    return [Finding(("RANDOM_SEEDS",), f"expected two or more different seeds, or null, found {list(seeds)}")]


def _ranks(cfg: Config) -> list[Finding]:
    if cfg.NUM_GPUS == 0 or cfg.NUM_PROCESSES == 1:
        return []
    return [Finding(("NUM_PROCESSES", "NUM_GPUS"), f"{cfg.NUM_PROCESSES} ranks on the CPU need NUM_GPUS 0, found "
                    f"{cfg.NUM_GPUS}; on GPUs there is one rank each: leave NUM_PROCESSES at 1")]


def _passes(cfg: Config) -> list[Finding]:
    train = cfg.TRAIN
    if train.BATCH_SIZE_PER_TASK % train.EPISODES_PER_STEP == 0:
        return []
    return [Finding(("TRAIN.EPISODES_PER_STEP", "TRAIN.BATCH_SIZE_PER_TASK"), "expected a divisor of the "
                    f"{train.BATCH_SIZE_PER_TASK} iterations whose gradients add up to a step, found "
                    f"{train.EPISODES_PER_STEP}")]


def _places(cfg: Config) -> list[Finding]:
    """Directories and files that a run reads and writes must have names."""
    found = [Finding((key,), "expected a directory, found no name; . is the current directory")
             for key, value in (("OUTPUT_DIR", cfg.OUTPUT_DIR), ("DATA.DATA_ROOT_DIR", cfg.DATA.DATA_ROOT_DIR),
                                ("DATA.ANNO_DIR", cfg.DATA.ANNO_DIR)) if not value.strip()]
    return found + [Finding((key,), f"expected the name of a file in OUTPUT_DIR, without a directory, found {value!r}")
                    for key, value in (("TRAIN.LOG_FILE", cfg.TRAIN.LOG_FILE), ("TEST.LOG_FILE", cfg.TEST.LOG_FILE))
                    if value in ("", ".", "..") or "/" in value or "\\" in value]
