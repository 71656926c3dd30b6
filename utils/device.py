"""Choose a run's device."""

import torch

from utils.errors import LaunchError


def choose_device(num_gpus: int, local_rank: int = 0) -> torch.device:
    """Return the device of NUM_GPUS. Raises LaunchError that says what to do where the machine lacks it."""
    if num_gpus == 0:
        return torch.device("cpu")
    have = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = max(num_gpus, local_rank + 1)
    if have < wanted:
        one = "NUM_GPUS 1 for one GPU, or " if have else ""
        raise LaunchError(f"NUM_GPUS: the configuration asks for {wanted} CUDA device(s), this machine has {have}. "
                          f"Add {one}NUM_GPUS 0 (CPU) to the command line.")
    return torch.device("cuda", local_rank)
