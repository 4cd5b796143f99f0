"""Commands that say what is wrong with pairs: scan, score, explain, screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.options import (
    AsJson,
    ExecutorName,
    GuardedLabel,
    MaxFailed,
    Out,
    Seed,
    Shards,
    Signed,
    Store,
    TimesPerLabel,
    Workers,
)
from roclip_sanitize.cli.output import finish, say, scan_findings, show
from roclip_sanitize.cli.starting import sign, start


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (scan, score, explain, screen):
        app.command()(command)


def scan(
    store: Store,
    index: Annotated[Path, typer.Option(help="Image index of that store, made by 'roclip index'.")],
    out: Out,
    detectors: Annotated[
        str,
        typer.Option(
            help="Those that run, of cross_prediction, traces, kin, agreement, repetition, collisions."
        ),
    ] = "cross_prediction,traces,kin,agreement,repetition,collisions",
    neighbours: Annotated[
        int, typer.Option(min=1, help="Pictures that agreement and repetition ask about each caption.")
    ] = 40,
    budget: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of pairs that all detectors but collisions may quarantine."),
    ] = 0.06,
    times_mismatched: Annotated[
        float,
        typer.Option(
            min=0,
            help="And no more than so many times a careful estimate of the share that does not belong "
            "together, or than carry a trace; 0: the budget alone.",
        ),
    ] = 3.0,
    captions_per_picture: Annotated[
        int, typer.Option(min=2, help="So many captions of one picture are a collision.")
    ] = 4,
    pictures_per_caption: Annotated[
        int,
        typer.Option(
            min=2,
            help="So many near-identical pictures of one caption are a collision, similar ones a repetition.",
        ),
    ] = 8,
    near_copy_cosine: Annotated[
        float, typer.Option(min=0, max=1, help="Pictures closer than this are copies.")
    ] = 0.998,
    label: GuardedLabel = "",
    times_per_label: TimesPerLabel = 3.0,
    signed: Signed = "",
    second_look: Annotated[
        list[Path] | None,
        typer.Option(
            help="Store of the same pairs by a CLIP of one epoch: look at them again in its vectors. "
            "As often as there are such CLIPs."
        ),
    ] = None,
    textures: Annotated[
        Path | None,
        typer.Option(
            help="Store of the same pairs by 'embed --encoder textures --towers image': traces of triggers "
            "are looked for there, too."
        ),
    ] = None,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Score every pair and decide which to set aside, with the reason in words."""
    from roclip_sanitize.scan.results import scan_limits
    from roclip_sanitize.scan.settings import ScanSettings
    from roclip_sanitize.scan.stage import scan_store

    sign(signed)
    settings = ScanSettings(
        store=store,
        index=index,
        detectors=tuple(name.strip() for name in detectors.split(",") if name.strip()),
        neighbours=neighbours,
        budget=budget,
        times_mismatched=times_mismatched,
        captions_per_picture=captions_per_picture,
        pictures_per_caption=pictures_per_caption,
        near_copy_cosine=near_copy_cosine,
        label=label,
        times_per_label=times_per_label,
        second_look=tuple(second_look or ()),
        textures=textures,
    )
    tally = scan_store(settings, out=out, executor=start(out, executor, workers=workers))
    found = scan_findings(out, as_json=as_json)
    verdicts = str(out / "verdicts")
    finish(tally, scan_limits(out), max_failed=max_failed, as_json=as_json, **found, verdicts=verdicts)


