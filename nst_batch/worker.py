"""One worker: a network in memory, and batches of trials turned into results. Knows no Ray.

A worker reads its own pictures and weights, so what travels to it is names, and what returns is an encoded image
and a small row for each trial. A trial that fails becomes a result that says why; only the death of the process
is anybody else's business.
"""

from __future__ import annotations

import resource
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby

import torch

import nst_batch
from nst_batch import images, weights
from nst_batch.errors import ImageError, WeightsError
from nst_batch.options import WorkerOptions
from nst_batch.records import Configuration, LayerDistance, Outcome, Result, Trial
from nst_batch.transfer import (
    Options,
    Picture,
    Problem,
    Solution,
    Targets,
    Vgg,
    layer_distances,
    part_size,
    solve,
)

_PICTURES = 64  # decoded pictures kept, at their working size


_Ready = tuple[Trial, Problem]


class Worker:
    """Runs batches; `setup` is done by the first one, or ahead of it by whoever wants the wait to be early."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        if options.threads:
            torch.set_num_threads(options.threads)
        name = options.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(name)
        self._network: tuple[tuple[str, ...], Targets] | None = None
        self._pictures: OrderedDict[tuple[str, ...], images.Pixels] = OrderedDict()

    def setup(self, configuration: Configuration) -> str:
        """Loads the network that `configuration` needs; returns where it runs.

        Raises:
            WeightsError: It cannot be loaded, or its weights are not the ones that the plan was made with.
        """
        self._targets(configuration)
        return self.device_name

    @property
    def device_name(self) -> str:
        """As recorded: cpu, or the GPU's name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """Runs a batch of one size, in parts that fit the memory; returns a result for every trial."""
        results: list[Result] = []
        ready: list[_Ready] = []
        for trial in trials:
            begun = datetime.now(UTC)
            try:
                ready.append((trial, self._problem(trial)))
            except ImageError as error:
                results.append(self._failed(trial, begun, error.kind, str(error)))
        for options, members in groupby(ready, key=lambda member: _options(member[0].configuration)):
            results += self._in_parts(list(members), options)
        return results

    def _in_parts(self, members: Sequence[_Ready], options: Options) -> Iterator[Result]:
        """Solves as many together as fit; where memory runs out all the same, halves, and at last records."""
        trial, problem = members[0]
        size = part_size(self.device, trial.configuration.arch, problem)
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
                solved = [self._failed(part[0][0], begun, "out_of_memory", message)]
            yield from solved
            members = members[len(part) :]

    def _solve(self, part: Sequence[_Ready], options: Options, begun: datetime) -> list[Result]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        targets = self._targets(part[0][0].configuration)
        solutions = solve(targets, [problem for _, problem in part], options)
        results = [
            self._finish(trial, problem, solution, targets)
            for (trial, problem), solution in zip(part, solutions, strict=True)
        ]
        return [replace(result, outcome=self._stamped(result.outcome, begun, len(part))) for result in results]

    def _finish(self, trial: Trial, problem: Problem, solution: Solution, targets: Targets) -> Result:
        """Quantises and encodes the image, and measures the picture that a person will see."""
        pixels = solution.image.float().cpu().numpy()
        if trial.configuration.color == "luminance" and problem.content:
            pixels = images.transfer_luminance(pixels, problem.content.pixels.numpy())
        picture = images.from_array(pixels)
        shown = torch.from_numpy(images.to_array(picture)).to(self.device)
        distances = tuple(
            LayerDistance(layer=layer, content_distance=content, style_distance=style)
            for layer, content, style in layer_distances(targets, shown, problem)
        )
        encoded = images.encode(picture, self.options.format, self.options.quality)
        curve = solution.curve
        diverged = "the loss or its gradient is not finite; try smaller weights or a smaller learning rate"
        outcome = Outcome(
            status="diverged" if solution.diverged else "ok",
            error_type="diverged" if solution.diverged else None,
            error_message=diverged if solution.diverged else None,
            steps_done=curve.step[-1],
            stop_reason=solution.stop_reason,
            initial=curve.at(0),
            final=curve.at(curve.step.index(solution.best_step)),
            best_step=solution.best_step,
            content_distance=_mean([distance.content_distance for distance in distances]),
            style_distance=_mean([distance.style_distance for distance in distances]),
            image_sha256=images.sha256(encoded),
        )
        return Result(trial=trial, outcome=outcome, curve=curve, layers=distances, image=encoded)

    def _failed(self, trial: Trial, begun: datetime, error_type: str, message: str) -> Result:
        outcome = Outcome(status="failed", error_type=error_type, error_message=message)
        return Result(trial=trial, outcome=self._stamped(outcome, begun, 1))

    def _stamped(self, outcome: Outcome, begun: datetime, shared_by: int) -> Outcome:
        """With where and when it came to be."""
        now = datetime.now(UTC)
        return replace(
            outcome,
            seconds=(now - begun).total_seconds() / shared_by,
            peak_memory_bytes=_peak_memory_bytes(self.device),
            device=self.device_name,
            node=socket.gethostname(),
            code_version=nst_batch.__version__,
            started_at=begun,
            finished_at=now,
        )

    def _problem(self, trial: Trial) -> Problem:
        """The mathematical problem of a trial: its pictures read, checked against the plan, and resized."""
        chosen = trial.configuration
        content = self._picture(trial.content.uri, trial.content.sha256, chosen, 1.0) if trial.content else None
        styles = tuple(self._picture(style.uri, style.sha256, chosen, chosen.style_scale) for style in trial.styles)
        if chosen.color == "histogram" and content:
            styles = tuple(_recolored(style, content) for style in styles)
        return Problem(
            height=trial.height,
            width=trial.width,
            content=content,
            styles=styles,
            content_layers=chosen.content_layers,
            style_layers=chosen.style_layers,
            style_layer_weights=chosen.style_layer_weights,
            alpha=chosen.alpha,
            beta=chosen.beta,
            tv_weight=chosen.tv_weight,
            init=chosen.init,
            seed=chosen.seed,
        )

    def _picture(self, uri: str, sha256: str | None, chosen: Configuration, scale: float) -> Picture:
        size = max(1, round(chosen.size * scale))
        key = (sha256 or uri, str(size), chosen.fit)
        if key not in self._pictures:
            data = images.read_bytes(uri, expected_sha256=sha256)
            decoded = images.decode(data, uri, target_edge=size)
            self._pictures[key] = images.to_array(images.resize(decoded, size, chosen.fit))
            if len(self._pictures) > _PICTURES:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(key)
        return Picture(key="/".join(key), pixels=torch.from_numpy(self._pictures[key]))

    def _targets(self, chosen: Configuration) -> Targets:
        """The network and its targets, kept until another network is asked for."""
        key = (
            chosen.arch,
            chosen.weights,
            chosen.weights_sha256,
            chosen.pooling,
            chosen.normalization,
            chosen.precision,
        )
        if not self._network or self._network[0] != key:
            found = weights.resolve(chosen.weights, chosen.arch, chosen.pooling, chosen.normalization)
            if found.sha256 != chosen.weights_sha256:
                raise WeightsError(
                    f"weights {chosen.weights!r} on {socket.gethostname()} have sha256 {found.sha256}, the plan "
                    f"was made with {chosen.weights_sha256}; put the same file on every node"
                )
            state = weights.load(found, chosen.arch, chosen.pooling)
            network = placed(chosen, state, self.device)
            self._network = key, Targets(network)
        return self._network[1]


def placed(chosen: Configuration, state: Mapping[str, torch.Tensor], device: torch.device) -> Vgg:
    """The network of a configuration on `device`, in its precision; this also sets how the process multiplies.

    Args:
        state: As `weights.load` gives it.
    """
    precision = chosen.precision
    if precision == "auto":
        precision = "tf32" if device.type == "cuda" else "float32"
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return Vgg(
        chosen.arch,
        state,
        pooling=chosen.pooling,
        normalization=chosen.normalization,
        device=device,
        dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
    )


def _options(chosen: Configuration) -> Options:
    return Options(
        steps=chosen.steps,
        optimizer=chosen.optimizer,
        learning_rate=chosen.learning_rate,
        pyramid=chosen.pyramid,
        plateau=chosen.plateau,
        convention=chosen.loss,
    )


def _recolored(style: Picture, content: Picture) -> Picture:
    """The style in the content's colours: histogram matching before the transfer."""
    pixels = images.match_histogram(style.pixels.numpy(), content.pixels.numpy())
    return Picture(key=f"{style.key}@{content.key}", pixels=torch.from_numpy(pixels))


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU during this part; of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
