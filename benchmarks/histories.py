"""Whether a refactoring left every result as it was: ids, loss histories, pictures and table bytes of the presets.

    python -m benchmarks.histories RESULT.json                      # runs every preset, small, and writes digests
    python -m benchmarks.histories RESULT.json --against OLD.json   # … and says what differs from an earlier file

Run it with PYTHONPATH on the old checkout, then on the new one, on the same machine: rounding differs between
processors. Of `trials`, the columns that tell of the time and the machine are left out; the files of `curves` and
`layers` hold nothing of the kind and are compared byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from nst_batch.store import tables

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = Path(tempfile.gettempdir()) / "nst-batch-histories"
"""Copies of the example pictures, at the same place for both checkouts: a plan holds their paths."""
PRESETS = {
    "week7_content_layers": (64, 12),
    "gatys2016": (64, 12),
    "content_reconstruction": (64, 12),
    "style_reconstruction": (64, 12),
    "full_grid": (48, 2),
    "demo": (80, 12),
}
"""Pixels and steps: enough for coarse stages and for pairs of L-BFGS."""
ADDED = {
    "content_kept", "style_taken", "transfer_score", "score_reason", "content_baseline", "style_baseline",
    "precision_used", "tile", "num_pairs", "pair_precision",
}  # fmt: skip
"""Columns that came with the second version of the tables; a comparison with the first leaves them out."""
VOLATILE = {"seconds", "peak_memory_bytes", "device", "node", "code_version", "started_at", "finished_at"}


def main() -> None:
    """Runs the presets, writes their digests, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("result", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="*", default=list(PRESETS))
    chosen = parser.parse_args()
    shutil.copytree(EXAMPLES, PICTURES, dirs_exist_ok=True)
    found = {name: digests(name) for name in chosen.only}
    chosen.result.write_text(json.dumps(found, indent=1))
    if chosen.against:
        old = json.loads(chosen.against.read_text())
        different = [
            f"{name}: {key}" for name in found for key in found[name] if found[name][key] != old[name][key]
        ]
        print("\n".join(different) or f"equal: {', '.join(found)}")
        sys.exit(bool(different))


def digests(preset: str) -> dict[str, str]:
    """What a small run of a preset leaves behind, as SHA-256 by kind of thing."""
    size, steps = PRESETS[preset]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "nst_batch", "run", preset, "--out", folder, "--weights", "random:0"]
        command += ["--size", str(size), "--steps", str(steps), "--device", "cpu"]
        if preset != "style_reconstruction":
            command += ["--content", str(PICTURES / "content" / "scene.jpg")]
        if preset != "content_reconstruction":
            command += ["--style", str(PICTURES / "style" / "*.jpg") if preset == "gatys2016" else
                        str(PICTURES / "style" / "swirl.jpg")]  # fmt: skip
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return _read(Path(folder))


def _read(run: Path) -> dict[str, str]:
    trials = pq.ParquetDataset(sorted((run / "trials").glob("*.parquet"))).read().sort_by("trial_index")
    rows = trials.drop_columns([name for name in trials.column_names if name in VOLATILE]).to_pylist()
    plan = pq.ParquetDataset(sorted((run / "plan").glob("*.parquet"))).read().to_pylist()
    rows = [{name: value for name, value in row.items() if name not in ADDED} for row in rows]
    return {
        "ids": _digest([row["trial_id"] for row in rows]),
        "columns": _digest([name for name in trials.column_names if name not in ADDED]),
        "trials": _digest(rows),
        "plan": _digest(plan),
        "curves": _files(run / "curves", _as_before),
        "layers": _files(run / "layers", _as_before),
        "pictures": _files(run / "images"),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _as_before(path: Path) -> bytes:
    """A part as the first version of the tables had it: without what was added since."""
    table = pq.read_table(path)
    table = table.drop_columns([name for name in table.column_names if name in ADDED])
    metadata = {"table": path.parent.name, "schema_version": "1"}
    return tables.parquet_bytes(table.replace_schema_metadata(metadata), path.parent.name)


def _files(folder: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.name.encode() + read(path))
    return digest.hexdigest()


if __name__ == "__main__":
    main()
