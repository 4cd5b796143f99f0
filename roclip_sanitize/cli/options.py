"""Options that several commands share. Defaults live here and in the settings, nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Shards = Annotated[
    str, typer.Option(help="Shards to read: paths with {00000..00009} ranges, several joined by '::'.")
]
Out = Annotated[Path, typer.Option(help="Folder for the results. The same command again resumes there.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
ExecutorName = Annotated[
    str, typer.Option("--executor", help="Where workers run: 'ray' (actors) or 'local' (this process).")
]
Workers = Annotated[int, typer.Option(min=0, help="Workers side by side; 0 takes one per GPU or core.")]
Gpus = Annotated[float, typer.Option("--gpus-per-worker", min=0, help="GPUs each worker holds.")]
Threads = Annotated[
    int, typer.Option(min=0, help="Threads that decode, in each worker; 0 takes the worker's cores.")
]
MaxFailed = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of pairs that may fail; above it the exit code is 3."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Label = Annotated[str, typer.Option(help="JSON field that holds a pair's class.")]
GuardedLabel = Annotated[
    str,
    typer.Option(
        help="JSON field with a pair's class, where no stranger writes it: rare classes lose no more than "
        "--times-per-label allows."
    ),
]
TimesPerLabel = Annotated[
    float,
    typer.Option(help="With --label: no class may lose more than this many times the mean share."),
]
Signed = Annotated[
    str,
    typer.Option(
        help="The store's shards, and lists, again, joined by '::', where their URLs are signed: what signs "
        "them is not kept."
    ),
]
Store = Annotated[Path, typer.Option(help="Embedding store, made by 'roclip embed'.")]
