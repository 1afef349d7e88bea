"""The shape of the package: who may import whom, what is loaded when, how quick help is."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nst_batch

PACKAGE = Path(nst_batch.__file__).parent


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
    code = "import nst_batch.cli\ntry: nst_batch.cli.app(['--help'])\nexcept SystemExit: pass"
    assert "typer" in loaded_by(code + "\nprint()", "typer torch ray pyarrow duckdb numpy PIL")
    shown = loaded_by(
        f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n {indented(code)}", HEAVY
    )
    assert shown == []


HEAVY = "torch ray pyarrow duckdb numpy PIL"


def indented(code: str) -> str:
    return code.replace("\n", "\n ")


def test_help_is_quick() -> None:
    """0.3 s on a quiet machine; the bound is wider because others may be at work here."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nst_batch", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    assert min(times) < 1.0, times


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_directions(path: Path) -> None:
    own, used = path.relative_to(PACKAGE).as_posix(), imports(path)
    inner = {name for name in used if name.startswith("nst_batch.")}
    if own.startswith("transfer/"):
        assert all(
            name.startswith(("nst_batch.transfer", "nst_batch.records", "nst_batch.layers")) for name in inner
        )
    if own == "worker.py":
        assert not any(name.split(".")[0] == "ray" for name in used)
    if own in ("records.py", "errors.py"):
        assert not inner
    if own.startswith(("store", "study", "tables", "committer")):
        assert not inner & {"nst_batch.run", "nst_batch.cluster", "nst_batch.worker", "nst_batch.cli"}
