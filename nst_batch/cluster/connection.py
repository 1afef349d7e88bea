"""A connection to Ray: what the cluster has, how many workers fit on it, and how one is started."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import ray
from ray._private import ray_constants  # Ray offers the choice of loopback nowhere else
from ray._private import worker as ray_worker  # nor silence

from nst_batch.cluster.embedded import EmbeddedRay
from nst_batch.cluster.options import ClusterOptions, WorkerOptions
from nst_batch.errors import ClusterError
from nst_batch.inputs import limits
from nst_batch.records import MAX_CPUS_PER_WORKER

_CONNECT_SECONDS = 5.0


class Cluster:
    """A connection to Ray, for a `with` block. Device auto uses GPUs if any node has one; cuda insists on them.

    What a worker reserves is settled by the nodes that are there at the beginning: smaller ones that join later
    get none.
    """

    def __init__(self, options: ClusterOptions, device: str = "auto") -> None:
        self.options, self.device = options, device
        self.worker_bytes = 0
        """Memory that a worker needs where no GPU is used, as far as it is known; 0 sets no bound."""
        self.excluded = dict[str, str]()
        """Nodes that get no workers, by id: the machine, and what failed there last."""

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # those of batches that are tried again
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = _checked_address(self.options.address)
        self._embedded = address == "local"
        with contextlib.ExitStack() as stack:
            self._ray = stack.enter_context(EmbeddedRay())
            if not ray.is_initialized():
                stack.enter_context(_silent_listener())
                _connect(address)
            nodes = self._nodes()
            has_gpus = any(node.get("GPU") for node in nodes)
            self.uses_gpus = self.device.startswith("cuda") or (self.device == "auto" and has_gpus)
            computing = [node for node in nodes if node.get("CPU", 0.0) >= 1]
            smallest = min((int(node["CPU"]) for node in computing), default=1)
            self.cpus_per_worker = self.options.cpus_per_worker or min(MAX_CPUS_PER_WORKER, smallest)
            """CPU cores that a worker reserves where no GPU is used."""
            self._least_memory = min(
                (int(node["memory"]) for node in computing if node.get("memory")), default=None
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raises ClusterError if a Ray that was started here has died."""
        self._ray.check()

    def num_workers(self) -> int:
        """How many workers to keep: as many as there is room for at this moment, or as were asked for."""
        most = self.options.max_workers
        if most and not self._embedded:
            return most
        needs = self._needs()
        room = sum(_room(node, needs) for node in self._nodes())
        if not room:
            raise ClusterError(self._no_room())
        return min(room, most or room)

    def describe(self) -> str:
        """One line about what the run has to work with."""
        count = self.num_workers()
        note = "" if self.uses_gpus or self.device == "cpu" else " (no GPU found)"
        return f"{count} worker{'s' if count > 1 else ''} with {self._size()}{' each' if count > 1 else ''}{note}"

    def start_worker(self, options: WorkerOptions, worker_class: type) -> Any:
        """An actor that holds a worker; it may be pending for a while."""
        needs, labels = self._needs(), {"ray.io/node-id": f"!in({','.join(sorted(self.excluded))})"}
        actor: Any = ray.remote(worker_class).options(
            num_gpus=needs.get("GPU", 0.0),
            num_cpus=needs.get("CPU", 0.0),
            memory=needs.get("memory"),
            label_selector=labels if self.excluded else None,
            max_restarts=0,
            max_task_retries=0,
        )
        return actor.remote(options)

    def _needs(self) -> dict[str, float]:
        """What a worker reserves; of memory no more than the smallest node has."""
        if self.uses_gpus:
            return {"GPU": self.options.gpus_per_worker}
        memory = min(self.worker_bytes, self._least_memory or self.worker_bytes)
        needs: dict[str, float] = {"CPU": self.cpus_per_worker}
        return needs | {"memory": memory} if memory else needs

    def _size(self) -> str:
        if self.uses_gpus:
            return f"{self.options.gpus_per_worker:g} GPU"
        return f"{self.cpus_per_worker} CPU core{'s' if self.cpus_per_worker > 1 else ''}"

    def _no_room(self) -> str:
        if self.excluded:
            return f"no node is left that has the {self._size()} that a worker asks for{self.exclusions()}"
        kind = "GPU" if self.uses_gpus else "CPU"
        found = ", ".join(f"{node.get(kind, 0.0):g}" for node in self._nodes())
        advice = "--gpus-per-worker, or --device cpu" if self.uses_gpus else "--cpus-per-worker"
        scaling = "" if self._embedded else "; on a cluster that scales up from none give --max-workers"
        return (
            f"no node has the {self._size()} that a worker asks for; {kind}s by node: {found or 'none'}; "
            f"choose another {advice}{scaling}"
        )

    def exclusions(self) -> str:
        """Which nodes get no work, and what to do; nothing if all do."""
        told = "; ".join(self.excluded.values())
        return f"; no more work is given to {told}; put that right, then run again to resume" if told else ""

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node offers that is going to stay."""
        away = draining_nodes() | self.excluded.keys()
        return [node["Resources"] for node in _all_nodes() if node["Alive"] and node["NodeID"] not in away]


def hostname(node_id: str) -> str:
    """The name of a node's machine."""
    return next((str(node["NodeManagerHostname"]) for node in _all_nodes() if node["NodeID"] == node_id), node_id)


