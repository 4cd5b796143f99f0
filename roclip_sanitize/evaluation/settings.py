"""What an evaluation is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import ConfigError

NEAR = 0.999  # of plain features: from there on most pairs of product photos show one product
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to measure on what.

    Attributes:
        arms: name → a finished training: its folder, the model/ in it, or the weights there.
        test_shards: pairs that no arm has seen; or () for a public data set.
        label: field that holds a pair's class, in test shards and probe shards.
        dataset: NAME:FOLDER of a public data set, instead of test shards; see public_sets.py.
        ledger: the poison folder, or None where no attack was planted.
        classes: names to choose from; () takes the ledger's, else the commonest test labels.
        class_count: how many of the commonest, where they are taken from the test shards.
        templates: captions with {} for the class name; () takes the data set's own.
        curves: whether to measure snapshots too.
        curve_pictures: how many test pictures a snapshot sees.
        probe_shards: labelled training pairs for a linear probe; () for none.
        probe_pictures: how many of them at most, first ones first.
        store: embedding store of the training shards, to count test pictures that are in them too.
        near: cosine from which on two pictures are near-duplicates, by the store's own encoder; see split.py.
        seed: of triggers' places and of resampling.
    """

    arms: dict[str, Path]
    test_shards: tuple[Path, ...] = ()
    label: str = ""
    dataset: str = ""
    ledger: Path | None = None
    classes: tuple[str, ...] = ()
    class_count: int = 30
    templates: tuple[str, ...] = ()
    curves: bool = True
    curve_pictures: int = 1_000
    probe_shards: tuple[Path, ...] = ()
    probe_pictures: int = 10_000
    store: Path | None = None
    near: float = NEAR
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("nothing to evaluate: name at least one trained folder")
        for arm in self.arms:
            if not ARM_NAME.fullmatch(arm):
                raise ConfigError(f"arm {arm!r} is no name: wanted letters, digits, _ . + -")
        if bool(self.test_shards) == bool(self.dataset):
            found = "both" if self.dataset else "neither"
            raise ConfigError(f"wanted either test shards or a public data set to measure on, found {found}")
        if not self.label and (self.test_shards or self.probe_shards):
            raise ConfigError("label is empty: wanted the JSON field that holds a pair's class")
        if self.class_count < 2 or self.curve_pictures < 1 or self.probe_pictures < 2:
            raise ConfigError("class-count and probe-pictures must be 2 or more, curve-pictures 1 or more")
        if not 0 < self.near <= 1:
            raise ConfigError(f"near is {self.near}, wanted a cosine above 0 and at most 1")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self) | {
            "arms": {arm: str(path) for arm, path in self.arms.items()},
            "test_shards": [str(path) for path in self.test_shards],
            "probe_shards": [str(path) for path in self.probe_shards],
            "ledger": str(self.ledger) if self.ledger else "",
            "store": str(self.store) if self.store else "",
        }


def arms_named(told: Sequence[str]) -> dict[str, Path]:
    """Name → training, of NAME=FOLDER, or of FOLDER alone, which is named as it is called.

    Raises:
        ConfigError: two have one name.
    """
    arms = dict[str, Path]()
    for each in told:
        name, separator, folder = each.partition("=")
        path = Path(folder if separator else each)
        name = name if separator and name else path.name
        if name in arms:
            raise ConfigError(
                f"--arm {arms[name]} and {path} are both named {name!r}: wanted NAME=FOLDER of each"
            )
        arms[name] = path
    return arms
