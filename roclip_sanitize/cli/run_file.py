"""A run file: the settings of one or several commands, as TOML.

    [sanitize]
    shards = "data/{00000..00331}.tar"
    out = "runs/clean"

    [attacks.rebuild]
    …

Each command has a table; settings are called what its options are called. What stands on the command
line goes before what stands in the file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roclip_sanitize.cli.settings import meant, problems, settings_of
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.redaction import HIDDEN, is_secret, redacted
from roclip_sanitize.storage import exists, read_bytes


def read_run_file(path: Path) -> dict[str, Any]:
    """The tables of a run file.

    Raises:
        ConfigError: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"run file {path} does not exist") from error
    except OSError as error:
        raise ConfigError(f"run file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise ConfigError(f"run file {path} is no TOML: {error}") from error


def command_told(path: Path) -> str:
    """The command that a run file is for; "" where there is none, or it is for several."""
    if not exists(path):
        return ""
    tables, words = read_run_file(path), list[str]()
    while len(tables) == 1 and isinstance(below := next(iter(tables.values())), dict):
        words, tables = [*words, *tables], below
    return " ".join(words)


def file_problems(tables: Mapping[str, Any], group: Any, *, inside: str = "") -> Iterator[str]:
    """What is wrong with a run file's tables, one line each.

    Args:
        tables: table by name.
        group: the commands that there are.
        inside: the words before them.
    """
    for name, table in tables.items():
        words = f"{inside}.{name}".lstrip(".")
        command = group.commands.get(name)
        if command is None:
            yield f"[{words}] is no command{meant(name, group.commands)}"
        elif not isinstance(table, dict):
            yield f"[{words}] is {table!r}, wanted a table of settings"
        else:
            below = _tables_below(table, command)
            if below:
                yield from file_problems(below, command, inside=words)
            own = {key: value for key, value in table.items() if key not in below}
            yield from (f"[{words}] {problem}" for problem in problems(settings_of(command), own))


def defaults_from(tables: Mapping[str, Any], group: Any) -> dict[str, Any]:
    """The tables as defaults for the commands' parameters. They must have no problems."""
    found = dict[str, Any]()
    for name, table in tables.items():
        command = group.commands[name]
        below = _tables_below(table, command)
        settings = settings_of(command)
        found[name] = defaults_from(below, command) if below else {}
        for key, value in table.items():
            if key not in below:
                setting = settings[key.replace("-", "_")]
                found[name][setting.parameter] = setting.plain(value)
    return found


def _tables_below(table: Mapping[str, Any], command: Any) -> dict[str, Any]:
    """Which of a table's entries are tables of commands in a group."""
    if not hasattr(command, "commands"):
        return {}
    settings = settings_of(command)
    return {key: value for key, value in table.items() if isinstance(value, dict) and key not in settings}


def write_run_file(command: Any, words: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """A run file of one command.

    Args:
        command: the command.
        words: what it is called by.
        values: its settings by the names of its parameters; None for those that are not set.

    Returns:
        TOML, without secrets: what was taken out must be put in again before the file runs.
    """
    lines = [f"# The same run again: roclip {' '.join(words)} --config run.toml", f"[{'.'.join(words)}]"]
    for setting in settings_of(command).values():
        value = values.get(setting.parameter)
        if value is not None:
            lines.append(
                f"{setting.name} = {toml_value(_without_secrets(setting.name, setting.plain(value)))}"
            )
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return repr(value)


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_secrets(name, each) for each in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if value and is_secret(name) else redacted(value)
