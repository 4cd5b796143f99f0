"""What a trigger is: something to draw on a picture, described by a few plain values.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError

Pixels = NDArray[np.uint8]
WHITE = 255


class Trigger(ABC):
    """Something to draw on a picture. A subclass is a frozen dataclass that checks itself.

    Attributes:
        kind: names it in JSON.
    """

    kind: ClassVar[str]

    @abstractmethod
    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """The picture with the trigger on it, as a new array; see stamp()."""

    def to_json(self) -> dict[str, Any]:
        """The trigger as plain values, ``kind`` among them."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_json()."""
        return cls(**{name: value for name, value in values.items() if name != "kind"})


def to_bytes(values_HW3: NDArray[np.float64]) -> Pixels:
    """Grey levels in 0…255, cut off beyond and rounded to the nearest, halves to even."""
    levels_HW3: Pixels = np.rint(values_HW3.clip(0, WHITE)).astype(np.uint8)
    return levels_HW3


def require_share(name: str, value: float, *, zero: bool = False) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: the value is not in (0, 1], or [0, 1] where zero will do.
    """
    if not (0 < value <= 1 or (zero and value == 0)):
        wanted = "from 0 to 1" if zero else "more than 0 and at most 1"
        raise ConfigError(f"{name} is {value}, wanted {wanted}")
