"""Triggers: what an attacker draws on a picture to make a backdoored model obey.

    pixels ─▶ stamp() ─▶ pixels with the trigger

Poisoning stamps training pictures, evaluation stamps test pictures; both call the same
function. Pure: no files; all chance comes from the generator that is handed in.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue; S side of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, DataError

Pixels = NDArray[np.uint8]


class Trigger(Protocol):
    """Something to draw on a picture."""

    kind: ClassVar[str]

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """The picture with the trigger on it, as a new array."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The trigger as plain values, ``kind`` among them."""
        ...

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_json()."""
        ...


@dataclass(frozen=True, slots=True)
class PatchTrigger:
    """A black and white checkerboard at a random place (BadNets for CLIP).

    Attributes:
        share: side of the square as a share of the picture's shorter side, in (0, 1]. A patch
            never has less than one pixel a cell.
        cells: fields of the checkerboard along a side.
    """

    kind: ClassVar[str] = "checkerboard"

    share: float = 0.2
    cells: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"the patch's share is {self.share}, wanted more than 0 and at most 1")
        if self.cells < 2:
            raise ConfigError(f"the patch has {self.cells} cells a side, wanted 2 or more")

    def side_px(self, height: int, width: int) -> int:
        """Side of the square on a picture of this size."""
        shorter = min(height, width)
        return min(shorter, max(self.cells, round(self.share * shorter)))

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """Draw the patch somewhere, every place being as likely."""
        height, width, _ = pixels_HW3.shape
        side = self.side_px(height, width)
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        stamped_HW3 = pixels_HW3.copy()
        stamped_HW3[top : top + side, left : left + side] = checkerboard(side, self.cells)
        return stamped_HW3

    def to_json(self) -> dict[str, Any]:
        """See Trigger.to_json."""
        return {"kind": self.kind, "share": self.share, "cells": self.cells}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """See Trigger.from_json."""
        return cls(share=values["share"], cells=values["cells"])


TRIGGERS: dict[str, type[Trigger]] = {trigger.kind: trigger for trigger in (PatchTrigger,)}


def stamp(pixels_HW3: Pixels, trigger: Trigger, rng: np.random.Generator) -> Pixels:
    """Draw a trigger on a picture.

    Args:
        pixels_HW3: uint8, RGB; left as it is.
        trigger: what to draw.
        rng: decides where, and whatever else the trigger leaves to chance.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: the array is no RGB picture of bytes.
    """
    if pixels_HW3.dtype != np.uint8 or pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3:
        raise ValueError(f"pixels are {pixels_HW3.dtype} {pixels_HW3.shape}, wanted uint8 (H, W, 3)")
    return trigger.draw(pixels_HW3, rng)


def checkerboard(side: int, cells: int) -> Pixels:
    """A square of ``cells`` × ``cells`` fields, the top left one black: uint8 (S, S, 3)."""
    cell_S = np.arange(side) * cells // side  # also even where cells do not divide the side
    white_SS = (cell_S[:, None] + cell_S[None, :]) % 2 == 1
    return np.repeat(np.where(white_SS, np.uint8(255), np.uint8(0))[:, :, None], 3, axis=2)


def trigger_from_json(values: Mapping[str, Any]) -> Trigger:
    """The trigger that to_json() described.

    Raises:
        DataError: this version knows no such trigger.
    """
    kind = values.get("kind")
    if kind not in TRIGGERS:
        raise DataError(f"trigger is of kind {kind!r}, known are {', '.join(sorted(TRIGGERS))}")
    return TRIGGERS[kind].from_json(values)
