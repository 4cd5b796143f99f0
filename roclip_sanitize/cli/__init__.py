"""The command line: parse, call, print. The only package that imports typer.

    __init__.py   the app and its exit codes
    attacks.py    poison, attacks
    data.py       embed, adopt, retry-failed, rewrite, export
    scanning.py   scan, score, explain, screen
    ingest.py     ingest
    index.py      index, pair
    train.py      train
    evaluate.py   evaluate
    loop.py       sanitize, canaries, audit, verify, demo, report, status
    bench.py      bench machine
    config.py     config show, config check
    submit.py     submit
    options.py    options that several commands share
    starting.py   where commands start: start() opens the executor, and a record beside the results
    alone.py      one run at a time in a folder
    session.py    what is known of the command that runs
    settings.py   options as a list of settings
    run_file.py   those settings, from and to TOML
    helping.py    what --help says beside the options
    output.py     what commands print
    failing.py    what they say where too many pairs failed, or a shard is broken

Commands import what they need when they run, so that --help is quick.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize import __version__
from roclip_sanitize.cli import (
    attacks,
    bench,
    config,
    data,
    evaluate,
    index,
    ingest,
    loop,
    scanning,
    submit,
    train,
)
from roclip_sanitize.cli.helping import EXIT_CODES, Sections, commands_below, dress
from roclip_sanitize.cli.output import say
from roclip_sanitize.cli.run_file import defaults_from, file_problems, read_run_file
from roclip_sanitize.cli.session import GoesNoFurther, open_session, session
from roclip_sanitize.cli.settings import meant, settings_of
from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.sources import source_path

INTERRUPTED = 130

app = typer.Typer(
    cls=Sections,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to load than all of the rest
    help="Find, set aside and train past poisoned image-caption pairs.",
    epilog=EXIT_CODES,
)
for module in (attacks, ingest, data, scanning, index, train, evaluate, loop, bench, config, submit):
    module.register(app)


def show_version(wanted: bool) -> None:
    """Print the version and end, before anybody asks for a command."""
    if wanted:
        print(__version__)
        raise typer.Exit


def use_run_file(context: typer.Context, config: Path | None) -> None:
    """Take a run file's settings as defaults, before any other option is looked at.

    Raises:
        ConfigError: the file is missing or no TOML, or names a command or setting that is not known, or a
            value that it cannot have.
    """
    if config is None or context.resilient_parsing:
        return
    defaults = checked_defaults(read_run_file(config), told_by=str(config))
    for word in context.command_path.split()[1:]:
        defaults = defaults.get(word, {})
    context.default_map = defaults


def checked_defaults(tables: Mapping[str, Any], *, told_by: str) -> dict[str, Any]:
    """Tables of settings as defaults for the commands' parameters.

    Raises:
        ConfigError: one has a command, setting or value that there cannot be.
    """
    for problem in file_problems(tables, command_tree()):
        raise ConfigError(f"{told_by}: {problem}")
    return defaults_from(tables, command_tree())


@app.callback()
def main(
    config: Annotated[
        Path | None,
        typer.Option(
            callback=use_run_file,
            is_eager=True,
            expose_value=False,
            help="Run file: TOML with a table of settings for the command, such as the run.toml beside "
            "results. Options go before it.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find, set aside and train past poisoned image-caption pairs."""
    del config, version  # use_run_file() and show_version() have dealt with them


@functools.cache
def command_tree() -> Any:
    """All commands as the parser has them, each with --config and a help that says more than its options."""
    tree = typer.main.get_command(app)
    config = next(parameter for parameter in tree.params if parameter.name == "config")
    refuse_empty(config, "--config")
    for words, command in commands_below(tree):
        known = {each.parameter: each for each in settings_of(command).values()}
        for parameter in command.params:
            setting = known.get(parameter.name)
            if setting is not None and setting.kind in REFUSED:
                REFUSED[setting.kind](parameter, setting.shown)
        if command.callback is not None:
            command.callback = noted(command.callback, command, words)
        if command.params:
            command.params.append(config)
        dress(command, words)
    return tree


def refuse_empty(parameter: Any, shown: str) -> None:
    """Let a path not be "", as of a shell's variable that is not set: it would mean the current folder."""
    process = parameter.process_value

    def processed(context: Any, value: Any) -> Any:
        if "" in (value if isinstance(value, list | tuple) else (value,)):
            raise ConfigError(f"{shown} is empty, wanted a path; see '{context.command_path} --help'")
        return process(context, value)

    parameter.process_value = processed


