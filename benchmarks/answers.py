"""How long answers take on a large run: 100,000 trials of 300 steps, published in 100 parts.

    python -m benchmarks.answers /tmp/large-run

The run is made if it is not there (minutes): pictures are left out, everything else is as a run writes it.
Each figure is the median of five calls in one process, files in the page cache; the command line adds its start.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

import nst_batch
from benchmarks.report import write
from nst_batch.records import TERMS, Configuration, Picture, Trial, trial_id
from nst_batch.results.overview import Overview
from nst_batch.results.query import Session
from nst_batch.results.rank import rank
from nst_batch.store import tables
from nst_batch.store.committer import Committer
from nst_batch.store.rows import identity as configuration_identity
from nst_batch.store.run_directory import RunDirectory, part_name
from nst_batch.vocabulary import conv_layers

PAIRS, STEPS, PART = 1_000, 300, 1_000
LAYERS = conv_layers("vgg16")


def configurations() -> list[Configuration]:
    """100: content layers × style sets × weightings, a part of the full grid."""
    return [
        Configuration(
            size=300, fit="crop", arch="vgg16", weights="random:0", weights_sha256="ab" * 32, pooling="average",
            normalization="imagenet", loss="sum", content_layers=(layer,),
            style_layers=tuple(f"block{block}_conv1" for block in range(1, sets + 1)), style_layer_weights=(),
            alpha=alpha, beta=5.0, tv_weight=0.0, style_scale=1.0, color="style", init="content", seed=0,
            optimizer="lbfgs", steps=STEPS, learning_rate=0.02, pyramid="auto", plateau=0.0, precision="auto",
        )
        for layer in LAYERS[:10] for sets in range(1, 6) for alpha in (0.05, 0.5)
    ]  # fmt: skip


def make(path: Path) -> RunDirectory:
    """The run: a real plan, and parts written as the committer writes them."""
    run, chosen = RunDirectory(path), configurations()
    style = Picture(uri="paintings/style.jpg", sha256="cd" * 32)

    def planned() -> Any:
        for index in range(PAIRS * len(chosen)):
            content = Picture(uri=f"photos/{index // len(chosen):05d}.jpg", sha256=f"{index // len(chosen):064x}")
            configuration = chosen[index % len(chosen)]
            identity = trial_id(content, (style,), configuration_identity(configuration))
            yield Trial(
                trial_id=identity, trial_index=index, batch=index, content=content, styles=(style,), width=300,
                height=300, configuration=configuration,
            )  # fmt: skip

    with Committer(run) as committer:
        committer.write_plan({"name": "large", "fingerprint": "0"}, planned())
    plan, by_id = run.plan(), run.configurations
    generator = np.random.default_rng(0)
    for part in range(plan.num_rows // PART):
        for name, table in part_tables(plan.slice(part * PART, PART), by_id, generator).items():
            run.directory.write(f"{name}/{part_name(part)}", tables.parquet_bytes(table, name))
    run.directory.write("_SUCCESS", b"{}")
    return run


def part_tables(
    plan: pa.Table, by_id: dict[str, Configuration], generator: np.random.Generator
) -> dict[str, pa.Table]:
    """The three tables of a part."""
    rows, count = plan.to_pylist(), plan.num_rows
    trials = []
    for row in rows:
        configuration = by_id[row["configuration"]]
        base: dict[str, Any] = dict.fromkeys(tables.TRIALS.names)
        base |= {name: getattr(configuration, name) for name in tables.TRIALS.names if hasattr(configuration, name)}
        base |= {
            name: row[name]
            for name in ("trial_id", "trial_index", "content_uri", "content_sha256", "configuration")
        }
        content, style, total = generator.gamma(2, size=3)
        kept, taken = generator.random(2)
        base |= {
            "study": "large", "attempt": 1, "status": "ok", "style_uri": row["style_uris"][0], "steps_done": STEPS,
            "content_distance": content, "style_distance": style, "content_kept": kept, "style_taken": taken,
            "transfer_score": kept * taken, "final_total_loss": total, "seconds": 1.0,
            "image_path": f"images/{row['trial_id'][:2]}/{row['trial_id']}.png", "finished_at": datetime.now(UTC),
        }  # fmt: skip
        trials.append({name: list(value) if isinstance(value, tuple) else value for name, value in base.items()})
    offsets = np.arange(0, (count + 1) * (STEPS + 1), STEPS + 1, dtype=np.int32)
    loss = np.exp(-np.linspace(0, 3, STEPS + 1) + generator.normal(0, 0.05, (count, STEPS + 1))).astype(np.float32)
    lists: dict[str, Any] = {"step": np.tile(np.arange(STEPS + 1, dtype=np.int32), count)}
    lists |= {term: loss.ravel() * factor for factor, term in enumerate(TERMS, 1)}
    keys = {name: plan[name].combine_chunks() for name in ("trial_id", "trial_index", "configuration")}
    curves = keys | {"status": pa.array(["ok"] * count)}
    curves |= {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in lists.items()}
    repeated = {
        name: values.take(pa.array(np.repeat(np.arange(count), len(LAYERS)))) for name, values in keys.items()
    }
    layers = repeated | {"layer": pa.array(list(LAYERS) * count)}
    layers |= {
        name: pa.array(generator.gamma(2, size=count * len(LAYERS)))
        for name in ("content_distance", "style_distance", "content_baseline", "style_baseline")
    }
    return {
        "trials": pa.Table.from_pylist(trials, tables.TRIALS),
        "curves": pa.table([curves[name] for name in tables.CURVES.names], tables.CURVES.names).cast(tables.CURVES),
        "layers": pa.table([layers[name] for name in tables.LAYERS.names], tables.LAYERS),
    }


def seconds(call: Callable[[], object], repetitions: int = 5) -> float:
    """The median time of a call."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 3)


def main() -> None:
    """Measures, and writes the figures to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    path = parser.parse_args().directory
    run = RunDirectory(path) if (path / "_SUCCESS").exists() else make(path)
    some = run.plan(["trial_id"])["trial_id"][54_321].as_py()
    per_configuration = "SELECT configuration, avg(final_total_loss) FROM trials WHERE status = 'ok' GROUP BY 1"
    figures = {
        "opening the run and its three views": seconds(
            lambda: Session(RunDirectory(path)).__exit__(None, None, None)
        )
    }
    with Session(run) as session:
        figures |= {
            "final loss per configuration": seconds(lambda: session.query(per_configuration)),
            "one curve by trial_id": seconds(
                lambda: session.query(f"SELECT total FROM curves WHERE trial_id = '{some}'")
            ),
            "one curve by trial_index": seconds(
                lambda: session.query("SELECT total FROM curves WHERE trial_index = 54321")
            ),
        }
    figures["rank"] = seconds(lambda: rank(RunDirectory(path)), 3)
    figures["the first 24 pairs, for a contact sheet"] = seconds(
        lambda: Overview(RunDirectory(path), max_pairs=24, max_configurations=40).trials, 3
    )
    versions = {"nst-batch": nst_batch.__version__, "duckdb": duckdb.__version__, "pyarrow": pa.__version__}
    write("answers", {"trials": run.num_trials, "steps": STEPS, "versions": versions, "seconds": figures})


if __name__ == "__main__":
    main()
