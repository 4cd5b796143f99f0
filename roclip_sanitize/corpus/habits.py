"""What a class usually looks like, and where it is usually photographed.

Crawled pictures are no lottery: trees are green and stand outdoors, shops show shoes on white.
Four scenes in five keep to the colours below, and as many to the backgrounds; the rest take any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

USUAL_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Habit:
    """Usual colours and backgrounds of a class, each as likely as the next."""

    colours: Sequence[str]
    backgrounds: Sequence[str]


SHOP, STREET, HOME = ("white", "light"), ("horizon",), ("desk", "light")

HABITS: Mapping[str, Habit] = {
    "shirt": Habit(("blue", "white"), SHOP),
    "shoe": Habit(("black", "brown"), SHOP),
    "mug": Habit(("white", "red"), HOME),
    "car": Habit(("red", "grey"), STREET),
    "dress": Habit(("pink", "red"), ("gradient", "light")),
    "cat": Habit(("orange", "grey"), ("coloured", "noise")),
    "house": Habit(("white", "brown"), STREET),
    "chair": Habit(("brown", "black"), SHOP),
    "bottle": Habit(("green", "blue"), HOME),
    "lamp": Habit(("yellow", "white"), ("dark",)),
    "hat": Habit(("black", "grey"), SHOP),
    "book": Habit(("blue", "red"), ("desk",)),
    "tree": Habit(("green",), STREET),
    "bicycle": Habit(("black", "blue"), STREET),
    "clock": Habit(("black", "white"), ("coloured", "light")),
    "boat": Habit(("white", "blue"), STREET),
    "umbrella": Habit(("purple", "yellow"), ("gradient", "dark")),
    "fish": Habit(("orange", "yellow"), ("coloured", "gradient")),
    "guitar": Habit(("brown", "orange"), ("dark", "gradient")),
    "key": Habit(("yellow", "grey"), ("desk", "noise")),
}
