"""How the cluster and its workers are to be used; nothing here changes a result. Imports no Ray."""

from __future__ import annotations

from dataclasses import dataclass

from nst_batch.vocabulary import Encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """Where to run, and how large a worker is."""

    address: str | None = None
    """`auto` or HOST:PORT joins that cluster; None starts Ray here, or inside a Ray job joins the job's cluster."""
    gpus_per_worker: float = 1.0
    """A fraction lets several workers share a GPU."""
    cpus_per_worker: int | None = None
    """Where no GPU is used; None: all cores of the smallest node, four at most."""
    max_workers: int | None = None
    """Workers, at most. On a cluster that was joined, as many are asked for, so that an autoscaler brings them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How a worker uses its machine."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """Of the CPU; None leaves torch's choice."""
    tile: int | None = None
    """Rows that are computed together, 0 for the whole image; None chooses by the memory."""
    memory_bytes: int = 0
    """That each worker of a machine without GPUs reserves; 0 where that is not known."""
    format: Encoding = "png"
    quality: int = 95
    """1 to 100, of JPEG and WebP."""
