"""Clips of noise, and transforms that leave grey levels as they are."""

import numpy as np

from datasets import transforms
from datasets.transforms import Jitter

PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3}
JITTER = Jitter(0.5, 0.5, 0.5, 0.25, 0.3)
OFF = {"jitter": JITTER, "erasing": None, "random_flip": False, "color_aug": False, "support_query_diff": False,
       "support_query_diff_support": False}


def picture(height=40, width=60, frames=4, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def augmented(scale, crop, changes):
    settings = {**PLAIN, **OFF, **changes}
    pixels = transforms.PixelSettings(scale, crop, settings.pop("mean"), settings.pop("std"))
    return transforms.train_transforms(pixels, transforms.Augmentation(**settings))


def query(scale=(36, 36), crop=32, **changes):
    return augmented(scale, crop, changes)[1]


def unaugmented(scale, crop, mean, std):
    return transforms.test_transform(transforms.PixelSettings(scale, crop, mean, std))
