"""Say what becomes of memory that is freed: a training on a CPU needs it again in the next step."""

import ctypes

# mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_PAD = 64 << 20  # bytes that the heap grows by at least


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, from here on; return whether it can.

    Else every large array of a step comes from the system anew, which fills its pages with zeros one by one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, macOS and Windows have none
    return mallopt is not None and all(
        [mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_TOP_PAD, _PAD)])


def give_back_memory() -> None:
    """Give what is free of this process back to the system, where the C library can."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
