"""What attacks draw from the census: classes, pairs to replace, captions and pictures to use.

Pure: all chance comes from the generator that is handed in, and is drawn in the order of the calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.census import CensusEntry
from roclip_sanitize.attacks.contract import Scene
from roclip_sanitize.captions import names_class, wordings
from roclip_sanitize.errors import ConfigError, DataError

READ_AT_ONCE = 10_000  # captions; as a rule the first few name the class
TARGET_RANKS = slice(5, 25)  # common enough to have captions, not so common that the name is a fair guess


def require_rate(attack: str, rate: float, *, zero: bool = False) -> None:
    """Refuse what is neither a share of the pairs nor a number of them.

    Raises:
        ConfigError: the rate is not above 0, or above 1 and no whole number.
    """
    whole = math.isfinite(rate) and rate == int(rate)
    if (rate == 0 and zero) or 0 < rate < 1 or (rate >= 1 and whole):
        return
    raise ConfigError(f"the {attack} rate is {rate:g}, wanted a share below 1 or a whole number of pairs")


def wanted_pairs(rate: float, scene: Scene) -> int:
    """How many pairs a rate asks for: below 1 a share of all pairs, from 1 on their number."""
    return round(rate * scene.census.size) if rate < 1 else int(rate)


def choose_class(
    wanted: str, scene: Scene, rng: np.random.Generator, *, other_than: Sequence[str] = ()
) -> str:
    """A class for an attacker to aim at: the one asked for, else one of ranks 5 to 25.

    Args:
        wanted: its name; "" draws one.
        scene: where the classes are.
        rng: draws.
        other_than: classes that will not do.

    Raises:
        DataError: the class asked for is not among the scene's classes; or there are too few classes.
    """
    if wanted and wanted not in scene.classes:
        raise DataError(
            f"target class {wanted!r} is not among the {len(scene.classes)} commonest labels: "
            f"{', '.join(scene.classes)}"
        )
    if wanted and wanted in other_than:
        raise DataError(f"class {wanted!r} is to be taken for itself: wanted two different classes")
    ranked = [label for label in scene.classes[TARGET_RANKS] if label not in other_than]
    ranked = ranked or [label for label in scene.classes if label not in other_than]
    if not ranked:
        raise DataError(f"there are only {len(scene.classes)} classes, wanted more: raise --classes")
    return wanted or ranked[int(rng.integers(len(ranked)))]


def choose_named_class(
    wanted: str, scene: Scene, rng: np.random.Generator, *, other_than: Sequence[str] = ()
) -> str:
    """A class whose captions an attacker borrows: choose_class(), but one that is asked for has to be named.

    Where no caption says "watch", captions of watches teach nothing that a model is asked by that name.

    Raises:
        DataError: as choose_class(); or no caption of the class asked for names it.
    """
    chosen = choose_class(wanted, scene, rng, other_than=other_than)
    if wanted and not _is_named(wanted, scene):
        words = " or ".join(map(repr, wordings(wanted)))
        raise DataError(
            f"no caption of the {scene.census.counts[wanted]:,} pairs labelled {wanted!r} names that class: "
            f"wanted {words} in some of them"
        )
    return chosen


def _is_named(label: str, scene: Scene) -> bool:
    rows = np.flatnonzero(scene.census.has_label(label))
    starts = range(0, len(rows), READ_AT_ONCE)
    parts = (scene.census.entries(rows[start : start + READ_AT_ONCE]) for start in starts)
    return any(names_class(entry.caption, label) for part in parts for entry in part)


def draw_victims(
    attack: str, rate: float, scene: Scene, rng: np.random.Generator, *, other_than: Sequence[str]
) -> list[CensusEntry]:
    """Pairs to replace, with a label but none of these.

    Raises:
        DataError: the rate gives no pair, or more than there are.
    """
    free = scene.free_rows(other_than=other_than)
    which = f"a label other than {' or '.join(map(repr, other_than))}"
    return _draw(attack, rate, free, scene, rng, which=which)


def draw_victims_of(
    attack: str, rate: float, scene: Scene, rng: np.random.Generator, *, label: str
) -> list[CensusEntry]:
    """Pairs to replace, all with this label.

    Raises:
        DataError: the rate gives no pair, or more than there are.
    """
    return _draw(attack, rate, scene.free_rows_of(label), scene, rng, which=f"the label {label!r}")


def draw_donors(label: str, count: int, scene: Scene, rng: np.random.Generator) -> list[CensusEntry]:
    """Pairs of a class whose caption or picture is used; some come twice only where there are too few."""
    rows = np.flatnonzero(scene.census.has_label(label))
    return scene.census.entries(rng.choice(rows, count, replace=len(rows) < count))


def _draw(
    attack: str,
    rate: float,
    free: NDArray[np.int64],
    scene: Scene,
    rng: np.random.Generator,
    *,
    which: str,
) -> list[CensusEntry]:
    wanted = wanted_pairs(rate, scene)
    if not 1 <= wanted <= len(free):
        raise DataError(
            f"{attack} rate {rate:g} asks for {wanted} of {scene.census.size:,} pairs, wanted 1 or more "
            f"and at most the {len(free):,} with {which}"
        )
    return scene.census.entries(rng.choice(free, wanted, replace=False))
