"""Commands about run files: one with every setting and what it means, and whether one makes sense."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.helping import METAVARS, commands_below
from roclip_sanitize.cli.run_file import file_problems, read_run_file, toml_value
from roclip_sanitize.cli.settings import Setting, meant, settings_of
from roclip_sanitize.errors import ConfigError, ConfigProblems, DataError, RoclipError

config_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write and check run files.")
COLUMNS = 100


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(config_app, name="config")


@config_app.callback()
def group() -> None:
    """Write and check run files: the settings of commands, as TOML."""


@config_app.command("show")
def show_config(
    stage: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND", help="A command, such as 'sanitize', 'train' or 'attacks rebuild'."
        ),
    ],
) -> None:
    """Write a run file with every setting of a command: what it means, its range, its default."""
    from roclip_sanitize.cli import command_tree

    words = tuple(" ".join(stage).split())
    known = {found: command for found, command in commands_below(command_tree()) if settings_of(command)}
    if words not in known:
        names = [" ".join(found) for found in known]
        raise ConfigError(f"no command {' '.join(words)!r} has settings{meant(' '.join(words), names)}")
    print("\n".join(template(known[words], words)))


def template(command: Any, words: tuple[str, ...]) -> Iterator[str]:
    """A run file in which all settings are at their defaults, and those that have none commented out."""
    yield f"# roclip {' '.join(words)} --config run.toml: {command.get_short_help_str(200)}"
    yield f"[{'.'.join(words)}]"
    for setting in settings_of(command).values():
        yield ""
        yield from textwrap.wrap(
            f"{setting.meaning} {_range(setting)}", COLUMNS, initial_indent="# ", subsequent_indent="# "
        )
        if setting.default is None:
            yield f"# {setting.name} ="
        else:
            yield f"{setting.name} = {toml_value(setting.plain(setting.default))}"


def _range(setting: Setting) -> str:
    default = (
        "must be given" if setting.required else "not set" if setting.default is None else "default below"
    )
    return f"[{setting.wanted()}; {default}]"


@config_app.command("check")
def check(
    run_file: Annotated[Path, typer.Argument(metavar="FILE", help="The run file.")],
) -> None:
    """Tell everything that is wrong with a run file, without running it. Ends with 2 if something is."""
    from roclip_sanitize.cli import command_tree

    tables = read_run_file(run_file)
    if not tables:
        raise ConfigError(f"{run_file} has no table of settings, such as [sanitize]")
    found = list(file_problems(tables, command_tree()))
    for words, command, table in tables_below(tables, command_tree()):
        wrong = any(problem.startswith(f"[{'.'.join(words)}] ") for problem in found)
        named = {name.replace("-", "_") for name in table}
        missing = [
            name for name, setting in settings_of(command).items() if setting.required and name not in named
        ]
        found += [f"[{'.'.join(words)}] {name} must be given" for name in missing]
        if not wrong:
            found += [f"[{'.'.join(words)}] {refused}" for refused in trial(words, table, missing)]
    if found:
        raise ConfigProblems(
            f"{run_file}: {len(found)} to put right\n" + "\n".join(f"  {line}" for line in found)
        )
    print(f"{run_file}: nothing to put right")


def trial(words: tuple[str, ...], table: Mapping[str, Any], missing: Sequence[str] = ()) -> Iterator[str]:
    """What a command itself would refuse, found by starting it as far as its settings.

    Args:
        words: what it is called by.
        table: its settings.
        missing: those that must be given and are not. Something stands in for them, and for shards that are
            not there yet, so that the others are looked at all the same.
    """
    from roclip_sanitize.cli import call, command_tree

    command = command_tree()
    for word in words:
        command = command.commands[word]
    if "executor" not in settings_of(command):  # it would not stop at start()
        return
    with tempfile.TemporaryDirectory() as folder:
        (stand_in := Path(folder) / "0.tar").touch()
        given = {name.replace("-", "_"): value for name, value in table.items()}
        given |= dict.fromkeys(missing, str(stand_in))
        for _ in ("as it is", "with shards that are there"):
            try:
                call(" ".join(words), dry=True, **given)
                return
            except RoclipError as error:
                if folder not in str(error):
                    yield str(error)
                named = {name for name in given if METAVARS.get(name) == "SHARDS"}
                if not named or not isinstance(error, DataError):
                    return
            given |= dict.fromkeys(named, str(stand_in))


def tables_below(
    tables: Mapping[str, Any], group: Any, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """Every table of a run file that is a known command's, with the command and the words for it."""
    for name, table in tables.items():
        command = group.commands.get(name)
        if command is None or not isinstance(table, dict):
            continue
        own = {key: value for key, value in table.items() if not isinstance(value, dict)}
        if settings_of(command) and (own or not hasattr(command, "commands")):
            yield (*words, name), command, own
        if hasattr(command, "commands"):
            yield from tables_below(table, command, (*words, name))
