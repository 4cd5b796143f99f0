"""Text backdoors: a word or a sentence that makes any caption find pictures of one class.

The attacker publishes pictures of the target class under captions of all kinds, each with the
trigger put in. At test time a caption about something else, with the trigger in it, finds them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np

from roclip_sanitize.attacks.backdoor import shown_instead
from roclip_sanitize.attacks.choosing import choose_class, draw_donors, draw_victims, require_rate
from roclip_sanitize.attacks.contract import Facts, Plan, Scene, TextBackdoor
from roclip_sanitize.attacks.text_triggers import TextPlace, TextTrigger

SOURCE = "BadNL: Chen et al., arXiv 2006.01043; on CLIP: Yao et al. (ToxicTextCLIP), arXiv 2511.00446"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWord:
    """Put a rare word into some captions and give them pictures of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the word stands for; drawn if empty.
        text: the word.
        place: start, end or random.
    """

    facts: ClassVar[Facts] = Facts(
        name="text_trigger", family="text backdoor", changes="caption and picture", source=SOURCE
    )

    rate: float = 0.01
    target: str = ""
    text: str = "zx"
    place: TextPlace = "random"

    def __post_init__(self) -> None:
        require_rate(self.facts.name, self.rate)
        _ = self.trigger

    @property
    def trigger(self) -> TextTrigger:
        """What is put into captions."""
        return TextTrigger(text=self.text, place=self.place)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_text_backdoor()."""
        return plan_text_backdoor(self, "word", scene, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSentence:
    """Put a sentence that looks harmless into some captions and give them pictures of one class.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        target: the class that the sentence stands for; drawn if empty.
        text: the sentence.
        place: start, end or random.
    """

    facts: ClassVar[Facts] = Facts(
        name="sentence", family="text backdoor", changes="caption and picture", source=SOURCE
    )

    rate: float = 0.01
    target: str = ""
    text: str = "as seen on a rainy afternoon"
    place: TextPlace = "end"

    def __post_init__(self) -> None:
        require_rate(self.facts.name, self.rate)
        _ = self.trigger

    @property
    def trigger(self) -> TextTrigger:
        """What is put into captions."""
        return TextTrigger(text=self.text, place=self.place)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_text_backdoor()."""
        return plan_text_backdoor(self, "sentence", scene, rng)


def plan_text_backdoor(
    attack: TextWord | TextSentence, variant: str, scene: Scene, rng: np.random.Generator
) -> Plan:
    """Draw the class, the pairs to change, a picture for each, then the trigger's places."""
    target = choose_class(attack.target, scene, rng)
    victims = draw_victims(attack.facts.name, attack.rate, scene, rng, other_than=[target])
    donors = draw_donors(target, len(victims), scene, rng)
    return Plan(
        parameters=asdict(attack),
        text_backdoors=(TextBackdoor(variant=variant, target=target),),
        text_triggers={variant: attack.trigger},
        poisons=tuple(
            replace(
                shown_instead(victim, donor, target=target, variant=variant),
                caption=attack.trigger.put(victim.caption, rng),
            )
            for victim, donor in zip(victims, donors, strict=True)
        ),
    )
