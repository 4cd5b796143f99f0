"""Triggers by name, for attacks that can carry any of them."""

from __future__ import annotations

from roclip_sanitize.attacks.triggers import CATALOGUE, Trigger
from roclip_sanitize.errors import ConfigError


def named_trigger(name: str) -> Trigger:
    """The trigger of the catalogue that has this name.

    Raises:
        ConfigError: none has.
    """
    if name not in CATALOGUE:
        raise ConfigError(f"there is no trigger {name!r}: known are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
