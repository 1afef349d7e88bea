"""What is loaded when, and how quick help is. Who may import whom is checked by import-linter (pyproject.toml)."""

from __future__ import annotations

import os
import subprocess
import sys


def loaded_by(code: str, names: str) -> list[str]:
    """Which of these top-level modules a fresh interpreter holds after running `code`."""
    script = f"import sys\n{code}\nprint(*sorted(set({names.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_core_knows_only_torch() -> None:
    assert loaded_by("import nst_batch.transfer", "torch ray pyarrow PIL typer duckdb fsspec") == ["torch"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import nst_batch", "torch ray pyarrow PIL typer numpy duckdb rich") == []


def test_help_loads_neither_torch_nor_ray() -> None:
    code = "import nst_batch.cli.program\ntry: nst_batch.cli.app(['--help'])\nexcept SystemExit: pass"
    assert "typer" in loaded_by(code + "\nprint()", "typer torch ray pyarrow duckdb numpy PIL")
    shown = loaded_by(
        f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n {indented(code)}", HEAVY
    )
    assert shown == []


HEAVY = "torch ray pyarrow duckdb numpy PIL pydantic rich scipy altair fsspec ruamel jinja2"


def indented(code: str) -> str:
    return code.replace("\n", "\n ")


def test_help_is_quick() -> None:
    """0.3 s on a quiet machine. Processor time, as others may be at work here; the bound is wider for slow ones."""
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "nst_batch", "--help"], check=True, capture_output=True)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.8, times
