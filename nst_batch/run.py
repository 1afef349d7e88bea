"""A study from beginning to end: resolve, plan or resume, dispatch, commit, and say how it went."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, groupby
from pathlib import Path

import nst_batch
from nst_batch.cluster.connection import Cluster
from nst_batch.cluster.dispatch import Dispatcher
from nst_batch.cluster.interrupts import Interrupts, ended_by
from nst_batch.cluster.options import ClusterOptions, WorkerOptions
from nst_batch.cluster.pool import WorkerActor, WorkerPool, WorkerSlot
from nst_batch.cluster.progress import Progress, Reporter, RunProgress
from nst_batch.cluster.retries import failure
from nst_batch.errors import ClusterError, Interrupted, without_secrets
from nst_batch.inputs import weights
from nst_batch.inputs.finding import Listing, list_inputs
from nst_batch.inputs.fitting import least_bytes
from nst_batch.records import CPU_BATCH, GPU_BATCH, PROCESS_BYTES, Configuration, canonical_json
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import LOGS, RunDirectory
from nst_batch.study.extension import extension, readable_again
from nst_batch.study.model import Study
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, make_plan


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
    reporter = reporter or Reporter()
    with Interrupts() as interrupts:
        listing = list_inputs(*study.inputs)
        network = study.network
        found = weights.resolve(network.weights, network.arch, network.pooling, network.normalization)
        chosen = tuple(study.configurations(weights_sha256=found.sha256, normalization=found.normalization))
        fingerprint = _fingerprint(study, listing, chosen)
        with Committer(RunDirectory(options.out)) as committer:
            planned = _is_planned(committer.run, fingerprint, listing, options)
            if planned and committer.ended.all() and not options.retry_failed:
                return _already_complete(committer, reporter)
            with Cluster(options.cluster, options.device) as cluster:
                interrupts.reinstall()  # Ray takes SIGTERM for itself when it starts
                cluster.worker_bytes = _worker_bytes(chosen, network.rows)
                reporter.note(cluster.describe())
                if not planned:
                    _plan(committer, study, listing, chosen, fingerprint, options, cluster, reporter)
                if options.retry_failed:
                    reporter.note(f"{committer.retry_failed()} failed trials will be tried again")
                pixels = _pixels_left(committer)
                progress = RunProgress(reporter, committer.counts, committer.write_progress, pixels)
                worker, inputs = _worker_options(study, options, cluster), _local_inputs(committer)

                def start() -> WorkerSlot:
                    return WorkerSlot.start(cluster.start_worker(worker, options.worker_class), chosen[0], inputs)

                interrupts.hold()
                _run_trials(committer, WorkerPool(cluster, start), progress, interrupts)
                return _finish(committer, progress, interrupts)


def _fingerprint(study: Study, listing: Listing, configurations: Sequence[Configuration]) -> str:
    """Equal when planning again gives the same plan."""
    everything = [study.to_dict(), listing.fingerprint, [each.identity() for each in configurations]]
    return hashlib.sha256(canonical_json(everything).encode()).hexdigest()


def _is_planned(run: RunDirectory, fingerprint: str, listing: Listing, options: RunOptions) -> bool:
    """Whether the directory holds the plan of this study, which planning again would not better."""
    if not run.exists() or run.study["fingerprint"] != fingerprint:
        return False
    if options.retry_failed:  # what could not run for want of a picture may be able to by now
        return not len(run.plan(["error_type"])["error_type"].drop_null())
    return not readable_again(run, listing)


def _already_complete(committer: Committer, reporter: Reporter) -> Progress:
    """The end of a run of which nothing was left: no Ray is needed for it."""
    committer.finish()
    counts = committer.counts()
    told = Progress(
        num_trials=sum(counts.values()),
        **counts,
        num_workers=0,
        worker_deaths=0,
        elapsed_seconds=0.0,
        eta_seconds=None,
    )
    reporter.progress(told)
    return told


def _plan(
    committer: Committer,
    study: Study,
    listing: Listing,
    configurations: tuple[Configuration, ...],
    fingerprint: str,
    options: RunOptions,
    cluster: Cluster,
    reporter: Reporter,
) -> None:
    """Plans a new run directory, and extends an old one whose study or pictures are not as they were."""
    run = committer.run
    most = options.batch_size or (GPU_BATCH if cluster.uses_gpus else CPU_BATCH)
    plan = make_plan(study, listing, configurations=configurations, batch_size=most)
    if options.batch_size is None:
        plan = _balanced(plan, cluster.num_workers())
    bad = [f"bad input, its trials will be recorded as failed: {each.error_message}" for each in plan.bad]
    _note_first(20, bad, "bad inputs", reporter)
    same = [f"{left_out} is left out: it has the same content as {other}" for left_out, other in plan.duplicates]
    _note_first(5, same, "duplicates", reporter)
    _note_first(5, plan.unused_regions, "unused regions of styles", reporter)
    trials = plan.trials()
    if run.exists():
        trials = extension(plan, run, run.study["study"], run.directory.url())
    about = {
        "name": study.name,
        "study": study.shown(),
        "fingerprint": fingerprint,
        "created_at": datetime.now(UTC).isoformat(),
        "code_version": nst_batch.__version__,
    }
    committer.write_plan(about, trials, plan.names())


def _balanced(plan: Plan, num_workers: int) -> Plan:
    """The plan in batches of such a size that every worker is busy in the last round too.

    Cut here and not when workers run idle: batches are part of the plan, so that a resumed run repeats them.
    """
    rounds = math.ceil(plan.num_trials / (plan.batch_size * num_workers))
    return replace(plan, batch_size=math.ceil(plan.num_trials / (num_workers * max(1, rounds))) or 1)


def _note_first(count: int, notes: Sequence[str], what: str, reporter: Reporter) -> None:
    for note in notes[:count]:
        reporter.note(note)
    if len(notes) > count:
        reporter.note(f"… and {len(notes) - count} more {what}")


def _run_trials(committer: Committer, pool: WorkerPool, progress: RunProgress, interrupts: Interrupts) -> None:
    """Records what cannot run, then runs every batch that is left; or until a signal comes."""
    run = committer.run
    bad = run.plan(["batch"])["batch"].to_numpy() == BAD_INPUT_BATCH
    unread = run.iter_plan(skip=committer.ended | ~bad) if bad.any() else ()
    failed = ([failure(trial, trial.error_type, trial.error_message)] for trial in unread)
    good = run.iter_plan(skip=committer.ended | bad)
    batches = (list(batch) for _, batch in groupby(good, lambda trial: trial.batch))

    def keep_log(name: str, text: str) -> None:
        run.directory.write(f"{LOGS}/{name}", without_secrets(text).encode())

    with closing(Dispatcher(pool, batches, progress, keep_log).run()) as returned:
        try:
            for results in chain(failed, returned):
                committer.commit(*results)
                progress.recorded(results)
                pool.cluster.check()
                progress.tick()
                if interrupts.received is not None:
                    return
        except ClusterError:
            committer.flush()  # now: a Ray that is broken may take long to end
            raise


def _finish(committer: Committer, progress: RunProgress, interrupts: Interrupts) -> Progress:
    """How the run ended; Interrupted, if a signal ended it before every trial had."""
    progress.workers(0, 0.0)
    done, told = committer.finish(), progress.tell()
    if done:
        return told
    ended = f"{told.num_trials - told.pending} of {told.num_trials} trials"
    if interrupts.received is None:
        raise ClusterError(f"only {ended} have a result; run the same command again to go on")
    safe = f"{ended} are safe in {committer.run.directory.root}"
    stopped = f"{ended_by(interrupts.received)}: {safe}; run the same command again to go on"
    raise Interrupted(interrupts.received, stopped)


def _worker_options(study: Study, options: RunOptions, cluster: Cluster) -> WorkerOptions:
    return WorkerOptions(
        tile=study.network.rows,
        memory_bytes=cluster.worker_bytes,
        device=options.device if cluster.uses_gpus or options.device != "auto" else "cpu",
        threads=None if cluster.uses_gpus else cluster.cpus_per_worker,
        format=study.output.format,
        quality=study.output.quality,
    )


def _worker_bytes(configurations: Sequence[Configuration], tile: int | None) -> int:
    """The most memory that a worker on a CPU needs, where it computes one trial at a time."""
    distinct = {(each.layers, each.num_pairs): each for each in configurations}.values()
    return PROCESS_BYTES + max(least_bytes(each, each.size, each.size, tile) for each in distinct)


def _pixels_left(committer: Committer) -> float:
    """Of all trials that have not ended."""
    plan = committer.run.plan(["width", "height"])
    pixels = plan["width"].to_numpy().astype(float) * plan["height"].to_numpy()
    return float(pixels[~committer.ended].sum())


def _local_inputs(committer: Committer) -> list[str]:
    """Some local files that this process sees and every worker must."""
    trial = next(committer.run.iter_plan(skip=committer.ended), None)
    if trial is None:
        return []
    names = [*(file.uri for file in trial.files), trial.configuration.weights]
    return [path for path in names if Path(path).is_file()]
