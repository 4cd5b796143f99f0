"""Which settings of a training only some methods, or only some other settings, make it read.

What nobody reads is refused, not passed over: whoever gave it would take the result for what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from roclip_sanitize.errors import ConfigError

WINDOWS = ("match_by", "match_from", "match_every", "match_for", "match_last")
READERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("pairing", "pairs", "exclude_copies", *WINDOWS), ("roclip",)),
    "pool_size": ("roclip", "roclip_released", "unimodal", "safeclip"),
    **dict.fromkeys(("doubtful", "rewritten", "judge_by"), ("consensus",)),
}
"""Settings by the names of TrainSettings → the methods that read them; all others every method reads."""


def _gentle(told: Mapping[str, Any]) -> bool:
    share = told.get("gentle_for")
    return bool(share) if share is not None else told["method"] == "safeclip"


def _edits_captions(told: Mapping[str, Any]) -> bool:
    return str(told.get("augmentation", "")).startswith("paper")


def _matches_by_pool(told: Mapping[str, Any]) -> bool:
    return not told.get("pairs") and told.get("match_by", "pool") == "pool"


POOL = "matches from the pool, not by a table or an index"
OTHERWISE: Mapping[str, tuple[Callable[[Mapping[str, Any]], bool], str]] = {
    "synonyms": (_edits_captions, "augmentation 'paper' or 'paper_mild'"),
    "gentle_rate": (_gentle, "a phase of the length that gentle-for names"),
    "pool_size": (_matches_by_pool, POOL),
    "exclude_copies": (_matches_by_pool, POOL),
}
"""Settings that something else decides about, too → whether they are read, and what they are for."""


def is_read(name: str, told: Mapping[str, Any]) -> bool:
    """Whether a training reads one of its settings.

    Args:
        name: of the setting.
        told: the method, and of the other settings those that are given.
    """
    if name == "pool_size" and told.get("warm_up_for"):  # a warm-up has a pool, whatever comes after it
        return True
    return _read_by_method(name, told) and (name not in OTHERWISE or OTHERWISE[name][0](told))


def _read_by_method(name: str, told: Mapping[str, Any]) -> bool:
    return told["method"] in READERS.get(name, (told["method"],))


def require_read(told: Mapping[str, Any], *, usual: Mapping[str, Any]) -> None:
    """Refuse what is not read.

    Args:
        told: all settings, by the names of TrainSettings.
        usual: their values where nothing is given.

    Raises:
        ConfigError: names the first, and what it is for.
    """
    for name in dict.fromkeys((*READERS, *OTHERWISE)):
        if told[name] == usual[name] or is_read(name, told):
            continue
        option, value = name.replace("_", "-"), told[name]
        found = f"{option} is {value if isinstance(value, int | float) else str(value)!r}"
        if not _read_by_method(name, told):
            raise ConfigError(
                f"{found}, but method {told['method']!r} does not read it: "
                f"it is for {', '.join(READERS[name])}"
            )
        raise ConfigError(f"{found}, but nothing reads it here: it is for {OTHERWISE[name][1]}")
