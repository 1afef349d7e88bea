"""The one writer of a run directory: every trial recorded exactly once, however often anything is killed.

A result goes through three steps, each of which is one atomic write:

1. Its picture is written to `images/`, under a name that its trial_id determines.
2. Its row, with curve and layers nested, goes into a segment in `staging/`. From here on it counts as done.
3. When the last trial of its part has ended, the part's rows are written to `curves/`, to `layers/` and at last to
   `trials/`, which decides; only then are segments removed of which every row is published.

So at any instant a trial is in at most one published file, a kill loses only what was not yet staged, and whatever
a killed writer left half done is found and finished when the next one opens the directory: a staged row counts only
if its attempt is later than the published one, so doing a step again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from nst_batch.errors import RunDirectoryError
from nst_batch.records import Result, Trial
from nst_batch.store import rows, tables
from nst_batch.store.files import STAGING
from nst_batch.store.lock import check_writable, run_lock
from nst_batch.store.plan_files import write_plan
from nst_batch.store.run_directory import PROGRESS, SUCCESS, RunDirectory, image_path, part_name
from nst_batch.store.snapshot import STATES, Mask, TrialStatus

SEGMENT_ROWS = 256
"""A segment that has as many is closed and the next one begun; until then each flush rewrites it."""
FLUSH_SECONDS = 5.0
"""A result is staged at the latest this long after its commit, as long as `tick` is called."""

_IMAGES_AT_ONCE, _IMAGES_WAITING = 16, 32  # an object store answers after tens of milliseconds


class Committer:
    """Writes a run directory, in a `with` block that holds its lock; flushes when the block ends.

    Args:
        run: The directory, empty or made by an earlier run. What that run left half done is finished.
        segment_rows: Results that are staged together at most.
        flush_seconds: How long a result may wait to be staged.

    Raises:
        LockedError: On entry, if another process is writing to it; later, if this process lost the lock.
        RunDirectoryError: If it holds something else, or cannot be written.
    """

    _status: TrialStatus
    _published: npt.NDArray[np.uint16]
    """The published attempt of every trial, 0 for none."""
    _staged: dict[str, set[int]]
    """The segments in `staging/`, each with the parts of which it has rows that are not published."""
    _rows: list[dict[str, Any]]
    """Of the open segment at `_segment_path`."""
    _num_staged: int
    """How many of them it has on disk."""

    def __init__(
        self, run: RunDirectory, *, segment_rows: int = SEGMENT_ROWS, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        self.run, self._directory = run, run.directory
        self._segment_rows, self._flush_seconds = segment_rows, flush_seconds
        self._writer, self._num_segments = secrets.token_hex(4), 0
        self._flushed_at = time.monotonic()
        self._images = deque[Future[None]]()

    def __enter__(self) -> Self:
        check_writable(self.run)
        with ExitStack() as stack:
            self._lock = run_lock(self._directory)
            stack.enter_context(self._lock)
            self._pool = stack.enter_context(ThreadPoolExecutor(_IMAGES_AT_ONCE, "nst-batch images"))
            self._recover()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if not isinstance(error, RunDirectoryError):
                self.flush()

    @property
    def ended(self) -> Mask:
        """True at the `trial_index` of every trial that has ended, now or in an earlier run."""
        return self._status.ended

    def counts(self) -> dict[str, int]:
        """The trials by state: pending, ok, failed, diverged."""
        return self._status.counts()

    def write_plan(
        self, study: dict[str, Any], trials: Iterable[Trial], names: Mapping[str, str] | None = None
    ) -> None:
        """Makes `trials` the plan, or adds them to the plan that there is.

        Args:
            study: What study.json is to say; `name` is required. The plan's size and its configurations are added.
            trials: In order, `trial_index` going on from the existing plan's without gaps. Those with an earlier
                `trial_index` replace what was planned, and are pending whatever was recorded. Read once, lazily.
            names: Where pictures and weights are now, by the SHA-256 of what they hold. Pending and failed trials
                get these names; their ids stay. Secrets of URLs are kept apart, in `private/`.

        Raises:
            ValueError: If `trial_index` has a gap.
        """
        self.flush()
        self._remove_success()
        unfinished = ~self._status.ended | self._status.failed
        write_plan(self.run, self._write, study, trials, names or {}, unfinished)
        self._recover()

    def retry_failed(self) -> int:
        """Makes every failed trial pending again and says how many; their rows stay until new ones replace them."""
        self.flush()
        if num_failed := self.counts()["failed"]:
            self._remove_success()
            self._status.states[self._status.failed] = 0
        return num_failed

    # Committing

    def commit(self, *results: Result) -> int:
        """Records results, unless their trials have ended already, and says how many were new.

        Those that are given together, the results of a batch, are left together by a kill, or none of them: so a
        resumed run repeats whole batches. They are safe once they are flushed. `image_path` and `image_sha256` are
        set here, and `attempt` counts on from the attempts of earlier runs.
        """
        added = sum([self._add(result) for result in results])
        if len(self._rows) >= self._segment_rows:
            self.flush()
        else:
            self.tick()
        return added

    def _add(self, result: Result) -> bool:
        """Takes a result to be staged, unless its trial has ended already."""
        index, num_trials = result.trial.trial_index, len(self._status.attempts)
        if not 0 <= index < num_trials:
            raise ValueError(f"trial_index {index} is not in the plan, which has {num_trials} trials")
        if self._status.states[index]:
            return False
        attempt = int(self._status.attempts[index]) + result.outcome.attempt
        outcome = replace(result.outcome, attempt=attempt)
        if result.image is not None:
            path = image_path(result.trial.trial_id, result.image)
            outcome = replace(outcome, image_path=path, image_sha256=hashlib.sha256(result.image).hexdigest())
            self._await_images(_IMAGES_WAITING)
            self._images.append(self._pool.submit(self._write, path, result.image))
        self._rows.append(rows.result_row(self.run.study["name"], replace(result, outcome=outcome)))
        self._status.attempts[index], self._status.states[index] = attempt, STATES.index(outcome.status)
        return True

    def _await_images(self, allowed: int = 0) -> None:
        """Returns when at most `allowed` are still being written; one that failed fails here each time."""
        while len(self._images) > allowed:
            self._images[0].result()
            self._images.popleft()

    def tick(self) -> None:
        """Flushes if a result has waited long enough. Call it at least every second or so."""
        if len(self._rows) > self._num_staged and time.monotonic() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Stages every committed result, then publishes the parts that are whole."""
        self._await_images()
        if len(self._rows) > self._num_staged:
            segment = pa.Table.from_pylist(self._rows, tables.SEGMENT)
            sink = pa.BufferOutputStream()
            feather.write_feather(segment, sink, compression="uncompressed")
            self._write(self._segment_path, sink.getvalue().to_pybytes())
            fresh = self.run.part_of(segment.slice(self._num_staged)).tolist()
            self._staged.setdefault(self._segment_path, set()).update(fresh)
            self._num_staged = len(self._rows)
            if len(self._rows) >= self._segment_rows:
                self._begin_segment()
        self._flushed_at = time.monotonic()
        self._publish_whole_parts()

    def finish(self) -> bool:
        """Flushes, and writes `_SUCCESS` if every trial of the plan has ended; says whether that is so."""
        self.flush()
        done = bool(self.ended.all())
        if done:
            self._write(SUCCESS, json.dumps(self.counts()).encode())
        return done

    def _remove_success(self) -> None:
        self._lock.check()
        self._directory.remove(SUCCESS)

    def write_progress(self, progress: dict[str, Any]) -> None:
        """Replaces progress.json, unless the directory was taken over."""
        self._lock.check()
        self._directory.write(PROGRESS, json.dumps(progress, allow_nan=False).encode())

    def _write(self, path: str, data: bytes) -> None:
        """Publishes a file, unless the directory was taken over."""
        self._directory.write(path, data, self._lock.check)

    def _begin_segment(self) -> None:
        self._num_segments += 1
        self._segment_path = f"{STAGING}/segment-{self._writer}-{self._num_segments:06d}.arrow"
        self._rows, self._num_staged = [], 0

    # Publishing

    def _publish_whole_parts(self) -> None:
        """Publishes parts of which all trials have ended; removes the segments of which all rows are published."""
        for part in sorted(set().union(*self._staged.values())):
            if self._status.states[self.run.trials_of(part)].all():
                self._publish(part)
        for path in [path for path, parts in self._staged.items() if not parts]:
            del self._staged[path]
            self._directory.remove(path)
            if path == self._segment_path:
                self._begin_segment()

    def _publish(self, part: int) -> None:
        """Writes a part from its published rows and the newer staged ones."""
        staged = (self.run.read_segment(path) for path, parts in self._staged.items() if part in parts)
        fresh = rows.joined(segment.filter(pa.array(self.run.part_of(segment) == part)) for segment in staged)
        fresh = rows.newer(fresh, self._published)
        file, trials = part_name(part), self.run.trials_of(part)
        if fresh.num_rows:
            for name in tables.SCHEMAS:  # trials last: it decides
                table = rows.split(fresh, name)
                if self._published[trials].any():
                    table = rows.replaced(self.run.read(name, [f"{name}/{file}"]), fresh["trial_index"], table)
                self._write(f"{name}/{file}", tables.parquet_bytes(table, name))
            self._published[trials] = self._status.attempts[trials]
        for parts in self._staged.values():
            parts.discard(part)

    # Opening

    def _recover(self) -> None:
        """Learns what has ended from the published parts and the staged segments, and finishes what was begun."""
        self.run.forget()
        self._status = TrialStatus(self.run.num_trials if self.run.exists() else 0)
        self._begin_segment()
        for file in self.run.parts():
            self._status.learn(self.run.read("trials", [f"trials/{file}"], TrialStatus.COLUMNS))
        self._published = self._status.attempts.copy()
        self._staged = {}
        for path in self.run.segment_paths():
            unpublished = rows.newer(self.run.read_segment(path), self._published)
            self._status.learn(unpublished)
            self._staged[path] = set(self.run.part_of(unpublished).tolist())
        self._reopen_replaced()
        if not self.ended.all():
            self._remove_success()
        self._publish_whole_parts()

    def _reopen_replaced(self) -> None:
        """Makes failed trials pending in whose place the plan has another one by now."""
        failed = self._status.failed
        if failed.any():
            recorded = self.run.table("trials", ["trial_index", "trial_id"])
            recorded = recorded.filter(pa.array(failed[recorded["trial_index"].to_numpy()]))
            planned = self.run.plan(["trial_id"])["trial_id"].take(recorded["trial_index"])
            other = pc.not_equal(recorded["trial_id"], planned)
            self._status.states[recorded["trial_index"].filter(other).to_numpy()] = 0
