"""Where measurements are written: one dated file each, never overwritten, with the machine and the command."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The hardware and the software that matter here."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def write(name: str, figures: dict[str, Any]) -> Path:
    """Prints the figures and puts them into a new file, with the command, though not where files lie here."""
    now = datetime.now(UTC)
    options = ("FILE" if Path(each).is_absolute() else each for each in sys.argv[1:])
    command = ["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *options]
    content = {"date": now.isoformat(timespec="seconds"), "command": command, "machine": machine(), **figures}
    text = json.dumps(content, indent=2)
    RESULTS.mkdir(exist_ok=True)
    names = (f"{now:%Y-%m-%d}-{name}{f'-{number}' if number else ''}.json" for number in count())
    path = next(path for each in names if not (path := RESULTS / each).exists())
    path.write_text(text + "\n")
    print(text)
    return path