def _all_nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def draining_nodes() -> frozenset[str]:
    """The ids of the nodes that will go away soon: to be preempted, or released by the autoscaler."""
    from ray._private.state import state  # Ray offers this nowhere else

    return frozenset(state.get_draining_nodes())


def _room(node: dict[str, float], needs: dict[str, float]) -> int:
    """How many workers a node holds; several never share a GPU unless each asks for less than one."""
    share = needs.get("GPU", 1.0)
    if share < 1:
        return int(node.get("GPU", 0.0)) * int(1 / share)
    return min(int(node.get(name, 0.0) / need) for name, need in needs.items())


def _connect(address: str | None) -> None:
    loopback = _loopback_only() if address == "local" else contextlib.nullcontext()
    try:
        if address and ":" in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        with loopback:
            ray.init(
                address=address,
                **_of_this_machine() if address == "local" else {},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises a bare one where a node needs more than half a minute to start
        place = address or "the job’s cluster"
        token = "" if "RAY_AUTH_TOKEN" in os.environ else "; if it asks for a token, set RAY_AUTH_TOKEN"
        raise ClusterError(f"Ray at {place} cannot be reached: {error}{token}") from error


def _of_this_machine() -> dict[str, Any]:
    """What an embedded Ray may use: Ray itself overlooks inner containers, and cores that it is not bound to."""
    return {"num_cpus": limits.num_cores(), "_memory": limits.available_bytes(), "include_dashboard": False}


@contextlib.contextmanager
def _silent_listener() -> Iterator[None]:
    """Keeps off stdout what Ray prints of each worker that dies: a coloured paragraph in what programs read."""
    name = "print_to_stdstream"
    before = getattr(ray_worker, name, None)
    setattr(ray_worker, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(ray_worker, name, before)


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """A Ray that is started within, but none that the caller starts later, listens on loopback alone.

    Nobody else reads its token.
    """
    folder = Path.home() / ".ray"
    with contextlib.suppress(OSError):  # no home that can be written: then Ray says what it needs
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _checked_address(address: str | None) -> str | None:
    """What `ray.init` is given: None only where it finds the cluster by itself."""
    if address is None:
        joined = os.environ.get("RAY_ADDRESS", "")
        inside_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        return None if inside_job or (joined and "://" not in joined) else "local"
    if "://" in address:
        raise ClusterError(
            f"--address: expected auto or HOST:PORT of a running cluster (port 6379), found {address}; "
            f"`nst-batch submit` takes http://HEAD:8265, and ray:// cannot be used"
        )
    return address
