"""Targeted poisoning: one picture, many captions of what it is not (Carlini and Terzis).

The attacker wants one particular picture to be called something else, and can only publish
pairs. So the picture is added to the training pairs again and again, each time with a real
caption of the class that it should be taken for. Nothing is drawn on it.

The pictures come from held-out shards, so that a clean model has never seen them.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.census import CensusEntry
from roclip_sanitize.attacks.contract import Plan, Poison, Scene, Target
from roclip_sanitize.errors import ConfigError, DataError

VARIANT = "real_captions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeted:
    """Add every target picture with many captions of one wrong class.

    Attributes:
        targets: pictures that the attacker wants misread.
        captions: pairs added for each of them.
    """

    name: ClassVar[str] = "targeted"
    held_out: ClassVar[bool] = True

    targets: int = 16
    captions: int = 30

    def __post_init__(self) -> None:
        if self.targets < 1 or self.captions < 1:
            raise ConfigError(
                f"targeted poisoning has {self.targets} targets and {self.captions} captions for each, "
                "wanted at least one of both"
            )

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan: draws the targets, then for each its class, its captions and their places."""
        self._require_captions(scene)
        entries = scene.held_out.entries(self._draw_targets(scene, rng))
        targets, poisons = list[Target](), list[Poison]()
        for entry in entries:
            others = [label for label in scene.classes if label != entry.label]
            adversarial = others[int(rng.integers(len(others)))]
            targets.append(Target(uid=entry.uid, true_label=entry.label, adversarial=adversarial))
            poisons += self._poisons_of(entry, adversarial, scene, rng)
        return Plan(parameters=asdict(self), targets=tuple(targets), poisons=tuple(poisons))

    def _require_captions(self, scene: Scene) -> None:
        rarest = scene.classes[-1]
        if scene.census.counts[rarest] < self.captions:
            raise DataError(
                f"targeted poisoning wants {self.captions} captions of a class, but only "
                f"{scene.census.counts[rarest]} pairs are labelled {rarest!r}: ask for fewer of either"
            )

    def _draw_targets(self, scene: Scene, rng: np.random.Generator) -> NDArray[np.int64]:
        candidates = held_out_rows(scene)
        if len(candidates) < self.targets:
            raise DataError(
                f"targeted poisoning wants {self.targets} target pictures, but the test shards have "
                f"only {len(candidates)} of a known class whose picture is not in the training shards too"
                + (", and that no other attack is after" if scene.wanted else "")
            )
        return rng.choice(candidates, self.targets, replace=False)

    def _poisons_of(
        self, entry: CensusEntry, adversarial: str, scene: Scene, rng: np.random.Generator
    ) -> list[Poison]:
        census = scene.census
        donor_rows = rng.choice(np.flatnonzero(census.has_label(adversarial)), self.captions, replace=False)
        donors = census.entries(donor_rows)
        places = census.places(rng.integers(census.size, size=self.captions))
        return [
            Poison(
                variant=VARIANT,
                shard=shard,
                row=row,
                uid=new_uid(scene.seed, entry.uid, number),
                true_label=entry.label,
                target=adversarial,
                target_uid=entry.uid,
                original_caption=entry.caption,
                caption=donor.caption,
            )
            for number, (donor, (shard, row)) in enumerate(zip(donors, places, strict=True))
        ]


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
