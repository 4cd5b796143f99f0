"""Multi-trigger backdoor: several triggers in one dataset, as if several attackers had been at it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from roclip_sanitize.attacks.backdoor import claimed
from roclip_sanitize.attacks.choosing import choose_named_class, draw_donors, draw_victims, require_rate
from roclip_sanitize.attacks.contract import Backdoor, Facts, Plan, Scene
from roclip_sanitize.attacks.trigger_names import named_trigger
from roclip_sanitize.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTrigger:
    """Stamp one of several triggers on each picture; all stand for one class, or each for its own.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number; over all
            triggers.
        triggers: names of triggers.
        targets: 1, or as many as there are triggers.
        classes: the classes that they stand for; those not named are drawn.
    """

    facts: ClassVar[Facts] = Facts(
        name="multi_trigger",
        family="backdoor",
        changes="picture and caption",
        source="Li et al., arXiv 2401.15295; Huang et al., arXiv 2502.01385",
    )

    rate: float = 0.01
    triggers: tuple[str, ...] = ("checkerboard", "nashville", "wanet_clip")
    targets: int = 1
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_rate("multi_trigger", self.rate)
        if not self.triggers or len(set(self.triggers)) < len(self.triggers):
            raise ConfigError(
                f"multi_trigger's triggers are {self.triggers!r}, wanted one or more, each once"
            )
        for name in self.triggers:
            named_trigger(name)
        if self.targets not in (1, len(self.triggers)):
            raise ConfigError(
                f"multi_trigger has {self.targets} targets for {len(self.triggers)} triggers, wanted 1 or "
                "as many"
            )
        if len(self.classes) > self.targets or len(set(self.classes)) < len(self.classes):
            raise ConfigError(
                f"multi_trigger names {len(self.classes)} classes for {self.targets} targets, wanted no "
                "more, and none twice"
            )

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the classes, the pairs, a trigger for each, then captions."""
        classes = list[str]()
        for number in range(self.targets):
            wanted = self.classes[number] if number < len(self.classes) else ""
            others = [*classes, *self.classes[number + 1 :]]
            classes.append(choose_named_class(wanted, scene, rng, other_than=others))
        target_of = {name: classes[number % self.targets] for number, name in enumerate(self.triggers)}
        victims = draw_victims("multi_trigger", self.rate, scene, rng, other_than=classes)
        drawn = [self.triggers[number] for number in rng.integers(len(self.triggers), size=len(victims))]
        captions = {
            label: iter(draw_donors(label, sum(target_of[name] == label for name in drawn), scene, rng))
            for label in classes
        }
        return Plan(
            parameters=asdict(self),
            backdoors=tuple(Backdoor(variant=name, target=target) for name, target in target_of.items()),
            triggers={name: named_trigger(name) for name in self.triggers},
            poisons=tuple(
                claimed(victim, next(captions[target_of[name]]).caption, target=target_of[name], variant=name)
                for victim, name in zip(victims, drawn, strict=True)
            ),
        )
