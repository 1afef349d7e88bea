"""One worker: a network in memory, and batches of trials turned into results. Knows no Ray.

A worker reads its own pictures and weights, so what travels to it is names, and what returns is an encoded image
and a small row for each trial. A trial that fails becomes a result that says why; only the death of the process
is anybody else's business. A process that hangs while it computes ends itself, whatever holds it, and prints where.
"""

from __future__ import annotations

import faulthandler
import resource
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import groupby

import torch
from PIL import Image

import nst_batch
from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.pictures import PictureReader, Posed
from nst_batch.cluster.retries import pause_seconds
from nst_batch.errors import ImageError, WeightsError
from nst_batch.inputs import images, limits, weights
from nst_batch.inputs.fitting import fitting, part_size
from nst_batch.records import Configuration, Outcome, Result, Trial
from nst_batch.scores import transfer_scores
from nst_batch.transfer import (
    Solution,
    SolveOptions,
    Targets,
    gpu_bytes,
    keep_freed_memory,
    layer_distances,
    precision_used,
    region_scores,
    solve,
    targets_under,
)
from nst_batch.vocabulary import MemoryLayout

_FILES_AT_ONCE = 8  # read and decoded, or encoded, side by side: a GPU waits for both
_OF_NETWORK = ("arch", "weights", "weights_sha256", "pooling", "normalization", "precision")


