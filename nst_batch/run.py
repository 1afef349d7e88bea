"""A study from beginning to end: resolve, plan or resume, dispatch, commit, and say how it went."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from types import FrameType
from typing import Any, Protocol

import nst_batch
from nst_batch import weights
from nst_batch.cluster import Cluster, ClusterOptions
from nst_batch.committer import Committer
from nst_batch.dispatch import Dispatcher
from nst_batch.errors import Interrupted
from nst_batch.extend import extension
from nst_batch.inputs import list_inputs
from nst_batch.plan import BAD_INPUT_BATCH, Plan, make_plan
from nst_batch.records import Configuration, Outcome, Result, Trial, canonical_json
from nst_batch.store import RunDirectory
from nst_batch.study import Study
from nst_batch.worker import Worker, WorkerOptions

GPU_BATCH = 16  # trials per batch at most; a worker whose memory holds fewer works through it in parts
_PROGRESS_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How to run a study; nothing here changes its results."""

    out: str
    """The run directory: a path or an fsspec URL."""
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    device: str = "auto"
    batch_size: int | None = None
    """Trials per batch; None: one on a CPU, up to 16 on GPUs."""
    retry_failed: bool = False
    worker_class: type = Worker


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands."""

    num_trials: int
    ok: int
    failed: int
    diverged: int
    pending: int
    num_workers: int
    worker_deaths: int
    elapsed_seconds: float
    eta_seconds: float | None
    """None until a first trial has ended in this run."""


class Reporter(Protocol):
    """Whoever wants to hear how a run goes."""

    def note(self, text: str) -> None:
        """One line that a person should see once."""

    def progress(self, progress: Progress) -> None:
        """Every two seconds or so, and at the end."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def progress(self, progress: Progress) -> None:
        """Says nothing."""


def run_study(study: Study, options: RunOptions, reporter: Reporter | None = None) -> Progress:
    """Runs a study, or what is missing of it, and returns how it ended.

    Raises:
        StudyError: The study cannot be run as written.
        RunDirectoryError: The directory cannot be used, is locked, or holds another study.
        WeightsError, ClusterError: As they say.
        Interrupted: SIGINT or SIGTERM came; everything that had finished is on disk.
    """
    reporter = reporter or Silent()
    listing = list_inputs(study.content, study.style, study.pairs)
    network = study.network
    found = weights.resolve(network.weights, network.arch, network.pooling, network.normalization)
    configurations = tuple(study.configurations(weights_sha256=found.sha256, normalization=found.normalization))
    with Committer(RunDirectory(options.out)) as committer, Cluster(options.cluster) as cluster, _signals() as stop:
        reporter.note(cluster.describe())
        fingerprint = _fingerprint(study, listing.fingerprint, configurations)
        if not committer.run.exists() or committer.run.study["fingerprint"] != fingerprint:
            plan = make_plan(
                study, listing, configurations=configurations, batch_size=_batch_size(options, cluster)
            )
            _tell(plan, reporter)
            trials = extension(committer.run, plan) if committer.run.exists() else plan.trials()
            committer.write_plan(_study_json(study, fingerprint), trials)
        if options.retry_failed:
            reporter.note(f"{committer.retry_failed()} failed trials will be tried again")
        drive = _Drive(committer, cluster, options, study, reporter, stop)
        drive.run(configurations[0])
        return drive.finish()


