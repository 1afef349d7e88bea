"""How fast workers are while they compute: a first trial may take hours, and an actor at work answers no call."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable

import ray
from ray.experimental import internal_kv  # Ray has no other place that an actor at work can leave word at

from nst_batch.cluster.progress import Pace

_TELL_SECONDS = 2.0


class PaceTeller:
    """Of one actor, in its process. What cannot be told costs no trial."""

    def __init__(self) -> None:
        self._key = _key(ray.get_runtime_context().get_actor_id() or "")
        self._next = time.monotonic() + _TELL_SECONDS
        self._has_told = False

    def tell(self, pixels: float, seconds: float) -> None:
        """Leaves word for the driver, every two seconds."""
        if time.monotonic() >= self._next:
            self._next, self._has_told = time.monotonic() + _TELL_SECONDS, True
            with contextlib.suppress(Exception):
                internal_kv._internal_kv_put(self._key, json.dumps([pixels, seconds]))

    def fall_silent(self) -> None:
        """Takes back what it told: its batch has ended."""
        self._next = time.monotonic() + _TELL_SECONDS
        if self._has_told:
            self._has_told = False
            with contextlib.suppress(Exception):
                internal_kv._internal_kv_del(self._key)


def pace_of(actor_ids: Iterable[str]) -> Pace:
    """Of all these actors together, as far as they have told anything; in the driver."""
    told = [json.loads(said) for said in map(internal_kv._internal_kv_get, map(_key, actor_ids)) if said]
    return Pace(sum(pixels for pixels, _ in told), sum(seconds for _, seconds in told))


def _key(actor_id: str) -> str:
    return f"nst-batch/pace/{actor_id}"
