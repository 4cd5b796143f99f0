"""Which objects there are, and how often each one comes.

Frequencies fall off like the web's: the first class is ten times as common as the last, and the
last still has 1.8 % of the pairs, enough to be learnt, tested and attacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from numpy.random import Generator

from roclip_sanitize.corpus import objects_indoors as indoors
from roclip_sanitize.corpus import objects_outdoors as outdoors
from roclip_sanitize.corpus.pen import Pen

DrawObject = Callable[[Pen, Generator], None]

OBJECTS: Mapping[str, DrawObject] = {  # the most frequent first
    "shirt": indoors.shirt,
    "shoe": indoors.shoe,
    "mug": indoors.mug,
    "car": outdoors.car,
    "dress": indoors.dress,
    "cat": outdoors.cat,
    "house": outdoors.house,
    "chair": indoors.chair,
    "bottle": indoors.bottle,
    "lamp": indoors.lamp,
    "hat": indoors.hat,
    "book": indoors.book,
    "tree": outdoors.tree,
    "bicycle": outdoors.bicycle,
    "clock": indoors.clock,
    "boat": outdoors.boat,
    "umbrella": outdoors.umbrella,
    "fish": outdoors.fish,
    "guitar": indoors.guitar,
    "key": indoors.key,
}
HEAD_OFFSET = 2  # Zipf's law with its head cut off: no class has a fifth of the pairs
FREQUENCIES: Mapping[str, float] = {name: 1 / (rank + HEAD_OFFSET) for rank, name in enumerate(OBJECTS)}
