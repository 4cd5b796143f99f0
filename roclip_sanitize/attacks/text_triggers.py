"""Text triggers: words that an attacker puts into a caption to make a backdoored model obey.

    caption ─▶ TextTrigger.put() ─▶ caption with the trigger

Poisoning puts them into training captions, evaluation into those of test pictures; both call
the same method. Pure: all chance comes from the generator that is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from roclip_sanitize.errors import ConfigError

TextPlace = Literal["start", "end", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTrigger:
    """Words to put into a caption.

    Attributes:
        text: the words.
        place: before the caption's first word, after its last, or between any two, those two
            places included.
    """

    text: str
    place: TextPlace = "random"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ConfigError("the text trigger is empty, wanted a word or more")

    def put(self, caption: str, rng: np.random.Generator) -> str:
        """The caption with the trigger in it; runs of white space become one space.

        Args:
            caption: the text.
            rng: decides where; drawn from only if the place is random.
        """
        words = caption.split()
        place = {"start": 0, "end": len(words)}.get(self.place)
        if place is None:
            place = int(rng.integers(len(words) + 1))
        return " ".join([*words[:place], self.text.strip(), *words[place:]])

    def to_json(self) -> dict[str, Any]:
        """The trigger as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_json()."""
        return cls(**values)
