"""A study from beginning to end: resolve, plan or resume, dispatch, commit, and say how it went."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import nst_batch
from nst_batch.cluster.actor import WorkerActor
from nst_batch.cluster.connection import Cluster, ClusterOptions
from nst_batch.cluster.dispatch import Dispatcher
from nst_batch.cluster.embedded import EmbeddedRay
from nst_batch.cluster.pace import Pace
from nst_batch.cluster.progress import Progress, Reporter, Silent
from nst_batch.cluster.retries import failure
from nst_batch.errors import ClusterError, Interrupted
from nst_batch.inputs import weights
from nst_batch.inputs.finding import Listing, list_inputs
from nst_batch.interrupts import Interrupts, ended_by
from nst_batch.records import CPU_BATCH, GPU_BATCH, Configuration, Result, Trial, WorkerOptions, canonical_json
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.extension import extension
from nst_batch.study.model import Study
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, make_plan

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
    worker_class: type = WorkerActor


def run_study(study: Study, options: RunOptions, reporter: Reporter | None = None) -> Progress:
    """Runs a study, or what is missing of it, and returns how it ended.

    Raises:
        StudyError: The study cannot be run as written.
        RunDirectoryError: The directory cannot be used, is locked, or holds another study.
        WeightsError, ClusterError: As they say.
        Interrupted: SIGINT or SIGTERM came; everything that had finished is on disk.
    """
    reporter = reporter or Silent()
    with Interrupts() as interrupts:
        listing = list_inputs(study.content, study.style, study.pairs)
        network = study.network
        found = weights.resolve(network.weights, network.arch, network.pooling, network.normalization)
        chosen = tuple(study.configurations(weights_sha256=found.sha256, normalization=found.normalization))
        with (
            Committer(RunDirectory(options.out)) as committer,
            EmbeddedRay() as embedded,
            Cluster(options.cluster, options.device) as cluster,
        ):
            interrupts.reinstall()  # Ray takes SIGTERM for itself when it starts
            reporter.note(cluster.describe())
            _plan(committer, study, listing, chosen, options, cluster, reporter)
            if options.retry_failed:
                reporter.note(f"{committer.retry_failed()} failed trials will be tried again")
            drive = _Drive(committer, cluster, embedded, options, study, reporter, interrupts)
            with interrupts.held():
                drive.run(chosen[0])
                return drive.finish()


def _plan(
    committer: Committer,
    study: Study,
    listing: Listing,
    configurations: tuple[Configuration, ...],
    options: RunOptions,
    cluster: Cluster,
    reporter: Reporter,
) -> None:
    """Plans a new run directory, and extends an old one whose study or pictures are not as they were."""
    fingerprint = _fingerprint(study, listing.fingerprint, configurations)
    if committer.run.exists() and committer.run.study["fingerprint"] == fingerprint:
        return
    most = options.batch_size or (GPU_BATCH if cluster.uses_gpus else CPU_BATCH)
    plan = make_plan(study, listing, configurations=configurations, batch_size=most)
    if options.batch_size is None:
        plan = _balanced(plan, cluster.num_workers())
    _tell(plan, reporter)
    trials = _extension(committer, plan) if committer.run.exists() else plan.trials()
    committer.write_plan(_study_json(study, fingerprint), trials)


def _extension(committer: Committer, plan: Plan) -> Iterator[Trial]:
    run = committer.run
    return extension(plan, where=run.directory.url(), study=run.study["study"], planned=run.plan)


def _balanced(plan: Plan, num_workers: int) -> Plan:
    """The plan in batches of such a size that every worker is busy in the last round too.

    Cut here and not when workers run idle: batches are part of the plan, so that a resumed run repeats them.
    """
    rounds = math.ceil(plan.num_trials / (plan.batch_size * num_workers))
    return replace(plan, batch_size=math.ceil(plan.num_trials / (num_workers * max(1, rounds))) or 1)


class _Drive:
    """The part of a run that computes."""

    def __init__(
        self,
        committer: Committer,
        cluster: Cluster,
        embedded: EmbeddedRay,
        options: RunOptions,
        study: Study,
        reporter: Reporter,
        interrupts: Interrupts,
    ) -> None:
        self.committer, self.options, self.reporter = committer, options, reporter
        self.embedded, self.interrupts = embedded, interrupts
        self._started = time.monotonic()
        self._told = 0.0
        self._pace = Pace(_work(committer))
        self.worker_options = WorkerOptions(
            device=options.device if cluster.uses_gpus or options.device != "auto" else "cpu",
            threads=None if cluster.uses_gpus else cluster.cpus_per_worker,
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
            on_results=self._commit,
            on_tick=self._tick,
            worker_class=self.options.worker_class,
            inputs=_samples(self.committer),
        )
        try:
            self.dispatcher.run()
        except ClusterError:
            self.committer.flush()  # now: a Ray that is broken may take long to end
            raise

    def finish(self) -> Progress:
        """How the run ended.

        Raises:
            Interrupted: A signal ended it before every trial had.
        """
        done = self.committer.finish()
        progress = self._progress()
        self._tell(progress)
        if done:
            return progress
        ended = f"{progress.num_trials - progress.pending} of {progress.num_trials} trials"
        number = self.interrupts.received
        if number is None:
            raise ClusterError(f"only {ended} have a result; run the same command again to go on")
        safe = f"{ended} are safe in {self.options.out}"
        raise Interrupted(number, f"{ended_by(number)}: {safe}; run the same command again to go on")

    def _batches(self) -> Iterator[Sequence[Trial]]:
        """The batches that are left; trials that cannot run are recorded on the way."""
        trials = self.committer.run.iter_plan(skip=self.committer.ended)
        for batch, members in groupby(trials, key=lambda trial: trial.batch):
            if batch != BAD_INPUT_BATCH:
                yield list(members)
                continue
            for trial in members:
                self._commit([failure(trial, trial.error_type, trial.error_message)])
                if self.interrupts.received is not None:
                    return

    def _commit(self, results: Sequence[Result]) -> None:
        self.committer.commit_all(results)
        self._pace.learn(results)
        if self.dispatcher:
            self.dispatcher.monitor.recorded(results)
        for result in results:
            self.reporter.ended(result)

    def _tick(self) -> bool:
        self.committer.tick()
        self.embedded.check()
        if time.monotonic() - self._told >= _PROGRESS_SECONDS:
            self._tell(self._progress())
        return self.interrupts.received is not None

    def _tell(self, progress: Progress) -> None:
        self._told = time.monotonic()
        self.committer.write_progress(
            {name: getattr(progress, name) for name in Progress.__slots__}
            | {"updated_at": datetime.now(UTC).isoformat()}
        )
        if self.dispatcher:
            self.dispatcher.monitor.progress(progress.pending, progress.num_workers)
        self.reporter.progress(progress)

    def _progress(self) -> Progress:
        counts, elapsed = self.committer.counts(), time.monotonic() - self._started
        dispatcher = self.dispatcher
        num_workers = dispatcher.num_workers if dispatcher else 0
        busy_seconds = dispatcher.busy_seconds if dispatcher else 0.0
        return Progress(
            num_trials=sum(counts.values()),
            ok=counts["ok"],
            failed=counts["failed"],
            diverged=counts["diverged"],
            pending=counts["pending"],
            num_workers=num_workers,
            worker_deaths=dispatcher.deaths if dispatcher else 0,
            elapsed_seconds=elapsed,
            eta_seconds=self._pace.seconds_left(num_workers, busy_seconds) if counts["pending"] else None,
        )


def _work(committer: Committer) -> float:
    """The pixels of all trials that have not ended."""
    plan = committer.run.plan(["width", "height"])
    pixels = plan["width"].to_numpy().astype(float) * plan["height"].to_numpy()
    return float(pixels[~committer.ended].sum())


def _samples(committer: Committer) -> list[str]:
    """Some local files that this process sees and every worker must."""
    trial = next(committer.run.iter_plan(skip=committer.ended), None)
    if trial is None:
        return []
    pictures = [picture.uri for picture in (trial.content, *trial.styles) if picture]
    return [path for path in (*pictures, trial.configuration.weights) if Path(path).is_file()]


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
