"""Draw at random as a function of (seed, purpose, index): the same for any number of workers or ranks."""

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """Return a 63-bit seed that depends on every argument and on nothing else.

    `purpose` is what the draw is for ("episode", "frames", "augment"), so that draws never share a stream; `index`
    numbers it (episode, clip, ...).
    """
    text = ":".join([str(int(seed)), purpose, *(str(int(i)) for i in index)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return a NumPy generator for one draw; see `derive_seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, *index)))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices) for what draws from the global generators: weights, dropout."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
