"""Attacks on how data sets are collected, as vehicles for others (Carlini et al., arXiv 2302.10149).

    split_view     the index is honest, but what a URL delivers has changed: whoever buys an expired
                   domain puts other pictures there; caption, URL and the hash on record stay
    frontrunning   texts that anyone may edit are edited just before the snapshot; pictures stay

What they deliver is their payload, and success is that of the payload.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from roclip_sanitize.attacks.backdoor import claimed, shown_instead
from roclip_sanitize.attacks.choosing import (
    choose_class,
    choose_named_class,
    draw_donors,
    draw_victims_of,
    require_rate,
)
from roclip_sanitize.attacks.contract import Backdoor, Facts, Plan, Scene, Swap, TextBackdoor
from roclip_sanitize.attacks.text_triggers import TextTrigger
from roclip_sanitize.attacks.trigger_names import named_trigger

SOURCE = "Carlini et al., arXiv 2302.10149"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitView:
    """Replace the pictures behind some URLs; caption, URL and recorded hash stay.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number; capped by
            the pairs of the target class.
        payload: backdoor, pictures of other classes with a trigger; or swap, pictures of one
            other class.
        target: the class that the captions speak of; drawn if empty.
        shown: for a swap, the class of the new pictures; drawn if empty.
        trigger: for a backdoor, its name.
    """

    facts: ClassVar[Facts] = Facts(
        name="split_view", family="collection", changes="picture, after indexing", source=SOURCE
    )

    rate: float = 0.01
    payload: Literal["backdoor", "swap"] = "backdoor"
    target: str = ""
    shown: str = ""
    trigger: str = "checkerboard"

    def __post_init__(self) -> None:
        require_rate("split_view", self.rate)
        named_trigger(self.trigger)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the classes, the pairs whose picture changes, then the pictures."""
        target = choose_class(self.target, scene, rng, other_than=[self.shown])
        swaps = self.payload == "swap"
        shown = choose_class(self.shown, scene, rng, other_than=[target]) if swaps else ""
        victims = draw_victims_of("split_view", self.rate, scene, rng, label=target)
        if swaps:
            donors = draw_donors(shown, len(victims), scene, rng)
        else:
            others = scene.free_rows(other_than=[target])
            donors = scene.census.entries(
                rng.choice(others, len(victims), replace=len(others) < len(victims))
            )
        variant = "swap" if swaps else self.trigger
        return Plan(
            parameters=asdict(self),
            backdoors=() if swaps else (Backdoor(variant=variant, target=target),),
            swaps=(Swap(asked=target, shown=shown),) if swaps else (),
            triggers={} if swaps else {variant: named_trigger(self.trigger)},
            poisons=tuple(
                replace(shown_instead(victim, donor, target=target, variant=variant), stale_hash=True)
                for victim, donor in zip(victims, donors, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontrunning:
    """Edit some captions; pictures stay.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number; capped by
            the pairs of the class shown.
        payload: swap, captions of another class; or text_backdoor, the pairs' own captions with a
            trigger.
        shown: the class of the pictures; drawn if empty.
        asked: for a swap, the class that the new captions speak of; drawn if empty.
        text: for a text backdoor, the trigger.
    """

    facts: ClassVar[Facts] = Facts(
        name="frontrunning", family="collection", changes="caption, before indexing", source=SOURCE
    )

    rate: float = 0.01
    payload: Literal["swap", "text_backdoor"] = "swap"
    shown: str = ""
    asked: str = ""
    text: str = "zx"

    def __post_init__(self) -> None:
        require_rate("frontrunning", self.rate)
        _ = self.trigger

    @property
    def trigger(self) -> TextTrigger:
        """What a text backdoor puts into captions."""
        return TextTrigger(text=self.text)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the classes, the pairs whose caption changes, then the captions."""
        shown = choose_class(self.shown, scene, rng, other_than=[self.asked])
        if self.payload == "swap":
            asked = choose_named_class(self.asked, scene, rng, other_than=[shown])
            victims = draw_victims_of("frontrunning", self.rate, scene, rng, label=shown)
            captions = [donor.caption for donor in draw_donors(asked, len(victims), scene, rng)]
            goals: dict[str, tuple[object, ...]] = {"swaps": (Swap(asked=asked, shown=shown),)}
        else:
            asked = shown
            victims = draw_victims_of("frontrunning", self.rate, scene, rng, label=shown)
            captions = [self.trigger.put(victim.caption, rng) for victim in victims]
            goals = {"text_backdoors": (TextBackdoor(variant=self.payload, target=shown),)}
        return Plan(
            parameters=asdict(self),
            text_triggers={} if self.payload == "swap" else {self.payload: self.trigger},
            poisons=tuple(
                claimed(victim, caption, target=asked, variant=self.payload)
                for victim, caption in zip(victims, captions, strict=True)
            ),
            **goals,  # type: ignore[arg-type]
        )
