"""The workers of a run: as many as there is room for and batches wait for, on nodes that are going to stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import ray

from nst_batch.cluster.connection import Cluster, draining_nodes
from nst_batch.cluster.retries import Place
from nst_batch.cluster.slots import WorkerSlot
from nst_batch.errors import ClusterError

PLACEMENT_SECONDS = 1800.0
"""How long to wait until a node takes the first worker: an autoscaler may have to find a machine."""
_LOOK_FOR_NODES_SECONDS = 2.0
_SOON_SECONDS = 60.0


class WorkerPool:
    """The workers on `cluster`; `start` starts one there."""

    def __init__(self, cluster: Cluster, start: Callable[[], WorkerSlot]) -> None:
        self.cluster, self._start = cluster, start
        self.slots: list[WorkerSlot] = []
        self.num_slots = 1
        """Workers that there is room for."""
        self._look_for_nodes_at = 0.0
        self._placed_at = time.monotonic()

    def fill(self, has_batches: Callable[[int], bool]) -> None:
        """Keeps a worker for every slot that the cluster has and that a batch waits for; nodes may have joined."""
        now = time.monotonic()
        if now < self._look_for_nodes_at:
            return
        self._look_for_nodes_at = now + _LOOK_FOR_NODES_SECONDS
        self.leave(draining_nodes() | self.cluster.excluded.keys())
        try:
            self.num_slots = self.cluster.num_workers()
        except ClusterError:
            if not any(slot.batches for slot in self.slots):
                raise
            return  # what still runs on nodes that are about to go may end; others may join meanwhile
        self._check_placement(now)
        idle = sum(not slot.batches for slot in self.slots)
        while len(self.slots) < self.num_slots and has_batches(idle + 1):
            self.slots.append(self._start())
            idle += 1

    def _check_placement(self, now: float) -> None:
        """Nothing pends for ever."""
        if not self.slots or any(slot.node_id for slot in self.slots):
            self._placed_at = now
        elif now - self._placed_at > PLACEMENT_SECONDS:
            raise ClusterError(
                f"after {PLACEMENT_SECONDS / 60:.0f} min no node has taken any of {self.cluster.describe()}: "
                f"others use them all, or the autoscaler cannot bring them; `ray status` on the head says which"
                f"{self.cluster.exclusions()}"
            )

    def wait(self, seconds: float) -> None:
        """Starts nothing for so long; then looks for nodes at once."""
        self._look_for_nodes_at = time.monotonic() + seconds

    def places(self) -> list[Place]:
        """Where batches can be run now, or soon: at workers that are ready or have just been started."""
        recent = time.monotonic() - _SOON_SECONDS
        return [slot.place for slot in self.slots if not slot.leaving and (slot.is_ready or slot.since > recent)]

    def load(self) -> tuple[int, float]:
        """The workers that are ready, and the seconds that all together have spent on batches that are not back."""
        now = time.monotonic()
        busy_seconds = sum(now - slot.since for slot in self.slots if slot.batches)
        return sum(not slot.starting for slot in self.slots), busy_seconds

    def leave(self, nodes: Collection[str]) -> None:
        """Releases idle workers on nodes that are about to go, or sick; the others there get no new batch."""
        for slot in list(self.slots):
            slot.leaving = slot.leaving or slot.node_id in nodes
            if slot.leaving and not slot.batches:
                self.end(slot)

    def release_all_but_a_spare(self) -> None:
        """Ends the idle workers; while others work one is kept, on another node if it can be, for a second try."""
        busy = {slot.node_id for slot in self.slots if slot.batches}
        idle = [slot for slot in self.slots if not slot.batches]
        idle.sort(key=lambda slot: (not slot.is_ready, slot.node_id in busy))
        for slot in idle[1:] if busy else idle:
            self.end(slot)

    def has_ready(self, *, besides: str) -> bool:
        """Whether a worker is ready on another node than this."""
        return any(slot.is_ready and slot.node_id != besides for slot in self.slots)

    def end(self, slot: WorkerSlot) -> None:
        """Ends a worker, which may be dead already, or alive and out of reach."""
        ray.kill(slot.actor)
        self.slots.remove(slot)

    def close(self) -> None:
        """Ends all workers."""
        for slot in list(self.slots):
            self.end(slot)
