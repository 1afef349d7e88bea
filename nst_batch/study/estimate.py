"""What a study would cost, before it is run: trials, batches, memory, time, money, disk, and what is wrong with it.

Every picture is opened, as planning does; nothing of the study is computed or downloaded. The time comes from a
few evaluations on this machine (`nst_batch.study.calibration`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nst_batch.errors import WeightsError, without_secrets
from nst_batch.inputs import weights
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.fitting import held_bytes, operations
from nst_batch.inputs.limits import num_cores
from nst_batch.records import PROCESS_BYTES, Configuration
from nst_batch.study.calibration import Machine
from nst_batch.study.model import Study
from nst_batch.study.plan import Plan, make_plan
from nst_batch.vocabulary import Encoding, Normalization

START_SECONDS = 15.0  # Ray, a worker's process with torch, its network
_ROW_BYTES = 2_000  # of a trial in the tables, without its curve
_CURVE_BYTES = 0.67 * 5 * 4  # per step: five columns of four bytes, compressed
_PIXEL_BYTES: dict[Encoding, float] = {"png": 2.3, "jpeg": 1.0, "webp": 0.7, "tiff": 2.3}  # quality 95

_Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What `nst-batch plan` says."""

    study: str
    num_trials: int
    num_runnable: int
    """Trials without a bad picture."""
    num_pairs: int
    num_configurations: int
    num_batches: int
    num_pictures: int
    sizes: tuple[dict[str, int], ...]
    """`width`, `height` and `num_trials`, the most frequent first."""
    duplicates: tuple[dict[str, str], ...]
    """The `picture` left out, and which has the same content: `same_as`."""
    bad_inputs: tuple[dict[str, str | None], ...]
    """`picture`, `error_type` and `error_message`."""
    device: str
    num_workers: int
    """That this machine has room for."""
    memory_bytes: int
    """Of a worker, on its device."""
    worker_seconds: float
    """Of all trials together, on one worker; an upper bound where trials stop early."""
    seconds: float
    """From start to end on `num_workers` workers."""
    gpu_hour_price: float | None
    deadline_seconds: float | None
    disk_bytes: int
    notes: tuple[str, ...]

    @property
    def cost(self) -> float | None:
        """In the price's currency: the workers' hours, each at the price of a GPU hour."""
        return None if self.gpu_hour_price is None else self.gpu_hour_price * self.worker_seconds / 3600

    @property
    def num_workers_for_deadline(self) -> int | None:
        """How many workers like this machine's end in time; None without a deadline, or where none do."""
        if self.deadline_seconds is None:
            return None
        left = self.deadline_seconds - START_SECONDS
        longest = self.worker_seconds / max(1, self.num_batches)
        return max(1, -int(-self.worker_seconds // left)) if left > longest else None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        derived = ("cost", "num_workers_for_deadline")
        return (
            asdict(self) | {"num_bad_inputs": len(self.bad_inputs)} | {key: getattr(self, key) for key in derived}
        )


def estimate(
    study: Study,
    *,
    device: str = "auto",
    gpu_hour_price: float | None = None,
    deadline_seconds: float | None = None,
    machine: Machine | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Estimate:
    """Opens every picture of a study, times this machine, and says what running the study would take.

    Args:
        study: What would be computed.
        device: auto, cpu, cuda or cuda:N.
        gpu_hour_price: What an hour of one worker costs.
        deadline_seconds: For how many workers would end by then.
        machine: Instead of this one.
        note: Told what takes a while.

    Raises:
        StudyError: The study cannot be run as written, or there is no such device.
    """
    machine = machine or Machine.here(device)
    configurations, notes = _configurations(study)
    note("opening the pictures …")
    begun = time.perf_counter()
    listing = list_inputs(*study.inputs)
    plan = make_plan(study, listing, configurations=configurations, batch_size=machine.batch_size)
    opening = (time.perf_counter() - begun) * min(8, num_cores())  # one worker would take
    worker_seconds = seconds = 0.0
    if sizes := plan.sizes():
        note(f"measuring on {machine.name} …")
        worker_seconds = opening + _computing_seconds(machine, study, configurations, sizes)
        seconds = worker_seconds / max(1, min(machine.num_workers, plan.num_batches)) + START_SECONDS
    return Estimate(
        study=study.name,
        num_trials=plan.num_trials,
        num_runnable=sum(sizes.values()),
        num_pairs=len(plan.pairs),
        num_configurations=len(configurations),
        num_batches=plan.num_batches,
        num_pictures=len(listing.uris),
        sizes=tuple({"width": w, "height": h, "num_trials": count} for (w, h), count in sizes.most_common()),
        duplicates=tuple({"picture": left_out, "same_as": same} for left_out, same in plan.duplicates),
        bad_inputs=tuple(
            {
                "picture": without_secrets(each.picture.uri),
                "error_type": each.error_type,
                "error_message": each.error_message,
            }
            for each in plan.bad
        ),
        device=machine.name,
        num_workers=machine.num_workers,
        memory_bytes=_memory_bytes(machine, study, configurations, sizes) if sizes else 0,
        worker_seconds=worker_seconds,
        seconds=seconds,
        gpu_hour_price=gpu_hour_price,
        deadline_seconds=deadline_seconds,
        disk_bytes=_disk_bytes(study, plan, sizes),
        notes=(*notes, *plan.unused_regions),
    )


def _configurations(study: Study) -> tuple[tuple[Configuration, ...], list[str]]:
    """The grid, and what is to be said of weights that are not at hand."""
    network, notes, digest = study.network, [], ""
    normalization: Normalization = "imagenet"  # any: it takes no time
    try:
        found = weights.resolve(
            network.weights, network.arch, network.pooling, network.normalization, download=False
        )
        digest, normalization = found.sha256, found.normalization
    except WeightsError as error:
        notes.append(str(error))
    return tuple(study.configurations(weights_sha256=digest, normalization=normalization)), notes


def _computing_seconds(
    machine: Machine, study: Study, configurations: Sequence[Configuration], sizes: Counter[_Size]
) -> float:
    """Of all trials, one after the other, with every step: where a plateau ends one cannot be foreseen.

    Timed is the dearest configuration at the most frequent size; others take their share of its multiplications.
    """
    width, height = sizes.most_common(1)[0][0]
    work = [
        operations(each, height, width, machine.layout(each, width, height, study.network.rows).tile)
        for each in configurations
    ]
    rate = machine.rate(configurations[work.index(max(work))], width, height, study.output.format)
    steps = study.optimizer.steps * sum(work) / len(work) / (width * height)
    return _num_pixels(sizes) * (steps * rate.operation_seconds + rate.pixel_seconds)


def _memory_bytes(
    machine: Machine, study: Study, configurations: Sequence[Configuration], sizes: Counter[_Size]
) -> int:
    """Of the configuration that multiplies most, at the largest size, as a worker here holds it."""
    width, height = max(sizes, key=math.prod)
    heaviest = max(configurations, key=lambda each: operations(each, height, width))
    layout = machine.layout(heaviest, width, height, study.network.rows)
    batch = 1 if layout.tile else machine.batch(heaviest, width, height)
    return PROCESS_BYTES + batch * held_bytes(heaviest.arch, heaviest.layers, height, width, layout)


def _disk_bytes(study: Study, plan: Plan, sizes: Counter[_Size]) -> int:
    rows = plan.num_trials * (_ROW_BYTES + _CURVE_BYTES * study.optimizer.steps)
    return int(_num_pixels(sizes) * _PIXEL_BYTES[study.output.format] + rows)


def _num_pixels(sizes: Counter[_Size]) -> int:
    """Of all finished pictures."""
    return sum(width * height * count for (width, height), count in sizes.items())
