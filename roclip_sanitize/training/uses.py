"""Which settings of a training only some methods read.

What nobody reads is refused, not passed over: whoever gave it would take the result for what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roclip_sanitize.errors import ConfigError

WINDOWS = ("match_by", "match_from", "match_every", "match_for", "match_last")
READERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("pairing", "pairs", "exclude_copies", *WINDOWS), ("roclip",)),
    "pool_size": ("roclip", "roclip_released", "unimodal", "safeclip"),
    **dict.fromkeys(("doubtful", "rewritten", "judge_by"), ("consensus",)),
}
"""Settings by the names of TrainSettings → the methods that read them; all others every method reads."""


def is_read(name: str, told: Mapping[str, Any]) -> bool:
    """Whether a training reads one of its settings.

    Args:
        name: of the setting.
        told: the method, and of the other settings those that are given.
    """
    if name == "pool_size" and told.get("warm_up_for"):  # a warm-up has a pool, whatever comes after it
        return True
    return told["method"] in READERS.get(name, (told["method"],))


def require_read(told: Mapping[str, Any], *, usual: Mapping[str, Any]) -> None:
    """Refuse what the method does not read.

    Args:
        told: all settings, by the names of TrainSettings.
        usual: their values where nothing is given.

    Raises:
        ConfigError: names the first, and the methods that it is for.
    """
    for name, methods in READERS.items():
        if told[name] != usual[name] and not is_read(name, told):
            option, value = name.replace("_", "-"), told[name]
            raise ConfigError(
                f"{option} is {value if isinstance(value, int | float) else str(value)!r}, but method "
                f"{told['method']!r} does not read it: it is for {', '.join(methods)}"
            )
