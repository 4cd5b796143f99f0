"""Commands that train models and measure them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Gpus, Label, MaxFailed, Out, Seed, Workers
from roclip_sanitize.cli.output import finish, say, show
from roclip_sanitize.evaluation.settings import NEAR, EvaluateSettings
from roclip_sanitize.training.settings import TrainSettings

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(TrainSettings)}


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (train, evaluate):
        app.command()(command)


def train(
    train_data: Annotated[str, typer.Option(help="Shards to train on, with ranges and '::'.")],
    out: Out,
    model: Annotated[str, typer.Option(help="An open_clip model.")] = DEFAULTS["model"],
    pretrained: Annotated[str, typer.Option(help="Start from these weights instead of random ones.")] = "",
    method: Annotated[str, typer.Option(help="'clip' or 'roclip'.")] = DEFAULTS["method"],
    pairing: Annotated[
        str, typer.Option(help="What RoCLIP re-matches: 'final' or 'first' version.")
    ] = DEFAULTS["pairing"],
    pairs: Annotated[
        Path | None, typer.Option(help="Match by this table of 'roclip pair', not by the pool.")
    ] = None,
    augmentation: Annotated[str, typer.Option(help="'none', 'mild' or 'strong'.")] = DEFAULTS["augmentation"],
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = DEFAULTS["epochs"],
    samples: Annotated[
        int, typer.Option(help="Pairs to train on in all, instead of whole epochs.")
    ] = DEFAULTS["samples"],
    batch_size: Annotated[int, typer.Option(help="Pairs per step, over all workers together.")] = DEFAULTS[
        "batch_size"
    ],
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULTS["lr"],
    wd: Annotated[float, typer.Option(help="Weight decay.")] = DEFAULTS["wd"],
    warmup: Annotated[int, typer.Option(help="Steps until the peak.")] = DEFAULTS["warmup"],
    pool_size: Annotated[int, typer.Option(help="Pairs in the pool; 0 takes 2 % of the pairs.")] = DEFAULTS[
        "pool_size"
    ],
    match_from: Annotated[float, typer.Option(help="Share of training before matching starts.")] = DEFAULTS[
        "match_from"
    ],
    match_every: Annotated[int, typer.Option(help="Pairs from window to window.")] = DEFAULTS["match_every"],
    match_for: Annotated[int, typer.Option(help="Pairs that a window lasts.")] = DEFAULTS["match_for"],
    cache: Annotated[Path | None, typer.Option(help="Folder of decoded pairs, which runs may share.")] = None,
    val_data: Annotated[
        str, typer.Option(help="Held-out shards: log the loss on them, and keep the weights with the lowest.")
    ] = "",
    publish: Annotated[str, typer.Option(help="Which weights to publish: 'last' or 'best'.")] = DEFAULTS[
        "publish"
    ],
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.")] = DEFAULTS[
        "checkpoint_seconds"
    ],
    keep_checkpoints: Annotated[int, typer.Option(help="How many checkpoints to keep.")] = DEFAULTS[
        "keep_checkpoints"
    ],
    checkpoints: Annotated[
        str,
        typer.Option(help="Folder or URL for checkpoints, such as s3://bucket/run."),
    ] = "",
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Annotated[int, typer.Option(min=1, help="Ranks that share each step.")] = 1,
    gpus_per_worker: Gpus = 0.0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Train CLIP on shards, plainly or with RoCLIP. A run that is killed or stopped resumes."""
    from roclip_sanitize.executors import open_executor
    from roclip_sanitize.shards import expand_shards
    from roclip_sanitize.training.train import train_clip, train_limits

    settings = TrainSettings(
        shards=tuple(expand_shards(train_data)),
        model=model,
        pretrained=pretrained,
        method=method,  # type: ignore[arg-type]
        pairing=pairing,  # type: ignore[arg-type]
        pairs=pairs,
        augmentation=augmentation,  # type: ignore[arg-type]
        epochs=epochs,
        samples=samples,
        batch_size=batch_size,
        lr=lr,
        wd=wd,
        warmup=warmup,
        pool_size=pool_size,
        match_from=match_from,
        match_every=match_every,
        match_for=match_for,
        seed=seed,
        val_shards=tuple(expand_shards(val_data)) if val_data else (),
        publish=publish,  # type: ignore[arg-type]
        checkpoint_seconds=checkpoint_seconds,
        keep_checkpoints=keep_checkpoints,
        checkpoints=checkpoints,
    )
    where = open_executor(executor, gpus_per_worker=gpus_per_worker)
    tally = train_clip(settings, out=out, executor=where, cache=cache, ranks=workers)
    model_folder = str(out / "model")
    finish(tally, train_limits(out), max_failed=max_failed, as_json=as_json, model=model_folder)


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
    from roclip_sanitize.executors import open_executor
    from roclip_sanitize.runfiles import read_json
    from roclip_sanitize.shards import expand_shards

    settings = EvaluateSettings(
        arms={name or Path(folder).name: Path(folder) for name, folder in map(_split_arm, arm)},
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
    where = open_executor(executor, workers=workers, gpus_per_worker=gpus_per_worker)
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


def _split_arm(arm: str) -> tuple[str, str]:
    name, separator, folder = arm.partition("=")
    return (name, folder) if separator else ("", arm)