class _Drive:
    """The part of a run that computes."""

    def __init__(
        self,
        committer: Committer,
        cluster: Cluster,
        options: RunOptions,
        study: Study,
        reporter: Reporter,
        stop: Callable[[], int | None],
    ) -> None:
        self.committer, self.options, self.reporter, self.stop = committer, options, reporter, stop
        self._started = time.monotonic()
        self._told = 0.0
        self._pending_at_start = committer.counts()["pending"]
        self._first_result: float | None = None
        self.worker_options = WorkerOptions(
            device=options.device if cluster.num_gpus or options.device != "auto" else "cpu",
            threads=None if cluster.num_gpus else cluster.cpus_per_worker,
            format=study.output.format,
            quality=study.output.quality,
        )
        self.cluster = cluster
        self.dispatcher: Dispatcher | None = None

    def run(self, configuration: Configuration) -> None:
        self.dispatcher = Dispatcher(
            self.cluster,
            self.worker_options,
            configuration,
            self._batches(),
            on_result=self._commit,
            on_tick=self._tick,
            worker_class=self.options.worker_class,
        )
        self.dispatcher.run()

    def finish(self) -> Progress:
        done = self.committer.finish()
        progress = self._progress()
        self._tell(progress)
        number = self.stop()
        if number is not None and not done:
            raise Interrupted(
                number,
                f"stopped by {signal.Signals(number).name}: {progress.num_trials - progress.pending} of "
                f"{progress.num_trials} trials are safe in {self.options.out}; run the same command again to go on",
            )
        return progress

    def _batches(self) -> Iterator[Sequence[Trial]]:
        """The batches that are left; trials that cannot run are recorded on the way."""
        trials = self.committer.run.iter_plan(skip=self.committer.ended)
        for batch, members in groupby(trials, key=lambda trial: trial.batch):
            if batch == BAD_INPUT_BATCH:
                for trial in members:
                    self._commit(_refused(trial))
            else:
                yield list(members)

    def _commit(self, result: Result) -> None:
        if result.trial.batch != BAD_INPUT_BATCH and self._first_result is None:
            self._first_result = time.monotonic()
        self.committer.commit(result)

    def _tick(self) -> bool:
        self.committer.tick()
        if time.monotonic() - self._told >= _PROGRESS_SECONDS:
            self._tell(self._progress())
        return self.stop() is not None

    def _tell(self, progress: Progress) -> None:
        self._told = time.monotonic()
        self.committer.write_progress(
            {name: getattr(progress, name) for name in Progress.__slots__}
            | {"updated_at": datetime.now(UTC).isoformat()}
        )
        self.reporter.progress(progress)

    def _progress(self) -> Progress:
        counts, elapsed = self.committer.counts(), time.monotonic() - self._started
        done = self._pending_at_start - counts["pending"]
        eta = elapsed / done * counts["pending"] if self._first_result is not None and done else None
        return Progress(
            num_trials=sum(counts.values()),
            ok=counts["ok"],
            failed=counts["failed"],
            diverged=counts["diverged"],
            pending=counts["pending"],
            num_workers=self.dispatcher.num_workers if self.dispatcher else 0,
            worker_deaths=self.dispatcher.deaths if self.dispatcher else 0,
            elapsed_seconds=elapsed,
            eta_seconds=eta,
        )


def _refused(trial: Trial) -> Result:
    now = datetime.now(UTC)
    outcome = Outcome(
        status="failed",
        error_type=trial.error_type,
        error_message=trial.error_message,
        code_version=nst_batch.__version__,
        started_at=now,
        finished_at=now,
    )
    return Result(trial=trial, outcome=outcome)


def _batch_size(options: RunOptions, cluster: Cluster) -> int:
    if options.batch_size:
        return options.batch_size
    return GPU_BATCH if cluster.num_gpus and options.device != "cpu" else 1


def _fingerprint(study: Study, listing: str, configurations: Sequence[Configuration]) -> str:
    """Equal when planning again would give the same plan."""
    identities = [configuration.identity() for configuration in configurations]
    return hashlib.sha256(canonical_json([study.to_dict(), listing, identities]).encode()).hexdigest()


def _study_json(study: Study, fingerprint: str) -> dict[str, Any]:
    return {
        "name": study.name,
        "study": study.to_dict(),
        "fingerprint": fingerprint,
        "created_at": datetime.now(UTC).isoformat(),
        "code_version": nst_batch.__version__,
    }


def _tell(plan: Plan, reporter: Reporter) -> None:
    for picture in plan.bad[:20]:
        reporter.note(f"bad input, its trials will be recorded as failed: {picture.error_message}")
    if len(plan.bad) > 20:
        reporter.note(f"… and {len(plan.bad) - 20} more bad inputs")
    for left_out, same in plan.duplicates[:5]:
        reporter.note(f"{left_out} is left out: it has the same content as {same}")
    if len(plan.duplicates) > 5:
        reporter.note(f"… and {len(plan.duplicates) - 5} more duplicates")


@contextmanager
def _signals() -> Iterator[Callable[[], int | None]]:
    """Turns the first SIGINT or SIGTERM into a request that the loop sees; the second SIGINT ends the process."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            os._exit(128 + number)
        received.append(number)

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
