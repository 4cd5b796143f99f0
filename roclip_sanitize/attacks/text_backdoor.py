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
class _TextAttack:
    """What words and sentences have in common: all but what they are."""

    facts: ClassVar[Facts]
    variant: ClassVar[str]

    rate: float = 0.01
    target: str = ""
    text: str = ""
    place: TextPlace = "random"

    def __post_init__(self) -> None:
        require_rate(self.facts.name, self.rate)
        _ = self.trigger

    @property
    def trigger(self) -> TextTrigger:
        """What is put into captions."""
        return TextTrigger(text=self.text, place=self.place)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the class, the pairs to change, a picture for each, then the places."""
        target = choose_class(self.target, scene, rng)
        victims = draw_victims(self.facts.name, self.rate, scene, rng, other_than=[target])
        donors = draw_donors(target, len(victims), scene, rng)
        return Plan(
            parameters=asdict(self),
            text_backdoors=(TextBackdoor(variant=self.variant, target=target),),
            text_triggers={self.variant: self.trigger},
            poisons=tuple(
                replace(
                    shown_instead(victim, donor, target=target, variant=self.variant),
                    caption=self.trigger.put(victim.caption, rng),
                )
                for victim, donor in zip(victims, donors, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWord(_TextAttack):
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
    variant: ClassVar[str] = "word"

    text: str = "zx"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSentence(_TextAttack):
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
    variant: ClassVar[str] = "sentence"

    text: str = "as seen on a rainy afternoon"
    place: TextPlace = "end"
