"""Triggers: what an attacker draws on a picture to make a backdoored model obey.

    pixels ─▶ stamp() ─▶ pixels with the trigger

    base.py      what a trigger is
    patches.py   a small square: checkerboard, noise, stripes, yellow; one of given pixels
    blends.py    a whole picture or noise, mixed in; a sinusoid
    warps.py     a warp
    filters.py   a colour filter
    copies.py    no trigger of its own: near copies, fading, several triggers one after the other

Poisoning stamps training pictures, evaluation stamps test pictures; both call the same
function. Pure: no files; all chance comes from the generator that is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from roclip_sanitize.attacks.triggers.base import Pixels, Trigger
from roclip_sanitize.attacks.triggers.blends import BlendTrigger, SinusoidTrigger
from roclip_sanitize.attacks.triggers.copies import Fade, Layers, NearCopy
from roclip_sanitize.attacks.triggers.filters import FilterTrigger
from roclip_sanitize.attacks.triggers.patches import PatchTrigger, PixelPatch
from roclip_sanitize.attacks.triggers.warps import WarpTrigger
from roclip_sanitize.errors import DataError

__all__ = ["CATALOGUE", "TRIGGERS", "Pixels", "Trigger", "stamp", "trigger_from_json"]

TRIGGERS: dict[str, type[Trigger]] = {
    trigger.kind: trigger
    for trigger in (
        *(PatchTrigger, PixelPatch, BlendTrigger, SinusoidTrigger, WarpTrigger, FilterTrigger),
        *(NearCopy, Fade, Layers),
    )
}
"""Every trigger by the kind that its JSON names."""

CATALOGUE: dict[str, Trigger] = {
    "checkerboard": PatchTrigger(),
    "noise": PatchTrigger(pattern="noise"),
    "stripes": PatchTrigger(pattern="stripes"),
    "yellow": PatchTrigger(pattern="yellow"),
    "corners": PatchTrigger(share=0.1, place="corners"),
    "blended": BlendTrigger(),
    "blended_noise": BlendTrigger(picture="noise"),
    "sig_badclip": SinusoidTrigger(),
    "sig_cleanclip": SinusoidTrigger(mixed=0.2),
    "sig_backdoorbench": SinusoidTrigger(delta=40),
    "wanet_smooth": WarpTrigger(),
    "wanet_clip": WarpTrigger(cells=0, strength=1),
    "nashville": FilterTrigger(),
}
"""Triggers as the literature has them, by the names that attacks with a choice of triggers take."""


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


def trigger_from_json(values: Mapping[str, Any]) -> Trigger:
    """The trigger that to_json() described.

    Raises:
        DataError: this version knows no such trigger.
    """
    kind = values.get("kind")
    if kind not in TRIGGERS:
        raise DataError(f"trigger is of kind {kind!r}, known are {', '.join(sorted(TRIGGERS))}")
    if kind == Layers.kind:
        return Layers(parts=tuple(map(trigger_from_json, values["parts"])))
    return TRIGGERS[kind].from_json(values)
