"""Commands for the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roclip_sanitize.cli.options import (
    AsJson,
    ExecutorName,
    Gpus,
    GuardedLabel,
    MaxFailed,
    Out,
    Seed,
    Shards,
    Signed,
    TimesPerLabel,
    Workers,
)
from roclip_sanitize.cli.output import finish, say, scan_findings, show
from roclip_sanitize.cli.starting import require_own, sign, start
from roclip_sanitize.errors import DataError
from roclip_sanitize.remote import source_name
from roclip_sanitize.storage import exists


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (sanitize, canaries, audit, verify, report, demo, status):
        app.command()(command)


def sanitize(
    shards: Shards,
    out: Out,
    young_clips: Annotated[
        int,
        typer.Option(
            min=0,
            help="CLIPs that look again, each after an epoch of training. 0 looks once: sooner done, and it "
            "finds less and sets aside more that is clean.",
        ),
    ] = 2,
    budget: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pairs that may be set aside as suspicious.")
    ] = 0.06,
    label: GuardedLabel = "",
    times_per_label: TimesPerLabel = 3.0,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    gpus_per_worker: Gpus = 0.0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Clean a dataset: embed, index, scan and rewrite it, all in one folder.

    The shards to train on are then in OUT/rewrite/kept.
    """
    from roclip_sanitize.rewrite import rewrite_limits
    from roclip_sanitize.sanitize import SanitizeSettings, sanitize_shards
    from roclip_sanitize.shards import expand_shards

    settings = SanitizeSettings(
        shards=tuple(expand_shards(shards)),
        young_clips=young_clips,
        seed=seed,
        scan={"budget": budget, "label": label, "times_per_label": times_per_label},
    )
    where = start(out, executor, workers=workers, gpus_per_worker=gpus_per_worker)
    tally = sanitize_shards(settings, out=out, executor=where, say=lambda line: say(f"sanitize: {line}"))
    rewritten = out / "rewrite"
    finish(
        tally,
        rewrite_limits(rewritten),
        max_failed=max_failed,
        as_json=as_json,
        **scan_findings(out / "scan", as_json=as_json),
        kept_shards=str(rewritten / "kept"),
        keep_list=str(rewritten / "keep.npy"),
        manifest=str(rewritten / "manifest.json"),
    )


def canaries(
    scan: Annotated[Path, typer.Option(help="The scan that is asked about.")],
    out: Out,
    families: Annotated[str, typer.Option(help="Which attacks, joined by commas; all if not told.")] = "",
    share: Annotated[
        float,
        typer.Option(
            max=0.05,
            help="Canaries of each family, as a share of the pairs, more than 0; 15 to 300 of them.",
        ),
    ] = 0.003,
    encoder: Annotated[
        str, typer.Option(help="What made the scan's store, if it is no longer where the store says.")
    ] = "",
    young: Annotated[
        list[str] | None,
        typer.Option(
            help="Likewise the young CLIPs that looked again: the folder of each, in their order; repeat for "
            "several."
        ),
    ] = None,
    signed: Signed = "",
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a scan how much it finds: known attacks are made of its own pairs, and it is done again with them.

    Nothing of the scan that is asked about changes. Prints the recall of each family, with its interval.
    """
    from dataclasses import asdict

    from roclip_sanitize.canaries import FAMILIES, CanarySettings, count_canaries

    named = tuple(name.strip() for name in families.split(",") if name.strip()) or tuple(FAMILIES)
    sign(signed)
    settings = CanarySettings(
        scan=scan, families=named, share=share, encoder=encoder, young=tuple(young or ()), seed=seed
    )
    found = count_canaries(settings, out=out, executor=start(out, executor, workers=workers))
    if as_json:
        show({"families": [asdict(family) for family in found]}, as_json=True)
        return
    for family in found:
        counts = f"{family.found:>4,} of {family.planted:>4,} found"
        print(f"{family.family:<14} {counts}, {family.recall:.1%} ({family.low:.1%} to {family.high:.1%})")


def audit(
    scan: Annotated[Path, typer.Option(help="Folder of the scan.")],
    out: Out,
    rewritten: Annotated[
        Path | None, typer.Option(help="Folder of the shards rewritten by it: adds a table of domains.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Folder of 'roclip poison', whose shards were scanned: adds what was found of it."),
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Folder of 'roclip canaries' about it: adds what it finds of them.")
    ] = None,
    label: Annotated[
        str, typer.Option(help="JSON field that holds a pair's class: adds what was removed of each.")
    ] = "",
    signed: Signed = "",
    as_json: AsJson = False,
) -> None:
    """Make a page for auditors of what became of the pairs, with every number in audit.json.

    Prints a sha256 that seals the page and all that it rests on: keep it elsewhere.
    """
    from roclip_sanitize.audit import AuditSettings, write_audit

    sign(signed)
    settings = AuditSettings(scan=scan, rewritten=rewritten, ledger=ledger, canaries=canaries, label=label)
    require_own(out)
    seal = write_audit(settings, out=out)
    show({"page": str(out / "audit.html"), "numbers": str(out / "audit.json"), "seal": seal}, as_json=as_json)


def verify(
    folder: Annotated[
        Path, typer.Argument(help="A stage's folder, or one that holds several, such as a run's.")
    ],
    signed: Signed = "",
    as_json: AsJson = False,
) -> None:
    """Check results again: hashes, counts, and every kept and quarantined pair against its input.

    Prints a line for each thing that holds, and ends with 4 at the first that does not.
    """
    from roclip_sanitize.verification import verify_folder

    if not exists(folder):
        raise DataError(f"{source_name(folder)} does not exist")
    sign(signed)
    checks = []
    for check in verify_folder(folder):
        checks.append({"where": str(check.where), "what": check.what})
        if not as_json:
            print(f"{check.where}: {check.what}")
    if as_json:
        show({"checks": checks}, as_json=True)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a demo, or any folder with a results.json.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for the page; report.html in FOLDER by default."),
    ] = None,
) -> None:
    """Make one self-contained HTML page of a run."""
    from roclip_sanitize.report import write_report

    print(source_name(write_report(run, out=out)))


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
    from roclip_sanitize.outcome import results_table, why_void

    settings = DemoSettings(shards=shards, test_shards=test_shards, label=label, epochs=epochs, seed=seed)
    results = Demo(settings, run=run, executor=start(run, executor, workers=workers))()
    if as_json:
        show({"results": [result.to_json() for result in results]}, as_json=True)
    else:
        print(results_table(results))
    say(f"report: {source_name(run / 'report.html')}")
    if why := why_void(results):
        raise VoidResult(f"this run proves nothing: {why}")


def status(
    run: Annotated[
        Path, typer.Argument(help="A stage's folder, or one that holds several, such as a run's.")
    ],
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Look again and again, until the run has ended; Ctrl-C ends it too."),
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Tell how far a run is: stages, shards done, rates, failures by reason, time left.

    Looks at the folder alone, so that it can be asked on any machine that sees it, also after a kill.
    """
    import time

    from roclip_sanitize.status.lines import run_lines
    from roclip_sanitize.status.reading import StatusReader

    reader = StatusReader(run)
    while True:
        found = reader.read()
        if as_json:
            show(found.to_json(), as_json=True)
        else:
            print("\n".join(run_lines(found)), flush=True)
        if not follow or found.code is not None or all(stage.finished for stage in found.stages):
            return
        time.sleep(every)
        if not as_json:
            print()
