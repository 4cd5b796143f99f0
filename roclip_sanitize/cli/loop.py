"""Commands for the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Seed, Workers
from roclip_sanitize.cli.output import say, show


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (report, demo):
        app.command()(command)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a demo, or any folder with a results.json.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page; RUN/report.html by default.")
    ] = None,
) -> None:
    """Make one self-contained HTML page of a run."""
    from roclip_sanitize.report import write_report

    print(write_report(run, out=out))


def demo(
    run: Annotated[Path, typer.Option(help="Folder for everything the run makes; resumes there.")] = Path(
        "runs/demo"
    ),
    shards: Annotated[
        str, typer.Option(help="Training shards; without them the demo renders its own corpus.")
    ] = "",
    test_shards: Annotated[str, typer.Option(help="Held-out shards.")] = "",
    label: Annotated[str, typer.Option(help="JSON field that holds a pair's class.")] = "",
    epochs: Annotated[int, typer.Option(min=0, help="Passes of each training; 0 takes the default.")] = 0,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Run the closed loop: poison a copy, sanitise it, train undefended and defended, compare.

    Prints the before/after table and the place of the report. Ends with 1 if an attack did not
    take on undefended CLIP, since the run then proves nothing.
    """
    from roclip_sanitize.demo import Demo, DemoSettings
    from roclip_sanitize.errors import VoidResult
    from roclip_sanitize.executors import open_executor
    from roclip_sanitize.outcome import results_table, why_void

    settings = DemoSettings(shards=shards, test_shards=test_shards, label=label, epochs=epochs, seed=seed)
    results = Demo(settings, run=run, executor=open_executor(executor, workers=workers))()
    if as_json:
        show({"results": [result.to_json() for result in results]}, as_json=True)
    else:
        print(results_table(results))
    say(f"report: {run / 'report.html'}")
    if why := why_void(results):
        raise VoidResult(f"this run proves nothing: {why}")
