"""May a run be written here? Only into an empty directory, or one that this version of nst-batch goes on with.

Nothing that the program did not write is ever changed or removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from nst_batch.errors import RunDirectoryError
from nst_batch.records import ALGORITHM
from nst_batch.store import lock
from nst_batch.store.files import STAGED, STAGING
from nst_batch.store.run_directory import SEGMENT, STUDY, RunDirectory

_PLAN_FILE = re.compile(r"plan/part-\d{5,}\.parquet")
_SHOWN = 3


def check_writable(run: RunDirectory) -> None:
    """Says what is wrong before anything is touched.

    Raises:
        RunDirectoryError: It holds something else than a run, or a run whose results must not be mixed with ours.
    """
    url = run.directory.url()
    if run.exists():
        if (found := run.study.get("algorithm")) != ALGORITHM:
            raise RunDirectoryError(
                f"{url}: its trials were planned for algorithm {found}, this nst-batch computes by algorithm "
                f"{ALGORITHM}, and their results must not be mixed; choose another --out, or go on with nst-batch "
                f"{run.study.get('code_version', 'of that time')}"
            )
        return
    foreign = list(_foreign(run))
    if foreign:
        shown = f"{', '.join(foreign[:_SHOWN])}{' …' if len(foreign) > _SHOWN else ''}"
        raise RunDirectoryError(
            f"{url}: expected an empty directory or one made by nst-batch, found {shown} and no {STUDY}; "
            "choose another --out"
        )


def _foreign(run: RunDirectory) -> Iterator[str]:
    """What a run that was killed before it had a plan does not leave behind, apart from hidden files."""
    names = [name for name in run.directory.names() if not name.startswith(".")]
    yield from (name for name in names if name not in (lock.NAME, "plan", STAGING))
    if lock.NAME in names and not lock.is_holder(run.directory.find(lock.NAME) or b""):
        yield lock.NAME
    if "plan" in names:
        yield from (path for path in run.directory.list("plan") if not _is_plan(run, path))
    if STAGING in names:
        paths = run.directory.list(STAGING)
        yield from (path for path in paths if not (STAGED.fullmatch(path) or SEGMENT.fullmatch(path)))


def _is_plan(run: RunDirectory, path: str) -> bool:
    if not _PLAN_FILE.fullmatch(path):
        return False
    try:
        with run.directory.open_input(path) as source:
            return (pq.read_schema(source).metadata or {}).get(b"table") == b"plan"
    except pa.ArrowInvalid:
        return False
