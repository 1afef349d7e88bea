"""What several test modules share: one Ray for the whole session, as starting one takes seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def embedded_ray() -> Iterator[None]:
    """A real Ray on this machine with four logical cores, for tests that run a study in this process.

    `cluster.Cluster` uses a Ray that it finds, and leaves it running. Tests that kill Ray itself, or the driver,
    run `nst-batch` as a process of its own instead.
    """
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=128 * 1024**2,
    )
    yield
    ray.shutdown()
