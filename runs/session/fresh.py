"""Say in one message what a machine lacks for a run, before anything that takes seconds is imported."""

import os
import resource
from pathlib import Path

from utils.config.layers import POOL, read_layer
from utils.config.loader import Resolved
from utils.config.schema import Config
from utils.errors import ConfigError

DEMO = "demo"  # data set whose videos and lists are rendered by one command
GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")  # in /dev: NVIDIA's, Windows' for Linux, AMD's

FILES, FILES_A_WORKER = 60, 14  # open files of a run with loader workers, and of each worker with its clips under way


def check_machine(resolved: Resolved) -> None:
    """Raise ConfigError naming a head that is not here, else all that is certainly missing (GPUs, videos, lists), with
    the command that mends each. Weights are named with them; alone they are no problem, as a run fetches them."""
    cfg = resolved.config
    if problem := unknown_head(resolved):
        raise ConfigError([problem])
    problems = [*_open_files(cfg), *_gpus(cfg), *_videos(cfg, resolved.path), *_lists(cfg)]
    if problems:
        raise ConfigError([*problems, *_weights(cfg)])


def unknown_head(resolved: Resolved) -> str | None:
    """Say that the head is another method's, as in files of the public tree's other tasks; None where it is here."""
    name = resolved.config.VIDEO.HEAD.NAME
    if name in {path.stem for path in (POOL / "model").glob("*.yaml")}:
        return None
    from models.builder import HEADS  # its heads are not all in the pool

    if name in HEADS:
        return None
    text = HEADS.unknown(name)
    other = "" if "did you mean" in text else "; this is another method's head, whose code is not here"
    return f"{resolved.sources['VIDEO.HEAD.NAME']}: VIDEO.HEAD.NAME: {text}{other}"


def root_problem(cfg: Config) -> str | None:
    """Say that DATA.DATA_ROOT_DIR is no directory; None where it is one, or a frame cache stands in for it."""
    root = Path(cfg.DATA.DATA_ROOT_DIR)
    if root.is_dir() or cfg.DATA.FRAME_CACHE is not None:
        return None
    if root.exists():
        return f"DATA.DATA_ROOT_DIR: expected the directory of the videos, found the file {root}; unpack archives first"
    where = "" if root.is_absolute() else f" (looked for in the current directory, {Path.cwd()})"
    return f"DATA.DATA_ROOT_DIR: expected the directory of the videos, found none at {root}{where}"


def _gpus(cfg: Config) -> list[str]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not cfg.NUM_GPUS or any(any(Path("/dev").glob(name)) for name in GPU_DEVICES) and not hidden:
        return []
    return [f"NUM_GPUS: the configuration asks for {cfg.NUM_GPUS} CUDA device(s), this machine has 0. Add NUM_GPUS 0 "
            "(CPU) to the command line"]


def _open_files(cfg: Config) -> list[str]:
    """Allow as many open files as ranks and their loaders take: workers hand clips over through them, and hang where
    they get none."""
    workers, ranks = cfg.DATA_LOADER.NUM_WORKERS, cfg.NUM_GPUS or cfg.NUM_PROCESSES
    (soft, hard), need = resource.getrlimit(resource.RLIMIT_NOFILE), FILES + FILES_A_WORKER * workers
    if not workers and ranks == 1 or soft == resource.RLIM_INFINITY or soft >= need:
        return []
    if hard == resource.RLIM_INFINITY or hard >= need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        return []
    key, what, none = (("DATA_LOADER.NUM_WORKERS", f"{workers} workers", "0") if workers else
                       ("NUM_GPUS" if cfg.NUM_GPUS else "NUM_PROCESSES", f"each of {ranks} ranks", "1"))
    return [f"{key}: {what} may take {need} open files, {hard} are allowed. ulimit -n {need} allows them; {key} {none} "
            "does without"]


def _videos(cfg: Config, project: Path) -> list[str]:
    if not (problem := root_problem(cfg)):
        return []
    if cfg.DATA.CLASSES == DEMO:
        return [f"{problem}. Render them: python runs/prepare.py demo --out {cfg.DATA.DATA_ROOT_DIR}"]
    return [f"{problem}. Put the videos there, or add DATA.DATA_ROOT_DIR <their directory>; then look whether all are "
            f"found: python runs/prepare.py check --cfg {project} DATA.DATA_ROOT_DIR <their directory>"]


def _lists(cfg: Config) -> list[str]:
    splits = dict.fromkeys(["train", cfg.TRAIN.EVAL_SPLIT, "test"] if cfg.TRAIN.ENABLE else ["test"])
    directory = Path(cfg.DATA.ANNO_DIR)
    missing = [name for split in splits if not (directory / (name := f"{split}_few_shot.txt")).exists()]
    if not missing:
        return []
    known = cfg.DATA.CLASSES in {DEMO, *read_layer(POOL / "list_files.yaml").values["sha256"]}
    what = "lists --help" if not known else DEMO if cfg.DATA.CLASSES == DEMO else f"lists {cfg.DATA.CLASSES}"
    return [f"DATA.ANNO_DIR: expected the split lists, found no {', '.join(missing)} in {directory}. Make them: python "
            f"runs/prepare.py {what}" + (f" --out {directory}" if known else "")]


def _weights(cfg: Config) -> list[str]:
    """Name the file of OpenAI's weights where it is not here (as models.encoders.weight_files, which loads torch)."""
    head, name = cfg.VIDEO.HEAD, cfg.VIDEO.HEAD.BACKBONE_NAME
    path = Path(head.WEIGHTS_DIR or "~/.cache/clip").expanduser() / f"{name.replace('/', '-').replace('@', '-')}.pt"
    if head.BACKBONE_WEIGHTS not in (None, "openai") or not name.startswith(("RN", "ViT-")) or path.is_file():
        return []
    to = f" --dir {head.WEIGHTS_DIR}" if head.WEIGHTS_DIR else ""
    return [f"VIDEO.HEAD.BACKBONE_WEIGHTS: the weights of {name} are not at {path}. A run fetches them; to do it "
            f"before: python runs/prepare.py weights {name}{to}"]
