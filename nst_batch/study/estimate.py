"""What a study would cost, before it is run: trials, batches, memory, time, money, disk, and what is wrong with it.

Every picture is opened, as planning does; nothing of the study is computed or downloaded. The time comes from a
few evaluations on this machine (`nst_batch.study.calibration`).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nst_batch.errors import ImageError, WeightsError, without_secrets
from nst_batch.inputs import images, weights
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.fitting import held_bytes
from nst_batch.inputs.images import Inspection
from nst_batch.records import PROCESS_BYTES, Configuration
from nst_batch.study.calibration import Calibration, Machine, operations
from nst_batch.study.model import Study
from nst_batch.study.plan import Plan, make_plan
from nst_batch.vocabulary import Normalization

START_SECONDS = 15.0  # Ray, a worker's process with torch, its network
_ROW_BYTES = 2_000  # of a trial in the tables, without its curve
_CURVE_BYTES = 0.67 * 5 * 4  # per step: five columns of four bytes, compressed
_SAMPLED_PICTURES = 4

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
    sizes: tuple[tuple[int, int, int], ...]
    """(width, height, trials), the most frequent first."""
    duplicates: tuple[tuple[str, str], ...]
    """(left out, same content as)."""
    bad_inputs: tuple[tuple[str, str, str], ...]
    """(picture, kind, reason)."""
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
        return asdict(self) | {
            "num_bad_inputs": len(self.bad_inputs),
            "cost": self.cost,
            "num_workers_for_deadline": self.num_workers_for_deadline,
            "duplicates": [{"picture": left, "same_as": same} for left, same in self.duplicates],
            "bad_inputs": [
                {"picture": uri, "error_type": kind, "error_message": reason}
                for uri, kind, reason in self.bad_inputs
            ],
            "sizes": [
                {"width": width, "height": height, "num_trials": count} for width, height, count in self.sizes
            ],
        }


def estimate(
    study: Study,
    *,
    device: str = "auto",
    gpu_hour_price: float | None = None,
    deadline_seconds: float | None = None,
    calibration: Calibration | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Estimate:
    """Opens every picture of a study, times this machine, and says what running the study would take.

    Args:
        study: What would be computed.
        device: auto, cpu, cuda or cuda:N.
        gpu_hour_price: What an hour of one worker costs.
        deadline_seconds: For how many workers would end by then.
        calibration: A remembered or simulated machine, instead of this one.
        note: Told what takes a while.

    Raises:
        StudyError: The study cannot be run as written, or there is no such device.
    """
    calibration = calibration or Calibration(Machine.here(device), note=note)
    machine = calibration.machine
    configurations, notes = _configurations(study)
    note("opening the pictures …")
    plan, num_pictures, reading_seconds = _planned(study, configurations, calibration.batch_size)
    sizes = plan.sizes()
    trials, worker_seconds = sum(sizes.values()), 0.0
    if sizes:
        worker_seconds = _worker_seconds(calibration, study, configurations, sizes) + reading_seconds
    workers = max(1, min(machine.num_workers, plan.num_batches))
    return Estimate(
        study=study.name,
        num_trials=plan.num_trials,
        num_runnable=trials,
        num_pairs=len(plan.pairs),
        num_configurations=len(configurations),
        num_batches=plan.num_batches,
        num_pictures=num_pictures,
        sizes=tuple((*size, count) for size, count in sizes.most_common()),
        duplicates=plan.duplicates,
        bad_inputs=tuple(_reason(picture) for picture in plan.bad),
        device=machine.name,
        num_workers=machine.num_workers,
        memory_bytes=max((_memory_bytes(calibration, study, configurations, size) for size in sizes), default=0),
        worker_seconds=worker_seconds,
        seconds=worker_seconds / workers + START_SECONDS if sizes else 0.0,
        gpu_hour_price=gpu_hour_price,
        deadline_seconds=deadline_seconds,
        disk_bytes=_disk_bytes(study, plan, sizes),
        notes=tuple(notes),
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


def _planned(study: Study, configurations: tuple[Configuration, ...], batch_size: int) -> tuple[Plan, int, float]:
    """The plan, how many pictures it opened, and the seconds that one worker would take to open them."""
    begun = time.perf_counter()
    listing = list_inputs(study.content, study.style, study.pairs)
    plan = make_plan(study, listing, configurations=configurations, batch_size=batch_size)
    seconds = (time.perf_counter() - begun) * min(8, os.cpu_count() or 1)
    return plan, len({*listing.content, *listing.style}), seconds


def _worker_seconds(
    calibration: Calibration, study: Study, configurations: Sequence[Configuration], sizes: Counter[_Size]
) -> float:
    """All trials, one after the other: the dearest configuration is timed at the most frequent size; the others
    take their share of its multiplications, and other sizes of its pixels."""
    size = sizes.most_common(1)[0][0]
    work = [operations(each, *size) for each in configurations]
    dearest = _trial_seconds(calibration, study, configurations[work.index(max(work))], size)
    share = sum(work) / len(work) / max(work) if max(work) else 1.0
    pixels = sum(width * height * count for (width, height), count in sizes.items())
    return dearest * share * pixels / (size[0] * size[1])


def _trial_seconds(calibration: Calibration, study: Study, chosen: Configuration, size: _Size) -> float:
    """With every step: a plateau ends a trial earlier, where and when cannot be foreseen."""
    rate = calibration.rate(chosen, *size, study.output.format, study.network.rows)
    return chosen.steps * rate.evaluation_seconds + rate.fixed_seconds


def _memory_bytes(
    calibration: Calibration, study: Study, configurations: Sequence[Configuration], size: _Size
) -> int:
    """Of the configuration that multiplies most, as a worker here holds it."""
    width, height = size
    heaviest = max(configurations, key=lambda each: operations(each, width, height))
    layout = calibration.layout(heaviest, width, height, study.network.rows)
    batch = 1 if layout.tile else calibration.batch(heaviest, width, height)
    return PROCESS_BYTES + batch * held_bytes(heaviest.arch, heaviest.layers, height, width, layout)


def _disk_bytes(study: Study, plan: Plan, sizes: Counter[_Size]) -> int:
    """Finished pictures compress like the pictures they are made of: a few of these say how well."""
    pixels = sum(width * height * count for (width, height), count in sizes.items())
    rows = plan.num_trials * (_ROW_BYTES + _CURVE_BYTES * study.optimizer.steps)
    return int(pixels * _bytes_per_pixel(study, plan) + rows)


def _bytes_per_pixel(study: Study, plan: Plan) -> float:
    stored, pixels = 0, 0
    for uri in plan.examples(_SAMPLED_PICTURES):
        try:
            decoded = images.decode(images.read_bytes(uri), uri, target_edge=study.image.size)
        except ImageError:
            continue  # changed a moment after it was found good; the run will say so
        shown = images.resize(decoded, study.image.size, study.image.fit)
        stored += len(images.encode(shown, study.output.format, study.output.quality))
        pixels += shown.width * shown.height
    return stored / pixels if pixels else 3.0


def _reason(picture: Inspection) -> tuple[str, str, str]:
    return without_secrets(picture.picture.uri), picture.error_type or "", picture.error_message or ""
