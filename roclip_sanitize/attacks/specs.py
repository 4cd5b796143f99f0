"""Attacks as strings: how a command, a settings file and a sweep name an attack with its parameters.

    patch                                        an attack as it is
    patch:rate=0.003,target=Shirts               with parameters of its own
    patch:rate=30,as=few_patches                 a second instance, by another name

The parameters are the fields of the attack's dataclass, read as the types that they have there;
the members of a list are joined by ``|``. A comma begins another parameter only where
``NAME=`` follows, so that class names may hold commas.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from roclip_sanitize.attacks import ATTACKS
from roclip_sanitize.attacks.contract import Attack
from roclip_sanitize.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
NEXT_PARAMETER = re.compile(r",(?=\s*[a-z_]+\s*=)")
ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n     .*)*)", re.MULTILINE)  # of a docstring
ALIAS = "as"
JOINT = "|"
SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def build_attacks(specs: Sequence[str]) -> dict[str, Attack]:
    """The attacks that some strings describe, by the name that ledger and results give each.

    Raises:
        ConfigError: a string names no known attack, an unknown parameter or an impossible value;
            or two attacks have one name; or there is none.
    """
    if not specs:
        raise ConfigError(f"no attack named: known are {', '.join(ATTACKS)}")
    attacks = dict[str, Attack]()
    for spec in specs:
        name, attack = build_attack(spec)
        if name in attacks:
            raise ConfigError(
                f"attack {name!r} is named twice in {' '.join(specs)}: name one otherwise with 'as=NAME'"
            )
        attacks[name] = attack
    return attacks


def build_attack(spec: str) -> tuple[str, Attack]:
    """The attack that one string describes, and the name that ledger and results give it.

    Raises:
        ConfigError: as build_attacks() says.
    """
    kind, told = _split(spec)
    attack = _known(kind)
    name = told.pop(ALIAS, kind)
    if not NAME.fullmatch(name):
        raise ConfigError(f"attack {spec!r}: {name!r} is no name, wanted letters, digits, _ . + -")
    known = parameter_types(attack)
    if unknown := [parameter for parameter in told if parameter not in known]:
        raise ConfigError(
            f"attack {kind!r} has no parameter {unknown[0]!r}: known are {', '.join([*known, ALIAS])}"
        )
    values = {parameter: _read(text, known[parameter]) for parameter, text in told.items()}
    if bad := [parameter for parameter, value in values.items() if value is None]:
        raise ConfigError(
            f"parameter {bad[0]!r} of attack {kind!r} is {told[bad[0]]!r}, wanted {_wanted(known[bad[0]])}"
        )
    return name, attack(**values)


def parameter_types(attack: type[Attack]) -> dict[str, Any]:
    """An attack's parameters and their types, in the order of its fields."""
    hints = get_type_hints(attack)
    return {field.name: hints[field.name] for field in dataclasses.fields(attack)}  # type: ignore[arg-type]


def parameter_defaults(attack: type[Attack]) -> dict[str, str]:
    """An attack's parameters and their defaults, written as a spec would have them."""
    fields = dataclasses.fields(attack)  # type: ignore[arg-type]
    return {field.name: write_value(field.default) for field in fields}


def describe(name: str) -> dict[str, Any]:
    """What there is to tell of an attack: facts, parameters with their defaults, and what these mean.

    Raises:
        ConfigError: there is no such attack.
    """
    attack = _known(name)
    does, _, attributes = inspect.cleandoc(attack.__doc__ or "").partition("\n\nAttributes:\n")
    return {
        **dataclasses.asdict(attack.facts),
        "parameters": parameter_defaults(attack),
        "does": does,
        "meanings": {key: " ".join(text.split()) for key, text in ATTRIBUTE.findall(attributes)},
    }


def write_value(value: Any) -> str:
    """A parameter's value as a spec has it: the inverse of reading it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return JOINT.join(map(str, value))
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def write_spec(kind: str, parameters: Mapping[str, Any]) -> str:
    """The string for an attack and some parameters; ``as`` may be one of them."""
    told = ",".join(f"{name}={write_value(value)}" for name, value in parameters.items())
    return f"{kind}:{told}" if told else kind


def _known(name: str) -> type[Attack]:
    if name not in ATTACKS:
        raise ConfigError(f"there is no attack {name!r}: known are {', '.join(ATTACKS)}")
    return ATTACKS[name]


def _split(spec: str) -> tuple[str, dict[str, str]]:
    kind, _, rest = spec.partition(":")
    told = dict[str, str]()
    for part in NEXT_PARAMETER.split(rest) if rest.strip() else ():
        parameter, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not parameter:
            raise ConfigError(f"attack {spec!r}: {part.strip()!r} is no PARAM=VALUE")
        if parameter in told:
            raise ConfigError(f"attack {spec!r}: parameter {parameter!r} is given twice")
        told[parameter] = value
    return kind.strip(), told


def _read(text: str, kind: Any) -> Any:
    """A value of this type, or None if the text is none."""
    if get_origin(kind) is Literal:
        return text if text in get_args(kind) else None
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(JOINT) if part.strip())
    if kind is bool:
        return SWITCH.get(text.lower())
    if kind in (int, float):
        return _number(text, kind)
    return text


def _number(text: str, kind: type[int] | type[float]) -> int | float | None:
    try:
        value = kind(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _wanted(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "yes or no",
    }
    return words.get(kind, "text")
