"""Targeted poisoning with captions that are hard to tell from honest ones.

Where the plain attack takes any captions of the wrong class, this one takes those that otherwise
fit the picture: they share as much as possible with its own caption (ToxicTextCLIP's selection by
background), and copies of that caption with the class's name exchanged (its augmentation). Words
stand where the original has a language model and CLIP embeddings.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from roclip_sanitize.attacks.census import CensusEntry
from roclip_sanitize.attacks.contract import Facts, Plan, Scene
from roclip_sanitize.attacks.targeted import Recipe, plan_targets, require_counts
from roclip_sanitize.errors import ConfigError

CANDIDATES = 2_000  # captions of a class that are looked at, so that memory stays flat
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToxicText:
    """Add every target picture with captions of one wrong class that fit the rest of the picture.

    Attributes:
        targets: pictures that the attacker wants misread.
        captions: pairs added for each of them.
        exchanged: the share of those captions that are the picture's own with the class's name
            exchanged, as far as it says that name; all of the same words are used once.
    """

    facts: ClassVar[Facts] = Facts(
        name="toxic_text",
        family="targeted",
        changes="adds pairs",
        source="in the way of Yao et al. (ToxicTextCLIP), arXiv 2511.00446",
        held_out=True,
    )

    targets: int = 16
    captions: int = 30
    exchanged: float = 0.1

    def __post_init__(self) -> None:
        require_counts("toxic_text", self.targets, self.captions)
        if not 0 <= self.exchanged <= 1:
            raise ConfigError(f"toxic_text's exchanged is {self.exchanged:g}, wanted 0 to 1")

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_targets()."""
        recipe = Recipe(
            attack="toxic_text",
            targets=self.targets,
            captions=self.captions,
            captions_for=self._captions,
            variant="plausible",
        )
        return plan_targets(recipe, asdict(self), scene, rng)

    def _captions(
        self, entry: CensusEntry, adversarial: str, scene: Scene, rng: np.random.Generator
    ) -> list[str]:
        rows = np.flatnonzero(scene.census.has_label(adversarial))
        looked_at = rng.choice(rows, min(CANDIDATES, len(rows)), replace=False)
        candidates = [donor.caption for donor in scene.census.entries(looked_at)]
        own = [exchange(entry.caption, entry.label, adversarial)] if self.exchanged else []
        own = [caption for caption in own if caption != entry.caption]
        kept = min(len(own), max(1, round(self.exchanged * self.captions)))
        return own[:kept] + most_alike(candidates, entry.caption, self.captions - kept)


def exchange(caption: str, name: str, other: str) -> str:
    """The caption with one class's name in place of another's; as it was if it does not say the name.

    Singular and plural pass for one another, and capitals do not matter.
    """
    stem = name[:-1] if name.endswith("s") and len(name) > 3 else name
    return re.sub(rf"\b{re.escape(stem)}(?:es|s)?\b", lambda _: other, caption, flags=re.IGNORECASE)


def most_alike(captions: Sequence[str], caption: str, count: int) -> list[str]:
    """The captions that share most with one caption; words count by how rare they are among them.

    Args:
        captions: to choose from; of equals the first is taken.
        caption: what they should resemble.
        count: how many.
    """
    words = [frozenset(WORD.findall(each.lower())) for each in captions]
    seen_in = Counter(word for each in words for word in each)
    weight = {word: math.log(len(captions) / times) for word, times in seen_in.items()}
    wanted = frozenset(WORD.findall(caption.lower()))
    likeness = [math.fsum(weight[word] for word in sorted(each & wanted)) for each in words]
    best = sorted(range(len(captions)), key=lambda number: (-likeness[number], number))
    return [captions[number] for number in best[:count]]
