"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or the name of a preset.")]
Content = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Content pictures instead of the study's; repeatable.")
]
Style = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Style pictures instead of the study's; repeatable.")
]
WeightsOption = Annotated[
    str | None, typer.Option(help="imagenet, imagenet_v1, random:SEED, a file or a URL.", metavar="WEIGHTS")
]
Size = Annotated[int | None, typer.Option(help="Pixels of the picture's edge.", metavar="PIXELS")]
Steps = Annotated[int | None, typer.Option(help="Full-size evaluations, or the worth of so many.", metavar="N")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the study, as in grid.alpha=[0.5,1]; repeatable."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", metavar="DEVICE")]
Out = Annotated[str, typer.Option(help="The run directory: a path or a URL such as s3://…", metavar="DIR")]
MaxWorkers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Workers, at most; on a cluster that scales, as many are asked for."),
]
GpusPerWorker = Annotated[
    float, typer.Option(min=0.01, metavar="N", help="GPUs that a worker holds; less than 1 shares one.")
]
CpusPerWorker = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Cores per worker where there is no GPU.")
]
BatchSize = Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials optimised together, at most.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again.")]
JobsAddress = Annotated[
    str | None,
    typer.Option(help="http://HEAD:8265; else RAY_API_SERVER_ADDRESS or RAY_ADDRESS.", metavar="URL"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large study.")]
