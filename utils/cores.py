"""Count the CPU cores of this process."""

import os


def cores() -> int:
    """Return how many CPU cores this process may use (taskset, containers); where the system does not tell, the
    machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
