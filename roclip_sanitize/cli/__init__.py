"""The command line: parse, call, print. The only package that imports typer.

    __init__.py   the app, its settings file, its exit codes
    attacks.py    poison, attacks
    data.py       embed, retry-failed, scan, explain, rewrite
    index.py      index, pair
    train.py      train
    evaluate.py   evaluate
    loop.py       sanitize, audit, verify, demo, report
    bench.py      bench machine
    options.py    options that several commands share
    output.py     what commands print

Commands import what they need when they run, so that --help is quick.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from roclip_sanitize import __version__
from roclip_sanitize.cli import attacks, bench, data, evaluate, index, loop, train
from roclip_sanitize.errors import ConfigError, RoclipError

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to load than all of the rest
    help="Find, set aside and train past poisoned image-caption pairs.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 done with too many failed pairs, "
    "4 artefacts that do not belong together, 130 interrupted, 143 terminated.",
)
for module in (attacks, data, index, train, evaluate, loop, bench):
    module.register(app)


def show_version(wanted: bool) -> None:
    """Print the version and end, before anybody asks for a command."""
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with a table of settings per command, e.g. epochs = 5 under [train]."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find, set aside and train past poisoned image-caption pairs."""
    del version  # show_version() has dealt with it
    if config:
        context.default_map = read_config(config, context.command.commands)  # type: ignore[attr-defined]


def read_config(path: Path, commands: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A settings file as defaults for the commands' options.

    Raises:
        ConfigError: the file is missing or no TOML, or names a command or setting that is not known.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"settings file {path} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path} is no TOML: {error}") from error
    defaults = {}
    for name, table in tables.items():
        if name not in commands or not isinstance(table, dict):
            raise ConfigError(f"{path}: [{name}] is no command, known are {', '.join(sorted(commands))}")
        known = {parameter.name: getattr(parameter, "multiple", False) for parameter in commands[name].params}
        given = {setting.replace("-", "_"): value for setting, value in table.items()}
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(
                f"{path}: [{name}] has no setting {unknown[0]!r}, known are {', '.join(sorted(known))}"
            )
        defaults[name] = {  # one value of many may stand alone
            setting: [value] if known[setting] and isinstance(value, str) else value
            for setting, value in given.items()
        }
    return defaults


def run(arguments: list[str] | None = None) -> None:
    """Console entry point: a RoclipError is one line and its exit code, never a traceback."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="roclip", standalone_mode=False)
    except RoclipError as error:
        print(f"roclip: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        _show_usage_error(error)
    if code == INTERRUPTED:  # as typer says, too, when it catches the KeyboardInterrupt first
        print("roclip: interrupted; the same command again goes on from here", file=sys.stderr)
    raise SystemExit(code or 0)


def _show_usage_error(error: Any) -> NoReturn:
    """What the parser objects to, in one line; all of the help where nothing was asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        raise SystemExit(error.exit_code)
    context = getattr(error, "ctx", None)
    where = f"; see '{context.command_path} --help'" if context is not None else ""
    message = " ".join(error.format_message().split()).rstrip(".")
    print(f"roclip: {message}{where}", file=sys.stderr)
    raise SystemExit(error.exit_code)
