"""Four classes of five tiny clips a split, and what is built of them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from datasets import transforms
from datasets.annotations import read_split_list
from datasets.episodes import EpisodeSampler
from datasets.few_shot import FewShotDataset
from datasets.frame_sampling import FrameSampling, sample_frames
from datasets.videos import Videos
from utils.config import load_config

CLASSES, CLIPS, T = 4, 5, 4
NAMES = {split: [f"{split} {k}" for k in range(CLASSES)] for split in ("train", "val", "test")}


def write_clip(path: Path, level: int, side: int = 32) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.height = stream.width = side
        stream.pix_fmt, stream.thread_count, stream.options = "yuv420p", 1, {"preset": "ultrafast"}
        for i in range(9):
            picture = np.full((side, side, 3), level + 2 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def make_dataset(root: Path, split="test", seed=0, training=False, query=2, list_format="HMDB_few_shot",
                 decoder="decord", **changes) -> FewShotDataset:
    records = read_split_list(root / f"{split}_few_shot.txt", split, list_format)
    sampler = EpisodeSampler(records, split=split, seed=seed, way=3, shot=1, query=query)
    frames = partial(sample_frames, sampling=FrameSampling(T, 50, 12, "random", "drop"), training=training)
    pixels = transforms.PixelSettings(20, 16, [0.0] * 3, [1.0] * 3)
    augmentation = transforms.Augmentation(
        transforms.Jitter(0.5, 0.5, 0.5, 0.25, 0.3), None, random_flip=True, color_aug=training,
        support_query_diff=False, support_query_diff_support=False)
    support, query = (transforms.train_transforms(pixels, augmentation) if training else
                      (transforms.test_transform(pixels),) * 2)
    settings = {"videos": Videos(records, root, list_format, decoder), "sampler": sampler, "frames": frames,
                "support_transform": support, "query_transform": query, "length": 6}
    return FewShotDataset(**{**settings, **changes})


def same(one, two) -> bool:
    return one.spec == two.spec and torch.equal(one.support_NTCHW, two.support_NTCHW) and torch.equal(
        one.query_MTCHW, two.query_MTCHW)


def config(root: Path, **changes):
    """A small run's configuration; changes are written SECTION__KEY=value, or SECTION__PART__KEY."""
    project = root / "project.yaml"
    project.write_text(
        f"DATA: {{DATA_ROOT_DIR: {root}, ANNO_DIR: {root}, NUM_INPUT_FRAMES: {T}, TRAIN_JITTER_SCALES: [20, 20], "
        "TRAIN_CROP_SIZE: 16, TEST_SCALE: 20, TEST_CROP_SIZE: 16}\n"
        f"TRAIN: {{DATASET_FEW: HMDB_few_shot, CLASS_NAME: {NAMES['train']}, VAL_CLASS_NAME: {NAMES['val']}, WAY: 3, "
        "QUERY_PER_CLASS: 2, NUM_TRAIN_TASKS: 5, NUM_TEST_TASKS: 4, NUM_VAL_TASKS: 3}\n"
        f"TEST: {{CLASS_NAME: {NAMES['test']}}}\nNUM_GPUS: 0\nDATA_LOADER: {{NUM_WORKERS: 0}}\n")
    cfg = load_config(project)
    for name, value in changes.items():
        *sections, key = name.split("__")
        cfg = change(cfg, sections, key, value)
    return cfg


def change(node, sections, key, value):
    if not sections:
        return replace(node, **{key: value})
    head, *rest = sections
    return replace(node, **{head: change(getattr(node, head), rest, key, value)})
