"""Which device a run gets."""

import torch

from utils.errors import LaunchError


def choose_device(num_gpus: int) -> torch.device:
    """The device of NUM_GPUS. Raises LaunchError that says what to do where the machine lacks it."""
    if num_gpus == 0:
        return torch.device("cpu")
    have = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if have < num_gpus:
        one = "NUM_GPUS 1 for one GPU, or " if have else ""
        raise LaunchError(f"NUM_GPUS: the configuration asks for {num_gpus} CUDA device(s), this machine has {have}. "
                          f"Add {one}NUM_GPUS 0 (CPU) to the command line.")
    if num_gpus > 1:
        raise LaunchError(f"NUM_GPUS: {num_gpus} asked, but this version trains in one process. Add NUM_GPUS 1; "
                          "TRAIN.BATCH_SIZE and BATCH_SIZE_PER_TASK keep their published meaning.")
    return torch.device("cuda", 0)