class Worker:
    """Runs batches; `setup` is done by the first one, or ahead of it by whoever wants the wait to be early.

    Args:
        options: As the run has them.
        on_progress: Is told how many pixels of the trials at hand are done, and how many seconds that took.
    """

    def __init__(
        self, options: WorkerOptions, on_progress: Callable[[float, float], object] = lambda *_: None
    ) -> None:
        self.options, self._on_progress = options, on_progress
        if options.threads:
            torch.set_num_threads(options.threads)
        name = options.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(name)
        if self.device.type == "cpu":
            keep_freed_memory()
        self._network: tuple[list[str], Targets] | None = None
        self._pool = ThreadPoolExecutor(_FILES_AT_ONCE, "nst-batch files")
        self._pictures = PictureReader(self._pool)

    def setup(self, configuration: Configuration) -> None:
        """Loads the network that `configuration` needs; WeightsError if that is not the one of the plan."""
        self._targets(configuration)

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """Runs a batch of one size, in parts that fit the memory; returns a result for every trial."""
        results: list[Result] = []
        ready: list[Posed] = []
        begun = datetime.now(UTC)
        for trial, posed in zip(trials, self._pictures.problems(trials), strict=True):
            if isinstance(posed, ImageError):
                results.append(self._failed(trial, begun, posed.kind, str(posed)))
            else:
                ready.append(posed)
        for options, members in groupby(ready, key=self._options):
            results += self._in_parts(list(members), options)
        return results

    def _options(self, posed: Posed) -> SolveOptions:
        """How a trial is solved, alone or together with others that are solved likewise."""
        chosen = posed.trial.configuration
        return SolveOptions(
            steps=chosen.steps,
            optimizer=chosen.optimizer,
            learning_rate=chosen.learning_rate,
            plateau=chosen.plateau,
            pyramid=chosen.pyramid,
            convention=chosen.loss,
            layout=self._layout(posed),
        )

    def _layout(self, posed: Posed) -> MemoryLayout:
        """Whole, or in strips where one alone does not fit this worker's part of the memory.

        Of all there is and not of what is free now, so that a run repeats itself.
        """
        if self.device.type == "cuda":
            _, available = gpu_bytes(self.device)
        else:
            total, cores = limits.total_bytes(), limits.num_cores()
            by_memory = total // (self.options.memory_bytes or total)
            available = total // max(1, min(cores // (self.options.threads or cores), by_memory))
        trial = posed.trial
        return fitting(trial.configuration, trial.height, trial.width, available, self.options.tile)

    def _part_size(self, posed: Posed) -> int:
        """How many problems like this one to solve together.

        On a CPU, one: convolutions of a single image fill the cores, its activations stay in the cache, and a
        trial's result is then the same to the last bit whoever shares its batch.
        """
        if self.device.type == "cpu":
            return 1
        free, _ = gpu_bytes(self.device)
        return part_size(posed.trial.configuration, posed.trial.height, posed.trial.width, free)

    def _in_parts(self, members: Sequence[Posed], options: SolveOptions) -> Iterator[Result]:
        """Solves as many together as fit; where memory runs out all the same, halves, and at last records."""
        size = 1 if options.layout.tile else min(map(self._part_size, members))
        while members:
            part, begun = members[:size], datetime.now(UTC)
            try:
                solved: Sequence[Result] = self._solve(part, options, begun)
            except torch.OutOfMemoryError as error:
                solved, ran_out = (), str(error)
            if not solved:  # only now is the memory free: the exception held what its frames had allocated
                torch.cuda.empty_cache()
                if len(part) > 1:
                    size = len(part) // 2
                    continue
                message = f"not enough GPU memory for this image alone, choose a smaller size: {ran_out}"
                solved = [self._failed(part[0].trial, begun, "out_of_memory", message)]
            yield from solved
            members = members[len(part) :]

    def _solve(self, part: Sequence[Posed], options: SolveOptions, begun: datetime) -> list[Result]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        targets = self._targets(part[0].trial.configuration)
        seconds = pause_seconds([each.trial for each in part], on_gpu=self.device.type == "cuda")
        pixels = sum(each.trial.width * each.trial.height for each in part)

        def go_on(done: float) -> None:
            faulthandler.dump_traceback_later(seconds, file=2, exit=True)  # unless it is called again
            self._on_progress(done * pixels, (datetime.now(UTC) - begun).total_seconds())

        go_on(0.0)
        try:
            solutions = solve(targets, [each.problem for each in part], options, go_on)
        finally:
            faulthandler.cancel_dump_traceback_later()
        pictures = [_shown(each, solution) for each, solution in zip(part, solutions, strict=True)]
        files = self._pool.map(self._encoded, pictures)  # while the device measures distances
        results = [
            self._measured(each, solution, picture, targets, options.layout)
            for each, solution, picture in zip(part, solutions, pictures, strict=True)
        ]
        return [
            self._stamped(replace(result, image=file), begun, len(part))
            for result, file in zip(results, files, strict=True)
        ]

    def _measured(
        self, posed: Posed, solution: Solution, picture: Image.Image, targets: Targets, layout: MemoryLayout
    ) -> Result:
        """What is known of a trial before its picture is encoded; measured is what a person will see."""
        pixels = torch.from_numpy(images.to_array(picture)).to(self.device)
        layers = layer_distances(targets.judge, pixels, posed.problem)
        scores = region_scores(targets.judge, pixels, posed.problem)
        regions = tuple(replace(each, color=posed.colors[each.label]) for each in scores)
        curve, pairs = solution.curve, posed.trial.configuration.optimizer == "lbfgs"
        diverged = "the loss or its gradient is not finite; try smaller weights or a smaller learning rate"
        outcome = Outcome(
            status="diverged" if solution.diverged else "ok",
            error_type="diverged" if solution.diverged else None,
            error_message=diverged if solution.diverged else None,
            steps_done=curve.step[-1],
            stop_reason=solution.stop_reason,
            precision_used=precision_used(targets),
            initial=curve.at(0),
            final=curve.at(curve.step.index(solution.best_step)),
            best_step=solution.best_step,
            content_distance=_mean([layer.content_distance for layer in layers]),
            style_distance=_mean([layer.style_distance for layer in layers]),
            **asdict(transfer_scores(layers)),
            tile=layout.tile,
            num_pairs=layout.num_pairs if pairs else None,
            pair_precision=layout.pair_precision if pairs else None,
        )
        return Result(trial=posed.trial, outcome=outcome, curve=curve, layers=layers, regions=regions)

    def _encoded(self, picture: Image.Image) -> bytes:
        return images.encode(picture, self.options.format, self.options.quality)

    def _failed(self, trial: Trial, begun: datetime, error_type: str, message: str) -> Result:
        outcome = Outcome(status="failed", error_type=error_type, error_message=message)
        return self._stamped(Result(trial=trial, outcome=outcome), begun, 1)

    def _stamped(self, result: Result, begun: datetime, shared_by: int) -> Result:
        """With where and when it came to be."""
        now, on_gpu = datetime.now(UTC), self.device.type == "cuda"
        outcome = replace(
            result.outcome,
            seconds=(now - begun).total_seconds() / shared_by,
            peak_memory_bytes=_peak_memory_bytes(self.device),
            device=torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            node=socket.gethostname(),
            code_version=nst_batch.__version__,
            started_at=begun,
            finished_at=now,
        )
        return replace(result, outcome=outcome)

    def _targets(self, chosen: Configuration) -> Targets:
        """The network and its targets, kept until another network is asked for."""
        key = [getattr(chosen, name) for name in _OF_NETWORK]
        if not self._network or self._network[0] != key:
            found = weights.resolve(chosen.weights, chosen.arch, chosen.pooling, chosen.normalization)
            if found.sha256 != chosen.weights_sha256:
                raise WeightsError(
                    f"weights {chosen.weights!r} on {socket.gethostname()} have sha256 {found.sha256}, the plan "
                    f"was made with {chosen.weights_sha256}; put the same file on every node"
                )
            state = weights.load(found, chosen.arch, chosen.pooling)
            self._network = key, targets_under(chosen, state, self.device)
        return self._network[1]


def _shown(posed: Posed, solution: Solution) -> Image.Image:
    """The picture that a person will see: in eight bits, in the content's colours if so chosen."""
    pixels = solution.image.float().cpu().numpy()
    if posed.trial.configuration.color == "luminance" and posed.problem.content:
        pixels = images.transfer_luminance(pixels, posed.problem.content.pixels.numpy())
    return images.from_array(pixels)


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU during this part; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
