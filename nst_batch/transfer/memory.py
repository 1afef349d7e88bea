"""The memory of a device: what there is, and how this process keeps what it has freed."""

from __future__ import annotations

import ctypes

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES = (
    64 << 20
)  # larger tensors are handed back: among few of them, kept memory is in pieces that do not fit


def gpu_bytes(device: torch.device) -> tuple[int, int]:
    """(free, all) of a GPU's memory."""
    free, total = torch.cuda.mem_get_info(device)
    return free, total


def keep_freed_memory() -> None:
    """Has this process keep the memory of tensors that it frees, up to 64 MiB each, where its C library is glibc.

    Every step on a CPU frees what the next one allocates; memory that is handed back and asked for again costs a
    fault for each of its pages. Measured at 300 pixels, over the bare convolutions: 1.16 instead of 1.22 with one
    image, 1.19 instead of 1.35 with two.
    """
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        allocator.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
