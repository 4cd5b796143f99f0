"""Commands that measure the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roclip_sanitize.cli.options import AsJson
from roclip_sanitize.cli.output import show

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure what limits a run.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(bench, name="bench")


@bench.callback()
def group() -> None:
    """Measure what limits a run."""


@bench.command()
def machine(
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder on the disk to measure; the system's temporary one by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the machine's ceilings: memory, BLAS, disk, hashing, decoding, GPU. Ten seconds or so."""
    from roclip_sanitize.ceilings import measure_ceilings
    from roclip_sanitize.errors import ConfigError
    from roclip_sanitize.machine import describe_machine

    if folder is not None and not folder.is_dir():
        raise ConfigError(f"folder {folder} does not exist")
    found = describe_machine()
    ceilings = []
    if not as_json:
        print(f"{found['processor']}, {found['cores']} cores, {found['memory_bytes'] / 2**30:.0f} GiB")
    for ceiling in measure_ceilings(folder):
        ceilings.append(ceiling)
        if not as_json:
            on = "one core" if ceiling.cores == 1 else ""
            print(f"{ceiling.name:<22} {ceiling.value:>10,.1f}  {ceiling.unit:<11} {on}".rstrip())
    if as_json:
        show({"machine": found, "ceilings": [each.to_json() for each in ceilings]}, as_json=True)