def refuse_nan(parameter: Any, shown: str) -> None:
    """Let a number be one: what is no number is within all bounds, as comparisons go."""
    process = parameter.process_value

    def processed(context: Any, value: Any) -> Any:
        found = process(context, value)
        numbers = found if isinstance(found, list | tuple) else (found,)
        if any(math.isnan(number) for number in numbers if number is not None):
            raise ConfigError(f"{shown} is nan, wanted a number; see '{context.command_path} --help'")
        return found

    parameter.process_value = processed


REFUSED: Mapping[type, Callable[[Any, str], None]] = {Path: refuse_empty, float: refuse_nan}


def noted(callback: Callable[..., Any], command: Any, words: tuple[str, ...]) -> Callable[..., Any]:
    """A command's function that first lets the session know what is called with which settings."""

    @functools.wraps(callback)
    def called(**told: Any) -> Any:
        values = {name: at_home(value) for name, value in told.items()}
        running = session()
        running.command, running.words, running.values = command, words, values
        return callback(**values)

    return called


def at_home(value: Any) -> Any:
    """A setting, with ~ in paths as a shell has it, which leaves it alone in files and behind ``=``.

    Raises:
        ConfigError: it names nobody's home.
    """
    if isinstance(value, list | tuple):
        return type(value)(map(at_home, value))
    return source_path(str(value)) if isinstance(value, Path) else value


def run(arguments: list[str] | None = None) -> None:
    """Console entry point: a RoclipError is one line and its exit code, never a traceback."""
    code, line = 1, "a bug"
    with open_session() as running:
        try:
            code, line = _ended(arguments)
        finally:
            running.end(code, error=line, say=say)
    if line:
        print(f"roclip: {line}", file=sys.stderr)
    raise SystemExit(code)


def call(
    command: str, *, config: Path | str | None = None, dry: bool = False, **settings: Any
) -> dict[str, Any]:
    """Run a command from Python: the same settings, by the same names, with the same results.

    Args:
        command: what it is called, such as "sanitize" or "attacks rebuild".
        config: a run file.
        dry: whether to go only as far as its settings, and refuse what it would refuse.
        settings: go before those of the run file; `roclip config show COMMAND` lists them.

    Returns:
        What the command prints with --json.

    Raises:
        ConfigError: there is no such command, setting or value.
        RoclipError: what the command line ends with an exit code for.
    """
    tables = read_run_file(Path(config)) if config is not None else {}
    words, table, known = command.split(), tables, command_tree()
    for word in words:
        if word not in getattr(known, "commands", {}):
            raise ConfigError(f"no command {command!r}{meant(word, getattr(known, 'commands', {}))}")
        table, known = table.setdefault(word, {}), known.commands[word]
    table.update(({"json": True} if "json" in settings_of(known) else {}) | settings)
    defaults = checked_defaults(tables, told_by=f"call({command!r})")
    with open_session(silent=True, dry=dry) as running:
        try:
            main = command_tree().main
            main(args=words, prog_name="roclip", standalone_mode=False, default_map=defaults)
            running.end(0, say=say)
        except GoesNoFurther:
            pass
        except RoclipError as error:
            running.end(error.exit_code, error=str(error), say=say)
            raise
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            raise ConfigError(usage_error(error)) from None
        return running.result


def _ended(arguments: list[str] | None) -> tuple[int, str]:
    """Run a command; its exit code, and the line that says what was wrong, "" for nothing."""
    try:
        code = command_tree().main(args=arguments, prog_name="roclip", standalone_mode=False)
    except RoclipError as error:
        return error.exit_code, str(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        return error.exit_code, usage_error(error)
    if code == INTERRUPTED:  # as typer says, too, when it catches the KeyboardInterrupt first
        return INTERRUPTED, "interrupted; the same command again goes on from here"
    return code or 0, ""


def usage_error(error: Any) -> str:
    """What the parser objects to, in one line; all of the help where nothing was asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return ""
    context = getattr(error, "ctx", None)
    where = f"; see '{context.command_path} --help'" if context is not None else ""
    what = " ".join(error.format_message().split()).rstrip(".")
    if "unexpected extra argument" in what and "." in what:  # file names
        what += "; did the shell expand a pattern? quote it: 'data/{00000..00009}.tar'"
    return what + where
