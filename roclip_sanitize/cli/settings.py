"""A command's options as a list of settings: what run files may say, and what each means.

There is no other list. A setting is called what its option is called, with _ for -.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

TOML_NAMES = {str: "text", Path: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One option or argument of a command.

    Attributes:
        name: what run files and Python call it.
        parameter: what the command's function calls it.
        kind: str, Path, int, float or bool.
        many: whether it is a list of such.
        positional: whether it is an argument, without an option's name.
        required: whether it has no default.
        default: its default; None where it then is not set.
        low: the least it may be, None for no bound.
        high: the most.
        meaning: its help.
        off: what the command line calls it where it is false.
    """

    name: str
    parameter: str
    kind: type
    many: bool
    positional: bool
    required: bool
    default: Any
    low: float | None
    high: float | None
    meaning: str
    off: str

    def wanted(self) -> str:
        """What its value must be, in words."""
        word = TOML_NAMES[self.kind]
        if self.low is not None and self.high is not None:
            word += f" from {self.low} to {self.high}"
        elif self.low is not None:
            word += f" of {self.low} or more"
        elif self.high is not None:
            word += f" of {self.high} at most"
        return f"a list, each {word}" if self.many else word

    def accepts(self, value: Any) -> bool:
        """Whether it may have this value; of a list it takes each, or one alone."""
        if self.many and isinstance(value, list | tuple):
            return all(self._accepts_one(each) for each in value)
        return self._accepts_one(value)

    def _accepts_one(self, value: Any) -> bool:
        kinds = {str: (str, Path), Path: (str, Path), int: (int,), float: (int, float), bool: (bool,)}[
            self.kind
        ]
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.kind is not bool):
            return False
        if isinstance(value, str | Path | bool):
            return True
        if math.isnan(value):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    @property
    def shown(self) -> str:
        """What the command line calls it."""
        name = self.name.replace("_", "-")
        return name if self.positional else f"--{name}"

    def plain(self, value: Any) -> Any:
        """The value in the types of TOML."""
        if self.many:
            return [self._plain_one(each) for each in ([value] if isinstance(value, str | Path) else value)]
        return self._plain_one(value)

    def _plain_one(self, value: Any) -> Any:
        return str(value) if self.kind in {str, Path} else self.kind(value)


def settings_of(command: Any) -> dict[str, Setting]:
    """All settings of a command, in the order of its help; none of a group that does nothing itself."""
    if command.callback is None:
        return {}
    function = inspect.unwrap(command.callback)
    kinds = get_type_hints(function, include_extras=True)
    found = (
        _setting(name, kinds[name], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if kinds[name] is not typer.Context
    )
    return {setting.name: setting for setting in found if setting is not None}


def problems(settings: Mapping[str, Setting], given: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with values for a command's settings, one line each; what is missing is not."""
    for name, value in given.items():
        setting = settings.get(name.replace("-", "_"))
        if setting is None:
            yield f"has no setting {name!r}{meant(name, settings)}"
        elif not setting.accepts(value):
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            yield f"{setting.name} is {shown}, wanted {setting.wanted()}"


def meant(name: str, known: Iterable[str]) -> str:
    """Which known name a wrong one may stand for, and all that are known."""
    names = sorted(known)
    near = difflib.get_close_matches(name.replace("-", "_"), names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"{guess or ','} known are {', '.join(names)}"


def _setting(parameter: str, hint: Any, default: Any) -> Setting | None:
    if get_origin(hint) is not Annotated:
        return None
    kind, *notes = get_args(hint)
    told = next((note for note in notes if isinstance(note, OptionInfo | ArgumentInfo)), None)
    if told is None or getattr(told, "is_eager", False):
        return None
    kinds = (
        [each for each in get_args(kind) if each is not NoneType] if NoneType in get_args(kind) else [kind]
    )
    many = get_origin(kinds[0]) is list
    names = [name for name in (told.default, *(told.param_decls or ())) if isinstance(name, str)]
    option = next((name for name in names if name.startswith("--")), parameter)
    on, _, off = option.partition("/")
    return Setting(
        name=on.lstrip("-").replace("-", "_"),
        parameter=parameter,
        kind=get_args(kinds[0])[0] if many else kinds[0],
        many=many,
        positional=isinstance(told, ArgumentInfo),
        required=default is inspect.Parameter.empty,
        default=None if default is inspect.Parameter.empty else default,
        low=told.min,
        high=told.max,
        meaning=" ".join((told.help or "").split()),
        off=off or f"--no-{on.lstrip('-').replace('_', '-')}",
    )