def score(
    store: Annotated[
        Path,
        typer.Option(
            help="Embedding store: of a CLIP for clip_score, rematch_rank and risk, such as by "
            "'roclip embed --encoder runs/model'."
        ),
    ],
    out: Out,
    detectors: Annotated[
        str,
        typer.Option(
            help="Joined by commas: kdistance, slof, lid, dao (each with _released: as its authors' code "
            "computes it), clip_score, rematch_rank, risk (of a CLIP's store), perplexity, burst, "
            "repetition, changed."
        ),
    ] = "slof,clip_score",
    reference: Annotated[
        int, typer.Option(help="Pairs that others are held against; for _released, of a batch.")
    ] = 4_096,
    neighbours: Annotated[int, typer.Option(help="Of these, how many count as near.")] = 16,
    most_poisons: Annotated[
        float,
        typer.Option(
            help="Instead: share of the pairs that may be poisons of one kind. As many count as near as "
            "find these."
        ),
    ] = 0.0,
    rarest_kind: Annotated[
        float,
        typer.Option(
            help="With it: share of the rarest kind of picture. Says so if density cannot spare it."
        ),
    ] = 1.0,
    worst: Annotated[
        float, typer.Option(help="Share of the pairs to list, the worst, in worst.npy; 0 lists none.")
    ] = 0.0,
    worst_above: Annotated[
        float | None,
        typer.Option(
            help="Instead of a share: list every pair with more than this by the detector of --worst-by."
        ),
    ] = None,
    worst_by: Annotated[str, typer.Option(help="By which detector; the first if not told.")] = "",
    expected: Annotated[
        Path | None,
        typer.Option(
            help="For 'changed': store of the same shards by the same encoder, made before, or adopted."
        ),
    ] = None,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Tell what published detectors say of every pair. No verdict of 'roclip scan' rests on them."""
    from roclip_sanitize.scan.keep_list import read_keep_list
    from roclip_sanitize.scoring import ScoreSettings, score_limits, score_pairs
    from roclip_sanitize.scoring.stage import WORST_FILE

    settings = ScoreSettings(
        store=store,
        detectors=tuple(name.strip() for name in detectors.split(",") if name.strip()),
        reference=reference,
        neighbours=neighbours,
        most_poisons=most_poisons,
        rarest_kind=rarest_kind,
        seed=seed,
        worst=worst,
        worst_by=worst_by,
        worst_above=worst_above,
        expected=expected,
    )
    if settings.band and (warning := settings.band.warning(settings.reference)):
        say(warning)
    tally = score_pairs(settings, out=out, executor=start(out, executor, workers=workers))
    listed: dict[str, Any] = {}
    if worst or worst_above is not None:
        count = len(read_keep_list(out / WORST_FILE))
        listed = {"listed": count if as_json else f"{count:,}", "worst": str(out / WORST_FILE)}
    finish(tally, score_limits(out), max_failed=0.0, as_json=as_json, scores=str(out / "scores"), **listed)


def explain(
    uid: Annotated[str, typer.Argument(metavar="UID", help="The pair's uid, see SCAN/verdicts.")],
    scan: Annotated[Path, typer.Option(help="Folder of the scan.")],
    as_json: AsJson = False,
) -> None:
    """Tell all that a scan knows of one pair: scores, neighbours, and the verdict in words."""
    from roclip_sanitize.scan.one_pair import find_pair

    found = find_pair(scan, uid)
    if as_json:
        show(found.to_json(), as_json=True)
        return
    for line in found.lines():
        print(line)


def screen(
    shards: Shards,
    known_bad: Annotated[
        list[Path],
        typer.Option(
            help="List of hashes: text, a sha256, md5 or pHash a line, or a .parquet with such columns. "
            "May be given several times."
        ),
    ],
    out: Out,
    tolerance: Annotated[
        int, typer.Option(min=0, max=31, help="Bits of 64 in which pHashes of the same picture may differ.")
    ] = 10,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Find the pictures that are on lists of known-bad ones, by their bytes or their looks."""
    from roclip_sanitize.screen import LISTED_FILE, ScreenSettings, screen_limits, screen_shards
    from roclip_sanitize.shards import expand_shards

    settings = ScreenSettings(
        shards=tuple(expand_shards(shards)), known_bad=tuple(known_bad), tolerance=tolerance
    )
    tally = screen_shards(settings, out=out, executor=start(out, executor, workers=workers))
    finish(tally, screen_limits(out), max_failed=max_failed, as_json=as_json, listed=str(out / LISTED_FILE))
