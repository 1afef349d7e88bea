"""What several test modules share: one Ray for the whole session, as starting one takes seconds."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator

import pytest

from tests import driver

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # How seldom Ray's own processes gather logs and statistics, which nobody looks at here: by default that takes a
    # tenth of the processor time of all tests.
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_DASHBOARD_AGENT_LOOP_MONITOR_INTERVAL_S": "10",
    "RAY_prestart_worker_first_driver": "0",  # a process per core that nobody needs
    "RAY_worker_niceness": "0",  # else its workers starve beside other tests
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, so that no process is left with one when the others have ended: slow ones, then Ray's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    on_ray = {item.path for item in items if "embedded_ray" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path not in slow, item.path not in on_ray))


@pytest.fixture(autouse=True)
def _no_driver_outlives_its_test() -> Iterator[None]:
    """A test that fails while its driver runs must not make the next ones fail."""
    yield
    while driver.RUNNING:
        process = driver.RUNNING.pop()
        with process:  # closes its pipes and waits
            process.kill()


@pytest.fixture(scope="session")
def embedded_ray() -> Iterator[str]:
    """The address of a real Ray on this machine with four logical cores.

    `cluster.Cluster` uses a Ray that this process has started, and leaves it running; other processes can join it
    with `--address`. Tests that kill Ray itself start their own.
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
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
    with warnings.catch_warnings():  # Ray forgets its processes before they have ended
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
