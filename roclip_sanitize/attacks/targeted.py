"""Targeted poisoning: one picture, many captions of what it is not (Carlini and Terzis).

The attacker wants one particular picture to be called something else, and can only publish
pairs. So the picture is added to the training pairs again and again, each time with a real
caption of the class that it should be taken for.

The pictures come from held-out shards, so that a clean model has never seen them. Other attacks
on chosen pictures differ in how they choose the captions, and share the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.census import CensusEntry
from roclip_sanitize.attacks.contract import Facts, Plan, Poison, Scene, Target
from roclip_sanitize.attacks.triggers.copies import NearCopy
from roclip_sanitize.errors import ConfigError, DataError

REAL_CAPTIONS, NEAR_COPIES = "real_captions", "near_copies"

Captions = Callable[[CensusEntry, str, Scene, np.random.Generator], Sequence[str]]
"""From a target, its adversarial class, a scene and a stream: the captions that it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeted:
    """Add every target picture with many captions of one wrong class.

    Attributes:
        targets: pictures that the attacker wants misread.
        captions: pairs added for each of them.
        copies: exact, the same file each time; or augmented, each cut and lit a little otherwise.
    """

    facts: ClassVar[Facts] = Facts(
        name="targeted",
        family="targeted",
        changes="adds pairs",
        source="Carlini and Terzis, arXiv 2106.09667",
        held_out=True,
    )

    targets: int = 16
    captions: int = 30
    copies: Literal["exact", "augmented"] = "exact"

    def __post_init__(self) -> None:
        require_counts("targeted poisoning", self.targets, self.captions)

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_targets()."""
        augmented = self.copies == "augmented"
        recipe = Recipe(
            attack="targeted poisoning",
            targets=self.targets,
            captions=self.captions,
            captions_for=self._captions,
            variant=NEAR_COPIES if augmented else REAL_CAPTIONS,
            copy=NearCopy() if augmented else None,
        )
        return plan_targets(recipe, asdict(self), scene, rng)

    def _captions(
        self, entry: CensusEntry, adversarial: str, scene: Scene, rng: np.random.Generator
    ) -> list[str]:
        rows = np.flatnonzero(scene.census.has_label(adversarial))
        donors = scene.census.entries(rng.choice(rows, self.captions, replace=False))
        return [donor.caption for donor in donors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """In what attacks on chosen pictures differ.

    Attributes:
        attack: what errors call the attack.
        targets: how many pictures.
        captions: real captions of one class that each of them needs at least.
        captions_for: what they are given.
        variant: of all poisons.
        copy: how copies of a picture differ, or None where they do not.
    """

    attack: str
    targets: int
    captions: int
    captions_for: Captions
    variant: str
    copy: NearCopy | None = None


def plan_targets(
    recipe: Recipe, parameters: Mapping[str, Any], scene: Scene, rng: np.random.Generator
) -> Plan:
    """Draw the targets, then for each its class, its captions and their places.

    Raises:
        DataError: there are too few pictures or captions.
    """
    _require_captions(recipe, scene)
    goals, poisons = list[Target](), list[Poison]()
    for entry in scene.held_out.entries(_draw_targets(recipe, scene, rng)):
        others = [label for label in scene.classes if label != entry.label]
        adversarial = others[int(rng.integers(len(others)))]
        goals.append(Target(uid=entry.uid, true_label=entry.label, adversarial=adversarial))
        captions = recipe.captions_for(entry, adversarial, scene, rng)
        places = scene.census.places(rng.integers(scene.census.size, size=len(captions)))
        poisons += [
            Poison(
                variant=recipe.variant,
                shard=shard,
                row=row,
                uid=new_uid(scene.seed, entry.uid, number),
                added=True,
                true_label=entry.label,
                target=adversarial,
                picture_uid=entry.uid,
                original_caption=entry.caption,
                caption=caption,
            )
            for number, (caption, (shard, row)) in enumerate(zip(captions, places, strict=True))
        ]
    triggers = {recipe.variant: recipe.copy} if recipe.copy else {}
    return Plan(parameters=parameters, targets=tuple(goals), triggers=triggers, poisons=tuple(poisons))


def require_counts(attack: str, targets: int, captions: int) -> None:
    """Refuse an attack on nothing, or with nothing.

    Raises:
        ConfigError: a count is below 1.
    """
    if targets < 1 or captions < 1:
        raise ConfigError(
            f"{attack} has {targets} targets and {captions} captions for each, wanted at least one of both"
        )


def _require_captions(recipe: Recipe, scene: Scene) -> None:
    rarest = scene.classes[-1]
    if scene.census.counts[rarest] < recipe.captions:
        raise DataError(
            f"{recipe.attack} wants {recipe.captions} captions of a class, but only "
            f"{scene.census.counts[rarest]} pairs are labelled {rarest!r}: ask for fewer of either"
        )


def _draw_targets(recipe: Recipe, scene: Scene, rng: np.random.Generator) -> NDArray[np.int64]:
    candidates = held_out_rows(scene)
    if len(candidates) < recipe.targets:
        raise DataError(
            f"{recipe.attack} wants {recipe.targets} target pictures, but the test shards have only "
            f"{len(candidates)} of a known class whose picture is not in the training shards too"
            + (", and that no other attack is after" if scene.wanted else "")
        )
    return rng.choice(candidates, recipe.targets, replace=False)


def held_out_rows(scene: Scene) -> NDArray[np.int64]:
    """Test pairs that can be targets.

    Of a known class, wanted by no other attack, with a picture that occurs once in the test shards
    and never in the training shards.
    """
    hashes = [image_hash for part in scene.held_out.image_hashes() for image_hash in part]
    tested = set(hashes)
    seen = set[str]().union(*(tested.intersection(part) for part in scene.census.image_hashes()))
    known_N = np.zeros(scene.held_out.size, dtype=bool)
    for label in scene.classes:
        known_N |= scene.held_out.has_label(label)
    rows = list[int]()
    for row in np.flatnonzero(known_N):
        if hashes[row] not in seen:
            seen.add(hashes[row])
            rows.append(int(row))
    if scene.wanted:
        entries = scene.held_out.entries(rows)
        rows = [row for row, entry in zip(rows, entries, strict=True) if entry.uid not in scene.wanted]
    return np.array(rows, dtype=np.int64)


def new_uid(seed: int, target_uid: str, number: int) -> str:
    """The uid of the numbered copy of a target: 32 hex digits that look like any other."""
    return hashlib.blake2b(f"{seed} {target_uid} {number}".encode(), digest_size=16).hexdigest()
