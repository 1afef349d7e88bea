"""Distributed batch neural style transfer.

`open_run(DIR)` reads what a study left behind, `run_study(...)` runs one. Both are loaded when they are first used,
so that importing this package is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst_batch.api import Run, open_run, run_study

__version__ = "0.1.0"

__all__ = ["Run", "__version__", "open_run", "run_study"]


def __getattr__(name: str) -> Any:
    if name in ("Run", "open_run", "run_study"):
        from nst_batch import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
