"""Commands that turn shards into a store, and what a scan says of them into shards, lists and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roclip_sanitize.cli.options import (
    AsJson,
    ExecutorName,
    Gpus,
    MaxFailed,
    Out,
    Seed,
    Shards,
    Signed,
    Store,
    Threads,
    Workers,
)
from roclip_sanitize.cli.output import finish
from roclip_sanitize.cli.starting import sign, start


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (embed, adopt, retry_failed, rewrite, export):
        app.command()(command)


def embed(
    shards: Shards,
    out: Out,
    encoder: Annotated[
        str,
        typer.Option(
            help="'plain' (thumbnails and hashed words), 'textures' (small patterns of pictures, with "
            "--towers image), 'open_clip:NAME', 'open_clip:NAME/WEIGHTS' or a training's folder."
        ),
    ] = "plain",
    batch_size: Annotated[int, typer.Option(help="Pairs encoded at once.")] = 256,
    decode: Annotated[
        str,
        typer.Option(help="'exact': open_clip's own pixels. 'fast': nearly those, JPEGs shrunk on the way."),
    ] = "exact",
    towers: Annotated[
        str,
        typer.Option(
            help="What gets vectors: 'both', or only 'image' or 'text'; needed as image for textures."
        ),
    ] = "both",
    precision: Annotated[
        str,
        typer.Option(
            help="A CLIP's matrices are multiplied in 'float32', 'bfloat16', or 'auto': the latter on a GPU."
        ),
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile make a CLIP quicker, after a minute or two.")
    ] = False,
    threads: Threads = 0,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    gpus_per_worker: Gpus = 0.0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Turn shards into an embedding store."""
    from roclip_sanitize.embed import EmbedSettings, embed_limits, embed_shards
    from roclip_sanitize.shards import expand_shards

    settings = EmbedSettings(
        shards=tuple(expand_shards(shards)),
        encoder=encoder,
        batch_size=batch_size,
        seed=seed,
        decode=decode,  # type: ignore[arg-type]
        towers=towers,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        compiled=compiled,
        threads=threads,
    )
    where = start(out, executor, workers=workers, gpus_per_worker=gpus_per_worker)
    tally = embed_shards(settings, out=out, executor=where)
    finish(tally, embed_limits(out), max_failed=max_failed, as_json=as_json, store=str(out))


def adopt(
    embeddings: Annotated[Path, typer.Option(help="Folder in clip-retrieval's layout.")],
    shards: Shards,
    model: Annotated[str, typer.Option(help="What made the vectors, such as 'ViT-B-32/openai'.")],
    out: Out,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Turn embeddings that are there already into a store, without embedding again."""
    from roclip_sanitize.adopt import AdoptSettings, adopt_embeddings
    from roclip_sanitize.shards import expand_shards

    settings = AdoptSettings(embeddings=embeddings, shards=tuple(expand_shards(shards)), model=model)
    tally = adopt_embeddings(settings, out=out, executor=start(out, executor, workers=workers))
    finish(tally, max_failed=max_failed, as_json=as_json, store=str(out))


def retry_failed(
    store: Annotated[Path, typer.Argument(help="Embedding store, made by 'roclip embed'.")],
    signed: Signed = "",
    threads: Threads = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    gpus_per_worker: Gpus = 0.0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Embed again the parts of a store that list failures, and say what changed."""
    from dataclasses import asdict

    from roclip_sanitize.retry import retry_failed as retry

    sign(signed)
    where = start(store, executor, workers=workers, gpus_per_worker=gpus_per_worker)
    tally, changes = retry(store, executor=where, threads=threads)
    if as_json:
        told = [asdict(change) for change in changes]
        finish(tally, max_failed=max_failed, as_json=True, store=str(store), changes=told)
        return
    for change in changes:
        print(change.line())
    if not changes:
        print("nothing to try again: no part lists failures")
    if any(change.rows[0] != change.rows[1] for change in changes):
        print("rows have moved: make the index, and what was made with it, again in other folders")
    finish(tally, max_failed=max_failed, as_json=False, store=str(store))


def rewrite(
    store: Store,
    verdicts: Annotated[Path, typer.Option(help="Folder of the scan.")],
    out: Out,
    also_drop: Annotated[
        list[Path] | None,
        typer.Option(
            help="List of uids to set aside, too: a keep-list .npy, a .parquet with a column uid, or text, "
            "a uid a line. May be given several times."
        ),
    ] = None,
    only: Annotated[
        list[Path] | None, typer.Option(help="List of the only uids to keep, such as DataComp's; likewise.")
    ] = None,
    lists_only: Annotated[
        bool, typer.Option("--lists-only", help="Write verdicts, keep-list and manifest, but no shards.")
    ] = False,
    signed: Signed = "",
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Write kept and quarantined shards, a keep-list and a manifest."""
    from roclip_sanitize.rewrite import Lists, RewriteSettings, rewrite_limits, rewrite_shards

    sign(signed)
    settings = RewriteSettings(
        store=store,
        verdicts=verdicts,
        lists=Lists(drop=tuple(also_drop or ()), only=tuple(only or ())),
        lists_only=lists_only,
    )
    tally = rewrite_shards(settings, out=out, executor=start(out, executor, workers=workers))
    shown = {} if lists_only else {"kept_shards": str(out / "kept")}
    finish(
        tally,
        rewrite_limits(out),
        max_failed=max_failed,
        as_json=as_json,
        **shown,
        keep_list=str(out / "keep.npy"),
    )


def export(
    scan: Annotated[Path, typer.Option(help="Folder of the scan.")],
    out: Out,
    most: Annotated[
        int, typer.Option(min=0, help="Of the pairs that were set aside, so many: the most suspicious.")
    ] = 10_000,
    drawn: Annotated[int, typer.Option(min=0, help="And of all pairs so many, at random.")] = 1_000,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Folder of 'roclip poison', whose shards were scanned: poisons say so."),
    ] = None,
    signed: Signed = "",
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Write what a scan found as a data set that FiftyOne opens, to look through it."""
    from roclip_sanitize.export import ExportSettings, export_limits, export_scan

    sign(signed)
    settings = ExportSettings(scan=scan, most=most, drawn=drawn, seed=seed, ledger=ledger)
    tally = export_scan(settings, out=out, executor=start(out, executor, workers=workers))
    finish(tally, export_limits(out), max_failed=0.0, as_json=as_json, dataset=str(out))
