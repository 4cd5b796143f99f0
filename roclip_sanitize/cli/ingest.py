"""The command that turns URL lists into shards."""

from __future__ import annotations

from typing import Annotated

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Out, Threads, Workers
from roclip_sanitize.cli.output import finish
from roclip_sanitize.cli.starting import start


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(ingest)


def ingest(
    urls: Annotated[
        str,
        typer.Option(
            help="URL lists: .parquet, .tsv, .csv or .jsonl with {00000..00009} ranges, or folders of them, "
            "joined by '::'."
        ),
    ],
    out: Out,
    url_col: Annotated[str, typer.Option(help="Column of URLs; found by its usual names if not told.")] = "",
    caption_col: Annotated[str, typer.Option(help="Column of captions; likewise.")] = "",
    sha256_col: Annotated[
        str,
        typer.Option(help="Column of sha256 hashes: other bytes are refused, unless their phash is near."),
    ] = "",
    md5_col: Annotated[str, typer.Option(help="Column of md5 hashes; likewise.")] = "",
    phash_col: Annotated[
        str,
        typer.Option(help="Column of perceptual hashes: pictures that look different are refused."),
    ] = "",
    hash_tolerance: Annotated[
        int, typer.Option(help="Bits of 64 in which the phash of one picture may differ.")
    ] = 10,
    image_size: Annotated[int, typer.Option(help="Pixels that pictures are resized to.")] = 256,
    resize_mode: Annotated[
        str, typer.Option(help="'no', 'border', 'keep_ratio', 'keep_ratio_largest' or 'center_crop'.")
    ] = "keep_ratio",
    only_if_bigger: Annotated[
        bool, typer.Option("--only-if-bigger/--also-enlarge", help="Whether smaller pictures stay so.")
    ] = True,
    encode_quality: Annotated[int, typer.Option(help="Of the JPEGs, 1 to 100.")] = 95,
    rows_per_shard: Annotated[int, typer.Option(help="Rows of the lists for each shard.")] = 10_000,
    concurrency: Annotated[int, typer.Option(help="Requests under way at once, of each worker.")] = 64,
    per_host: Annotated[int, typer.Option(help="Of these, to one host.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds for a whole answer.")] = 10.0,
    max_bytes: Annotated[int, typer.Option(help="Of one answer.")] = 20_000_000,
    retries: Annotated[int, typer.Option(help="Further tries after a failure that may pass.")] = 1,
    respect_opt_out: Annotated[
        bool, typer.Option("--respect-opt-out/--ignore-opt-out", help="Whether X-Robots-Tag is heeded.")
    ] = True,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Let URLs lead to this machine and its network.")
    ] = False,
    threads: Threads = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of URLs that may fail; above it, or if all do, the exit code is 3."
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Fetch the pictures of URL lists into shards, and list each URL that failed, with its reason."""
    from roclip_sanitize.errors import TooManyFailed
    from roclip_sanitize.ingest import IngestSettings, ingest_limits, ingest_urls, why_nothing
    from roclip_sanitize.ingest.fetching import FetchSettings
    from roclip_sanitize.ingest.tables import Columns, url_tables

    settings = IngestSettings(
        tables=tuple(url_tables(urls)),
        columns=Columns(url=url_col, caption=caption_col, sha256=sha256_col, md5=md5_col, phash=phash_col),
        image_size=image_size,
        resize_mode=resize_mode,  # type: ignore[arg-type]
        encode_quality=encode_quality,
        resize_only_if_bigger=only_if_bigger,
        rows_per_shard=rows_per_shard,
        hash_tolerance=hash_tolerance,
        fetching=FetchSettings(
            concurrency=concurrency,
            per_host=per_host,
            timeout=timeout,
            max_bytes=max_bytes,
            retries=retries,
            respect_opt_out=respect_opt_out,
            allow_private=allow_private,
        ),
        threads=threads,
    )
    tally = ingest_urls(settings, out=out, executor=start(out, executor, workers=workers))
    finish(
        tally,
        ingest_limits(out),
        max_failed=1.0 if why_nothing(tally) else max_failed,
        as_json=as_json,
        shards=str(out),
        failures=str(out / "failures"),
        domains=str(out / "domains.parquet"),
    )
    if why := why_nothing(tally):
        raise TooManyFailed(why)
