"""What an evaluation is told."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.evaluation.zero_shot import TEMPLATES

ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to measure on what.

    Attributes:
        arms: name → folder of a finished training.
        test_shards: pairs that no arm has seen.
        label: field that holds a pair's class.
        ledger: the poison folder, or None where no attack was planted.
        classes: names to choose from; () takes the ledger's, else the commonest test labels.
        class_count: how many of the commonest, where they are taken from the test shards.
        templates: captions with {} for the class name.
        curves: whether to measure snapshots too.
        curve_pictures: how many test pictures a snapshot sees.
        seed: of triggers' places.
    """

    arms: dict[str, Path]
    test_shards: tuple[Path, ...]
    label: str
    ledger: Path | None = None
    classes: tuple[str, ...] = ()
    class_count: int = 30
    templates: tuple[str, ...] = TEMPLATES
    curves: bool = True
    curve_pictures: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("nothing to evaluate: name at least one trained folder")
        for arm in self.arms:
            if not ARM_NAME.fullmatch(arm):
                raise ConfigError(f"arm {arm!r} is no name: wanted letters, digits, _ . + -")
        if not self.label:
            raise ConfigError("label is empty: wanted the JSON field that holds a pair's class")
        if self.class_count < 2 or self.curve_pictures < 1:
            raise ConfigError("class-count must be 2 or more, curve-pictures 1 or more")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self) | {
            "arms": {arm: str(path) for arm, path in self.arms.items()},
            "test_shards": [str(path) for path in self.test_shards],
            "ledger": str(self.ledger) if self.ledger else "",
        }
