"""How a worker uses its machine: apart from the worker, so that whoever starts one need not load torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GPU_BATCH = 16
"""Trials per batch on GPUs, at most; a worker whose memory holds fewer works through it in parts."""
CPU_BATCH = 1
"""On a CPU: convolutions of a single image fill the cores."""
MAX_CPUS_PER_WORKER = 4
"""Cores that a worker takes where there are no GPUs: with more, convolutions of one image gain little."""

Encoding = Literal["png", "jpeg", "webp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How a worker uses its machine; none of it changes what a trial means."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """Of the CPU; None leaves torch's choice."""
    format: Encoding = "png"
    quality: int = 95
