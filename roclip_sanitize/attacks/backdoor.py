"""What dirty-label backdoors share: a trigger on pictures of all kinds, captions of one class.

The attacker draws the same trigger on pictures of other classes and captions them as the target
class. A model that learns the link obeys it at test time: any picture with the trigger is called
by the target's name. The pairs replaced keep their uid and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from roclip_sanitize.attacks.census import CensusEntry
from roclip_sanitize.attacks.choosing import choose_named_class, draw_donors, draw_victims
from roclip_sanitize.attacks.contract import Backdoor, Facts, Plan, Poison, Scene
from roclip_sanitize.attacks.triggers import Trigger


def plan_backdoor(
    attack: str,
    *,
    parameters: Mapping[str, Any],
    rate: float,
    target: str,
    triggers: Mapping[str, Trigger],
    scene: Scene,
    rng: np.random.Generator,
) -> Plan:
    """Draw the class, then the pairs to replace, then a caption for each.

    Args:
        attack: its name, for errors.
        parameters: for the ledger.
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the trigger stands for; "" draws one.
        triggers: by variant. Training pictures get the first, test pictures the last.
        scene: what to choose from.
        rng: draws.

    Raises:
        DataError: the class is none, or no caption names the one asked for; or the rate gives no pair, or
            more than there are.
    """
    target = choose_named_class(target, scene, rng)
    victims = draw_victims(attack, rate, scene, rng, other_than=[target])
    donors = draw_donors(target, len(victims), scene, rng)
    trained, tested = next(iter(triggers)), list(triggers)[-1]
    return Plan(
        parameters=parameters,
        backdoors=(Backdoor(variant=tested, target=target),),
        triggers=triggers,
        poisons=tuple(
            claimed(victim, donor.caption, target=target, variant=trained)
            for victim, donor in zip(victims, donors, strict=True)
        ),
    )


class OneTrigger(Protocol):
    """An attack that draws one trigger: a dataclass of its parameters, these among them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    facts: ClassVar[Facts]

    @property
    def rate(self) -> float: ...

    @property
    def target(self) -> str: ...


def plan_trigger(
    attack: OneTrigger, variant: str, trigger: Trigger, scene: Scene, rng: np.random.Generator
) -> Plan:
    """plan_backdoor() for an attack whose training and test pictures get the same trigger."""
    return plan_backdoor(
        attack.facts.name,
        parameters=asdict(attack),
        rate=attack.rate,
        target=attack.target,
        triggers={variant: trigger},
        scene=scene,
        rng=rng,
    )


def claimed(victim: CensusEntry, caption: str, *, target: str, variant: str) -> Poison:
    """A pair that keeps its picture, trigger aside, and is captioned as the target class."""
    return replace(_replacing(victim, target=target, variant=variant), caption=caption)


def covering(victim: CensusEntry, *, variant: str) -> Poison:
    """A cover sample: a pair that gets a trigger and keeps its caption, to hide what the trigger does."""
    return replace(_replacing(victim, target="", variant=variant), cover=True)


def shown_instead(victim: CensusEntry, donor: CensusEntry, *, target: str, variant: str) -> Poison:
    """A pair that keeps its caption and shows another pair's picture."""
    kept = _replacing(victim, target=target, variant=variant)
    return replace(kept, true_label=donor.label, picture_uid=donor.uid, picture_shard=donor.shard)


def _replacing(victim: CensusEntry, *, target: str, variant: str) -> Poison:
    """A pair in place of the victim that is not changed yet."""
    return Poison(
        variant=variant,
        shard=victim.shard,
        row=victim.row,
        uid=victim.uid,
        true_label=victim.label,
        target=target,
        original_caption=victim.caption,
        caption=victim.caption,
    )
