"""Commands that find which pairs are alike: an index over a store, who is near whom, and RoCLIP's pairing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Out, Seed, Workers
from roclip_sanitize.cli.output import finish, show, told
from roclip_sanitize.cli.starting import start


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    indexes = typer.Typer(invoke_without_command=True, callback=index)
    indexes.command()(inspect)
    app.add_typer(indexes, name="index")
    app.command()(match)
    app.command()(pair)


def index(
    context: typer.Context,
    store: Annotated[Path | None, typer.Option(help="Embedding store, made by 'roclip embed'.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. The same command again resumes there.")
    ] = None,
    modality: Annotated[str, typer.Option(help="Whose vectors: 'image' or 'text'.")] = "image",
    kind: Annotated[
        str,
        typer.Option(
            help="'flat': exact; 'ivf_flat', 'ivf_pq' (small) or 'hnsw': approximate; 'auto': by the rows."
        ),
    ] = "flat",
    transform: Annotated[
        str,
        typer.Option(
            help="'pca96' for the 96 main directions, half-whitened; '' for none. "
            "A scan of a plain store expects pca96."
        ),
    ] = "",
    parts: Annotated[
        int, typer.Option(min=0, help="Parts, each owned by a worker; 0 takes one per worker.")
    ] = 0,
    pool: Annotated[
        int, typer.Option(min=0, help="Index only so many pairs, drawn by the seed; 0 takes all.")
    ] = 0,
    queries: Annotated[
        str, typer.Option(help="Whose vectors will ask, for the measured recall; '' for those indexed.")
    ] = "",
    recall: Annotated[float, typer.Option(help="Recall@10 that an approximate kind is set up for.")] = 0.95,
    nprobe: Annotated[
        int,
        typer.Option(
            min=0, help="Lists (hnsw: nodes) that a query looks at; 0 finds the fewest for --recall."
        ),
    ] = 0,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Build a FAISS index over a store, and measure its recall and speed."""
    if context.invoked_subcommand:
        return
    from roclip_sanitize.errors import ConfigError
    from roclip_sanitize.index import IndexSettings, build_index, index_limits

    if store is None or out is None:  # not the parser's business: 'roclip index inspect' needs neither
        missing = "--store" if store is None else "--out"
        raise ConfigError(f"Missing option '{missing}'; see 'roclip index --help'")
    settings = IndexSettings(
        store=store,
        modality=modality,  # type: ignore[arg-type]
        kind=kind,
        transform=transform,
        parts=parts,
        pool=pool,
        seed=seed,
        queries=queries,  # type: ignore[arg-type]
        recall=recall,
        nprobe=nprobe,
    )
    facts = build_index(settings, out=out, executor=start(out, executor, workers=workers))
    show(facts | told(index_limits(out), as_json=as_json), as_json=as_json)


def inspect(
    folder: Annotated[Path, typer.Argument(help="A finished index, made by 'roclip index'.")],
    as_json: AsJson = False,
) -> None:
    """Tell what an index holds, and how well and how fast it answers."""
    from roclip_sanitize.index import inspect_index

    facts = inspect_index(folder)
    if as_json:
        show(facts, as_json=True)
        return
    width = max(map(len, facts))
    for name, value in sorted(facts.items()):
        text = f"{value:,}" if isinstance(value, int | float) else str(value)
        print(f"{name:<{width}}  {text or '-'}")


def match(
    store: Annotated[Path, typer.Option(help="Embedding store whose pairs ask.")],
    index: Annotated[
        Path, typer.Option(help="Index that answers: of that store, or of another by its model.")
    ],
    out: Out,
    asks: Annotated[str, typer.Option(help="Which vectors of a pair ask: 'image' or 'text'.")] = "image",
    k: Annotated[int, typer.Option(min=1, help="Neighbours of each pair.")] = 10,
    exclude: Annotated[
        str,
        typer.Option(
            help="What a neighbour must not share with the pair: any of 'uid', 'image', 'caption', "
            "joined by commas."
        ),
    ] = "uid",
    max_cosine: Annotated[float | None, typer.Option(help="Pass over what is nearer than this.")] = None,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """List the nearest pairs of every pair: images or captions, asking images or captions."""
    from roclip_sanitize.matching import MatchSettings, match_limits, match_store

    settings = MatchSettings(
        store=store,
        index=index,
        asks=asks,  # type: ignore[arg-type]
        k=k,
        exclude=tuple(name for name in exclude.split(",") if name),  # type: ignore[misc]
        max_cosine=max_cosine,
    )
    tally = match_store(settings, out=out, executor=start(out, executor, workers=workers))
    finish(tally, match_limits(out), max_failed=1.0, as_json=as_json, matches=str(out / "matches"))


def pair(
    store: Annotated[
        Path, typer.Option(help="Embedding store of a CLIP, such as by 'roclip embed --encoder runs/model'.")
    ],
    index_text: Annotated[Path, typer.Option(help="Text index of that store: the captions to choose from.")],
    out: Out,
    index_image: Annotated[
        Path | None, typer.Option(help="Image index of that store; for the first version.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="'first': caption → most similar caption, image → most similar image. "
            "'final': image → most similar caption."
        ),
    ] = "first",
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Give every image the most similar caption, as RoCLIP does, as a table of uids."""
    from roclip_sanitize.pairing import PairSettings, pair_limits, pair_store

    settings = PairSettings(store=store, index_text=index_text, index_image=index_image, method=method)  # type: ignore[arg-type]
    tally = pair_store(settings, out=out, executor=start(out, executor, workers=workers))
    finish(tally, pair_limits(out), max_failed=1.0, as_json=as_json, pairs=str(out / "pairs"))
