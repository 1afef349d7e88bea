"""An estimate as text for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nst_batch.study.estimate import Estimate
from nst_batch.vocabulary import duration

_SHOWN = 10


def describe(found: Estimate) -> str:
    """What `nst-batch plan` prints for a person."""
    lines = [f"{found.study}: {found.num_trials:,} trials", ""]
    lines += (f"  {label:<10}{text}" for label, text in _rows(found))
    lines += _listed("bad inputs, whose trials will be recorded as failed", [each[2] for each in found.bad_inputs])
    same = [f"{left} has the same content as {other}" for left, other in found.duplicates]
    lines += _listed("duplicates, left out", same)
    return "\n".join((*lines, *(f"\nnote: {note}" for note in found.notes)))


def _rows(found: Estimate) -> Iterator[tuple[str, str]]:
    failing = found.num_trials - found.num_runnable
    pairs = f"{found.num_pairs:,} pair{'s' * (found.num_pairs != 1)}"
    grid = f"{found.num_configurations:,} configuration{'s' * (found.num_configurations != 1)}"
    yield "trials", f"{pairs} × {grid}" + (f"; {failing:,} cannot run" if failing else "")
    good = found.num_pictures - len(found.bad_inputs)
    yield "pictures", f"{good:,} good, {len(found.bad_inputs):,} bad, {len(found.duplicates):,} duplicates"
    shown = [f"{width}×{height} ({count:,})" for width, height, count in found.sizes[:4]]
    more = f", and {len(found.sizes) - 4} more" if len(found.sizes) > 4 else ""
    yield "sizes", ", ".join(shown) + more if shown else "none"
    yield "batches", f"{found.num_batches:,}"
    workers = f"{found.num_workers} worker{'s' * (found.num_workers != 1)}"
    yield "device", f"{found.device}; {workers}"
    yield "memory", f"{_bytes(found.memory_bytes)} per worker"
    each = found.worker_seconds / max(1, found.num_runnable)
    each_shown = f"{each:.2g} s" if each < 10 else duration(each)
    yield "time", f"{duration(found.seconds)} here ({each_shown} per trial on one worker)"
    if found.cost is not None:
        hours = found.worker_seconds / 3600
        yield "cost", f"{found.cost:,.2f} ({hours:,.2f} worker hours at {found.gpu_hour_price:g})"
    if found.deadline_seconds is not None:
        needed = found.num_workers_for_deadline
        answer = "no number of workers is enough" if needed is None else f"{needed:,} workers like these"
        yield "deadline", f"{answer} for {duration(found.deadline_seconds)}"
    yield "disk", f"{_bytes(found.disk_bytes)} of pictures and tables"


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    more = [f"  … and {len(items) - _SHOWN:,} more"] if len(items) > _SHOWN else []
    return ["", f"{title}:", *(f"  {item}" for item in items[:_SHOWN]), *more]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
