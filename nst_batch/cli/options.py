"""The options that several commands share, each declared once.

An option that was not given is None and is not passed on, so that defaults stand where they are used alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_args, get_type_hints

import typer

_Command = TypeVar("_Command", bound=Callable[..., None])
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """A length of time as people write it: `45s`, `90 min`, `6h`, `2 d`; anything else is a ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d)", text.strip())
    if not match:
        raise ValueError(f"expected a time such as 90min, 6h or 2d, found {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="auto (the default), cpu or cuda.")]


class StudyOptions(TypedDict, total=False):
    """The options that override a study, with the keys of `study.reading.Overrides`."""

    content: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Content pictures instead of the study's; repeatable."),
    ]
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Style pictures instead of the study's; repeatable."),
    ]
    protect: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Masks of the contents, by their names: white keeps the content."),
    ]
    weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="imagenet, imagenet_v1, random:SEED, a file or a URL.")
    ]
    size: Annotated[int | None, typer.Option(metavar="PIXELS", help="Pixels of the picture's edge.")]
    steps: Annotated[int | None, typer.Option(metavar="N", help="Full-size evaluations, or the worth of so many.")]
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any key of the study, as in grid.alpha=[0.5,1]; repeatable."
        ),
    ]


class ExecutionOptions(StudyOptions, total=False):
    """The options of `run` and `submit`: what overrides the study, and how it is run."""

    device: Device
    max_workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Workers, at most; on a cluster that scales, as many are asked for."),
    ]
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="N", help="GPUs that a worker holds, else 1; less than 1 shares one."),
    ]
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cores per worker where there is no GPU.")
    ]
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials optimised together, at most.")]
    retry_failed: Annotated[bool | None, typer.Option("--retry-failed", help="Try failed trials again.")]
    yes: Annotated[bool | None, typer.Option("--yes", "-y", help="Do not ask before a large study.")]


def with_options(command: _Command) -> _Command:
    """Gives a command that takes `**options: Unpack[…]` an option for each key of that TypedDict."""
    *parameters, keywords = inspect.signature(command, eval_str=True).parameters.values()
    [options] = get_args(keywords.annotation)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in get_type_hints(options, include_extras=True).items()
    ]
    vars(command)["__signature__"] = inspect.Signature([*parameters, *added])
    return command


def chosen(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of `options` with these names that were given."""
    return {name: options[name] for name in names if options.get(name) is not None}


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a preset.")]
RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="A run directory: a path or a URL.")]
Out = Annotated[str, typer.Option(metavar="DIR", help="The run directory: a path or a URL such as s3://…")]
JobsAddress = Annotated[
    str | None,
    typer.Option(metavar="URL", help="http://HEAD:8265; else RAY_API_SERVER_ADDRESS or RAY_ADDRESS."),
]
Format = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="How rows are printed.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of to stdout.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[
    str | None, typer.Option(metavar="SQL", help="Only these trials, as in \"content_layer = 'block4_conv1'\".")
]
