"""The command that trains models."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Gpus, MaxFailed, Out, Seed
from roclip_sanitize.cli.output import finish
from roclip_sanitize.cli.starting import start
from roclip_sanitize.training.settings import METHODS, TrainSettings
from roclip_sanitize.training.uses import READERS

POOLED = ", ".join(READERS["pool_size"])
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(TrainSettings)}


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(train)


def train(
    train_data: Annotated[str, typer.Option(help="Shards to train on, with ranges and '::'.")],
    out: Out,
    model: Annotated[str, typer.Option(help="An open_clip model.")] = DEFAULTS["model"],
    pretrained: Annotated[
        str, typer.Option(help="Start from these weights: a training's folder, or open_clip:NAME/WEIGHTS.")
    ] = "",
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = DEFAULTS["method"],
    pairing: Annotated[
        str, typer.Option(help="What RoCLIP re-matches: 'final' or 'first' version, or 'both' (roclip only).")
    ] = DEFAULTS["pairing"],
    match_by: Annotated[
        str,
        typer.Option(
            help="'pool': the latest pairs; 'index': all, by an index made anew each window (roclip only)."
        ),
    ] = DEFAULTS["match_by"],
    pairs: Annotated[
        Path | None, typer.Option(help="Match by this table of 'roclip pair', not by the pool (roclip only).")
    ] = None,
    pool_size: Annotated[
        int, typer.Option(help=f"Pairs in the pool; 0 takes 2 % of the pairs ({POOLED} only).")
    ] = DEFAULTS["pool_size"],
    match_from: Annotated[
        float, typer.Option(help="Share of training before matching starts (roclip only).")
    ] = DEFAULTS["match_from"],
    match_every: Annotated[int, typer.Option(help="Pairs from window to window (roclip only).")] = DEFAULTS[
        "match_every"
    ],
    match_for: Annotated[int, typer.Option(help="Pairs that a window lasts (roclip only).")] = DEFAULTS[
        "match_for"
    ],
    match_last: Annotated[
        str,
        typer.Option(
            help="End with a window ('matching'), without ('ordinary'), or as it comes (''; roclip only)."
        ),
    ] = DEFAULTS["match_last"],
    match_workers: Annotated[
        int, typer.Option(min=1, help="Workers that make the tables of 'index' and 'scan'.")
    ] = 1,
    exclude_copies: Annotated[
        bool,
        typer.Option(
            "--exclude-copies", help="Match no pair with copies of its own picture or caption (roclip only)."
        ),
    ] = DEFAULTS["exclude_copies"],
    warm_up_for: Annotated[
        float | None, typer.Option(help="Share of training that begins it unimodally, without pairs.")
    ] = None,
    gentle_for: Annotated[
        float | None, typer.Option(help="Share of training that follows at a low learning rate.")
    ] = None,
    gentle_rate: Annotated[float, typer.Option(help="Factor on the rate meanwhile.")] = DEFAULTS[
        "gentle_rate"
    ],
    doubtful: Annotated[
        float, typer.Option(help="Share of the pairs that are not trusted (consensus only).")
    ] = DEFAULTS["doubtful"],
    rewritten: Annotated[
        float,
        typer.Option(
            help="How often these are shown rewritten, 0 to 1; else others in their place (consensus only)."
        ),
    ] = DEFAULTS["rewritten"],
    judge_by: Annotated[
        str,
        typer.Option(
            help="Who judges pairs: 'memory', which holds them all; 'scan', by workers beside "
            "(consensus only)."
        ),
    ] = DEFAULTS["judge_by"],
    augmentation: Annotated[
        str,
        typer.Option(
            help="'none', 'mild', 'mixing', 'strong', or the RoCLIP paper's: 'paper', 'paper_mild'."
        ),
    ] = DEFAULTS["augmentation"],
    augment_for: Annotated[
        float, typer.Option(help="Share of training that is augmented; then pairs are shown as they are.")
    ] = DEFAULTS["augment_for"],
    synonyms: Annotated[
        Path | None, typer.Option(help="Table of synonyms, or WordNet's folder, for the paper's captions.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = DEFAULTS["epochs"],
    samples: Annotated[
        int, typer.Option(help="Pairs to train on in all, instead of whole epochs.")
    ] = DEFAULTS["samples"],
    batch_size: Annotated[int, typer.Option(help="Pairs per step, over all workers together.")] = DEFAULTS[
        "batch_size"
    ],
    accum_freq: Annotated[
        int, typer.Option(help="Parts in which a step goes through the model, to save memory.")
    ] = DEFAULTS["accum_freq"],
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULTS["lr"],
    wd: Annotated[float, typer.Option(help="Weight decay.")] = DEFAULTS["wd"],
    warmup: Annotated[int, typer.Option(help="Steps until the peak.")] = DEFAULTS["warmup"],
    precision: Annotated[str, typer.Option(help="'float32' or 'bfloat16'.")] = DEFAULTS["precision"],
    compile: Annotated[  # the option's name
        bool, typer.Option("--compile", help="Let torch.compile make steps quicker, after a minute or two.")
    ] = DEFAULTS["compile"],
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
        str, typer.Option(help="Folder or URL for checkpoints, such as s3://bucket/run.")
    ] = DEFAULTS["checkpoints"],
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Folder of 'roclip poison': tell how many poisons are matched away; for watching only."
        ),
    ] = None,
    wandb: Annotated[str, typer.Option(help="Project of Weights & Biases to tell too.")] = "",
    resident: Annotated[
        str,
        typer.Option(help="Whether the GPU holds all pairs: 'auto' (if they are few), 'always', 'never'."),
    ] = DEFAULTS["resident"],
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Annotated[int, typer.Option(min=1, help="Ranks that share each step.")] = 1,
    gpus_per_worker: Gpus = 0.0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Train CLIP on shards, plainly or robustly. A run that is killed or stopped resumes."""
    from roclip_sanitize.shards import expand_shards
    from roclip_sanitize.training.train import train_clip, train_limits

    settings = TrainSettings(
        shards=tuple(expand_shards(train_data)),
        model=model,
        pretrained=pretrained,
        method=method,  # type: ignore[arg-type]
        pairing=pairing,  # type: ignore[arg-type]
        match_by=match_by,  # type: ignore[arg-type]
        pairs=pairs,
        pool_size=pool_size,
        match_from=match_from,
        match_every=match_every,
        match_for=match_for,
        match_last=match_last,  # type: ignore[arg-type]
        exclude_copies=exclude_copies,
        warm_up_for=warm_up_for,
        gentle_for=gentle_for,
        gentle_rate=gentle_rate,
        doubtful=doubtful,
        rewritten=rewritten,
        judge_by=judge_by,  # type: ignore[arg-type]
        augmentation=augmentation,  # type: ignore[arg-type]
        augment_for=augment_for,
        synonyms=synonyms,
        epochs=epochs,
        samples=samples,
        batch_size=batch_size,
        accum_freq=accum_freq,
        lr=lr,
        wd=wd,
        warmup=warmup,
        precision=precision,  # type: ignore[arg-type]
        compile=compile,
        val_shards=tuple(expand_shards(val_data)) if val_data else (),
        publish=publish,  # type: ignore[arg-type]
        checkpoint_seconds=checkpoint_seconds,
        keep_checkpoints=keep_checkpoints,
        checkpoints=checkpoints,
        ledger=ledger,
        wandb=wandb,
        resident=resident,  # type: ignore[arg-type]
        seed=seed,
    )
    where = start(out, executor, gpus_per_worker=gpus_per_worker)
    tally = train_clip(
        settings,
        out=out,
        executor=where,
        cache=cache,
        ranks=workers,
        aside=match_workers,
        progress=sys.stderr,
    )
    model_folder = str(out / "model")
    finish(tally, train_limits(out), max_failed=max_failed, as_json=as_json, model=model_folder)
