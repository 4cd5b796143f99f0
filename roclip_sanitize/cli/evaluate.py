"""The command that measures models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Gpus, Label, Out, Seed, Workers
from roclip_sanitize.cli.output import say, show
from roclip_sanitize.cli.starting import start
from roclip_sanitize.evaluation.settings import NEAR, EvaluateSettings, arms_named


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(evaluate)


def evaluate(
    arm: Annotated[
        list[str], typer.Option(help="NAME=FOLDER of a training, or FOLDER alone; repeat for several.")
    ],
    out: Out,
    test_shards: Annotated[str, typer.Option(help="Shards that no model has seen.")] = "",
    label: Label = "",
    dataset: Annotated[
        str,
        typer.Option(help="NAME:FOLDER of a public data set instead of shards, such as cifar10:data/cifar."),
    ] = "",
    ledger: Annotated[
        Path | None, typer.Option(help="Folder of 'roclip poison': the attacks to measure.")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="Class names, joined by commas; else the commonest labels.")
    ] = "",
    template: Annotated[
        list[str] | None, typer.Option(help="Caption with {} for the class; repeat for several.")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Measure the snapshots too.")] = True,
    probe_data: Annotated[
        str, typer.Option(help="Labelled training shards: fit a linear probe on their image vectors.")
    ] = "",
    store: Annotated[
        Path | None, typer.Option(help="Embedding store of the training shards: count test pictures in it.")
    ] = None,
    near: Annotated[
        float, typer.Option(help="Cosine in that store from which on two pictures are near-duplicates.")
    ] = NEAR,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    gpus_per_worker: Gpus = 0.0,
    as_json: AsJson = False,
) -> None:
    """Measure zero-shot accuracy, retrieval, a linear probe, and the success of every planted attack."""
    from roclip_sanitize.evaluation.evaluate import evaluate_arms
    from roclip_sanitize.runfiles import read_json
    from roclip_sanitize.shards import expand_shards

    settings = EvaluateSettings(
        arms=arms_named(arm),
        test_shards=tuple(expand_shards(test_shards)) if test_shards else (),
        label=label,
        dataset=dataset,
        ledger=ledger,
        classes=tuple(name.strip() for name in classes.split(",") if name.strip()),
        templates=tuple(template or ()),
        curves=curves,
        probe_shards=tuple(expand_shards(probe_data)) if probe_data else (),
        store=store,
        near=near,
        seed=seed,
    )
    where = start(out, executor, workers=workers, gpus_per_worker=gpus_per_worker)
    results = evaluate_arms(settings, out=out, executor=where)
    split = read_json(out / "split.json") | {"unusable": read_json(out / "complete.json")["unusable"]}
    if as_json:
        show({"results": [result.to_json() for result in results], "split": split}, as_json=True)
        return
    for result in results:
        print(_line(result))
    if split["unusable"]:
        say(f"roclip: {split['unusable']:,} test pictures could not be used")
    for name in ("copies", "near_duplicates"):
        if found := split.get(name):
            print(f"{'split':<22} {name:<32} {found['value']:>7.2%}  (of {found['n']:,} test pictures)")


def _line(result: Any) -> str:
    from roclip_sanitize.evaluation.results import RANKS

    what = f"{result.attack or ''} {result.metric}".strip()
    form = ".1f" if result.metric in RANKS else ".1%"
    value, low, high = (format(number, form) for number in (result.value, result.low, result.high))
    return f"{result.arm:<22} {what:<32} {value:>7}  ({low} to {high}, n {result.n:,})"
