"""The CPU cores of this process."""

import os


def cores() -> int:
    """CPU cores this process may use (taskset, containers), where the system tells; else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
