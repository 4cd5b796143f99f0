"""Commands that plant known attacks, and tell which there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.options import AsJson, ExecutorName, Label, MaxFailed, Out, Seed, Shards, Workers
from roclip_sanitize.cli.output import finish, say, show
from roclip_sanitize.cli.starting import start

attacks_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, show and rebuild attacks; make a patch."
)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(poison)
    app.add_typer(attacks_app, name="attacks")


def poison(
    shards: Shards,
    label: Label,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the results; shards come to OUT/shards. The same command again resumes there."
        ),
    ],
    test_shards: Annotated[
        str,
        typer.Option(
            help="Held-out shards, whose pictures targeted attacks are after: needed by these, and if no "
            "--attacks are given."
        ),
    ] = "",
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            help="An attack as NAME or NAME:PARAM=VALUE,… ('roclip attacks list'); repeat it for several. "
            "Without any: targeted and patch."
        ),
    ] = None,
    classes: Annotated[
        int, typer.Option(min=2, help="How many of the commonest labels count as classes.")
    ] = 30,
    seed: Seed = 0,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Plant known attacks in a copy of the shards, with a ledger of every poisoned pair."""
    from roclip_sanitize.attacks.poison import DEFAULT_ATTACKS, PoisonSettings, poison_limits, poison_shards
    from roclip_sanitize.shards import expand_shards

    settings = PoisonSettings(
        shards=tuple(expand_shards(shards)),
        test_shards=tuple(expand_shards(test_shards)) if test_shards else (),
        label=label,
        attacks=tuple(attacks or DEFAULT_ATTACKS),
        classes=classes,
        seed=seed,
    )
    tally = poison_shards(settings, out=out, executor=start(out, executor, workers=workers))
    made = _what_was_planted(out, as_json=as_json)
    finish(tally, poison_limits(out), max_failed=max_failed, as_json=as_json, **made)


def _what_was_planted(out: Path, *, as_json: bool) -> dict[str, Any]:
    """How many poisons there are of each attack, and where: what a finished poisoning adds to its tally."""
    from roclip_sanitize.attacks.ledger import Ledger

    ledger = Ledger.open(out)
    counts = Counter(ledger.poisons.values())
    found: dict[str, Any] = {"poisons": {attack: counts[attack] for attack in ledger.attacks}}
    if not as_json:
        each = ", ".join(f"{attack} {count:,}" for attack, count in found["poisons"].items())
        found["poisons"] = f"{counts.total():,} ({each})"
    if ledger.covers:
        found["cover_samples"] = len(ledger.covers) if as_json else f"{len(ledger.covers):,}"
    return {**found, "shards": str(out / "shards"), "ledger": str(out / "ledger.parquet")}


@attacks_app.callback()
def group() -> None:
    """List, show and rebuild attacks; make a patch."""


@attacks_app.command("list")
def list_attacks(as_json: AsJson = False) -> None:
    """List all attacks: what each changes, its parameters with their defaults, where it was published."""
    from roclip_sanitize.attacks import ATTACKS
    from roclip_sanitize.attacks.specs import describe, write_spec

    if as_json:
        show({"attacks": [describe(name) for name in ATTACKS]}, as_json=True)
        return
    for name in ATTACKS:
        told = describe(name)
        print(f"{name:<15} {_kind(told)}")
        print(f"{'':<15} {write_spec(name, told['parameters'])}")
        print(f"{'':<15} {told['source']}")


@attacks_app.command("show")
def show_attack(
    name: Annotated[
        str, typer.Argument(metavar="ATTACK", help="An attack, as 'roclip attacks list' calls it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show one attack: what it does and what its parameters mean."""
    from roclip_sanitize.attacks.specs import describe

    told = describe(name)
    if as_json:
        show(told, as_json=True)
        return
    print(f"{name} ({_kind(told)})\n\n{told['does']}\n")
    for parameter, meaning in told["meanings"].items():
        print(f"  {parameter + '=' + told['parameters'][parameter]:<22} {meaning}")
    print(f"  {'as=':<22} another name in ledger and results\n\n{told['source']}")


@attacks_app.command()
def rebuild(
    ledger: Annotated[
        Path, typer.Option(help="Folder of 'roclip poison', or its ledger.json, ledger.parquet and targets/.")
    ],
    shards: Shards,
    out: Out,
    executor: ExecutorName = "ray",
    workers: Workers = 0,
    max_failed: MaxFailed = 0.01,
    as_json: AsJson = False,
) -> None:
    """Plant again what a ledger lists in the clean shards: the same bytes as the first time."""
    from roclip_sanitize.attacks.poison import poison_limits
    from roclip_sanitize.attacks.rebuilding import rebuild_shards
    from roclip_sanitize.shards import expand_shards

    where = start(out, executor, workers=workers)
    tally = rebuild_shards(ledger, expand_shards(shards), out=out, executor=where)
    made = _what_was_planted(out, as_json=as_json)
    finish(tally, poison_limits(out), max_failed=max_failed, as_json=as_json, **made)


@attacks_app.command()
def optimise_patch(
    encoder: Annotated[
        str,
        typer.Option(help="The CLIP to make it against: a training's folder, or open_clip:NAME/WEIGHTS."),
    ],
    shards: Shards,
    label: Label,
    target: Annotated[str, typer.Option(help="Class that the patch is to stand for.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File for the patch.")],
    share: Annotated[
        float, typer.Option(help="Side of the patch as a share of the picture's shorter side.")
    ] = 1 / 14,
    pictures: Annotated[int, typer.Option(min=2, help="Pictures of the target class, and of others.")] = 256,
    steps: Annotated[int, typer.Option(min=1, help="Steps of Adam.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in each step.")] = 32,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Make a patch that moves any picture towards a class in a CLIP's eyes, for the attack 'badclip'."""
    from roclip_sanitize.attacks.patch_material import PatchSettings
    from roclip_sanitize.attacks.patch_optimiser import optimise
    from roclip_sanitize.shards import expand_shards

    settings = PatchSettings(
        encoder=encoder,
        shards=tuple(expand_shards(shards)),
        label=label,
        target=target,
        share=share,
        pictures=pictures,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
    made = optimise(settings, out=out, say=say)
    show({"patch": str(out), **made}, as_json=as_json)


def _kind(told: Mapping[str, Any]) -> str:
    """An attack's family, and what it does: most change something of pairs, some add pairs."""
    does = told["changes"]
    return f"{told['family']}; {does if does.startswith('adds ') else f'changes {does}'}"
