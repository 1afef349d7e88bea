"""How a worker uses its machine: apart from the worker, so that whoever starts one need not load torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
