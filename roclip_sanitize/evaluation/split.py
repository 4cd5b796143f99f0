"""What a test set holds, and how much of it was trained on.

A test is worth what its pictures' novelty is worth. Test pictures whose very bytes are among the
training pairs are counted (not of public data sets, whose bytes nobody hands on), and those whose
vectors nearly are (cosine of ``near`` or more, by the encoder of the training shards' store); a poisoned
pair among the test pairs ends the evaluation. Pictures that attacks are after are no clean test pictures,
and are not counted.

Cosines are taken about the mean of the training vectors: all pictures of a corpus have much in
common, catalogue pictures their white ground, and as they are their cosines say little else.

Dimension key: N test pictures of a chunk, M rows of a block of the store, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.decoding import chunked
from roclip_sanitize.encoder_facts import Encoder
from roclip_sanitize.encoders import open_encoder
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.evaluation.labels import choose_classes, require_labelled
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.test_sets import ShardSet, Survey, TestPart, TestSet, open_test_set
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.images import to_square
from roclip_sanitize.runfiles import StageFolder, write_json
from roclip_sanitize.store import EmbeddingStore

CHUNK = 256
BLOCK = 65_536
MEANT = 1_000  # rows of each part that make the mean

Quotas = list[tuple[TestPart, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What to measure on.

    Attributes:
        dataset: the test set's name.
        classes: names to choose from.
        curve: its parts, each with the number of labelled pictures that snapshots see of it.
        probe: parts of the probe's training pairs, each with the number of labelled ones to take.
    """

    dataset: str
    classes: tuple[str, ...]
    curve: Quotas
    probe: Quotas


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """What a worker found in one part.

    Attributes:
        part: which.
        pictures: how many it holds.
        labels: how many of each label.
        poisoned: uids of pairs of it that are poisons of the ledger.
        targets: pairs of it that attacks are after.
        hashed: pictures of it whose bytes were looked for in the store.
        copies: those of them that the store knows.
        near: pictures of it that are near-duplicates of one of the store.
        compared: pictures of it that were compared by vectors.
    """

    part: TestPart
    pictures: int
    labels: Counter[str]
    poisoned: Sequence[str] = ()
    targets: int = 0
    hashed: int = 0
    copies: int = 0
    near: int = 0
    compared: int = 0


def look_through(settings: EvaluateSettings, test_set: TestSet, *, out: Path, executor: Executor) -> Split:
    """Look through all parts, choose classes, and write OUT/split.json.

    Raises:
        DataError: there is no usable pair, no labelled one (to measure on, or for the probe to learn
            from), or one that the ledger poisoned.
        MismatchError: the store's encoder is not the one that made it.
    """
    parts = [*test_set.parts]
    if not parts:
        raise DataError("the test set has no parts: wanted at least one shard")
    facts = _in_order(executor.map(partial(LookWorker, settings), parts))
    probe_set = ShardSet(settings.probe_shards, settings.label)
    probe = _in_order(executor.map(partial(ProbeLookWorker, settings), probe_set.parts))
    _require_usable(settings, facts)
    labels, probe_labels = ([one.labels for one in each] for each in (facts, probe))
    classes = choose_classes(settings, test_set, labels)
    require_labelled(settings.label, labels, classes=classes)
    if probe:
        require_labelled(settings.label, probe_labels, classes=classes, what="probe")
    write_json(out / "split.json", _facts_json(settings, test_set, facts, classes))
    return Split(
        dataset=test_set.name,
        classes=tuple(classes),
        curve=_quotas(facts, classes, settings.curve_pictures),
        probe=_quotas(probe, classes, settings.probe_pictures),
    )


class ProbeLookWorker:
    """Counts the labels of the probe's training pairs."""

    def __init__(self, settings: EvaluateSettings) -> None:
        self._set = ShardSet(settings.probe_shards, settings.label)

    def __call__(self, part: TestPart) -> PartFacts:
        survey = self._set.survey(part)
        return PartFacts(part=part, pictures=survey.pictures, labels=survey.labels)


class LookWorker:
    """Looks one part of the test set through."""

    def __init__(self, settings: EvaluateSettings) -> None:
        self._set = open_test_set(settings)
        self._near = settings.near
        self._store = EmbeddingStore.open(settings.store) if settings.store else None
        self._encoder = _encoder_of(self._store) if self._store else None
        self._mean_D = _mean_of(self._store) if self._store else None
        self._poisons, self._spoiled, self._targets = _poisons(settings.ledger)

    def __call__(self, part: TestPart) -> PartFacts:
        survey = self._set.survey(part)
        compared, near = self._count_near(part)
        hashed, copies = self._count_copies(survey)
        return PartFacts(
            part=part,
            pictures=survey.pictures,
            labels=survey.labels,
            poisoned=self._poisoned(survey),
            targets=len(self._targets.intersection(survey.uids)),
            hashed=hashed,
            copies=copies,
            near=near,
            compared=compared,
        )

    def _poisoned(self, survey: Survey) -> list[str]:
        pairs = zip(survey.uids, survey.image_hashes, strict=True)
        return [uid for uid, image_hash in pairs if uid in self._poisons or image_hash in self._spoiled]

    def _count_copies(self, survey: Survey) -> tuple[int, int]:
        """How many pictures were looked for by their bytes, and how many of them the store knows."""
        if self._store is None:
            return 0, 0
        pairs = zip(survey.uids, survey.image_hashes, strict=True)
        hashes = [image_hash for uid, image_hash in pairs if uid not in self._targets]
        found, wanted = set[str](), set(hashes)
        for part in self._store.parts:
            found |= wanted.intersection(self._store.metadata(part.name, ["image_hash"])["image_hash"])
        return len(hashes), sum(image_hash in found for image_hash in hashes)

    def _count_near(self, part: TestPart) -> tuple[int, int]:
        """How many pictures were compared, and how many have a near-duplicate in the store."""
        if self._store is None or self._encoder is None:
            return 0, 0
        side, fit = self._encoder.facts.side, self._encoder.facts.fit
        compared = near = 0
        pictures = (one for one in self._set.read(part, Counter()) if one.uid not in self._targets)
        for chunk in chunked(pictures, CHUNK):
            image_NSS3 = np.stack([to_square(picture.image, side, fit=fit) for picture in chunk])
            best_N = self._nearest(self._encoder.encode_images(image_NSS3))
            compared, near = compared + len(chunk), near + int((best_N >= self._near).sum())
        return compared, near

    def _nearest(self, image_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of the nearest picture of the store, for each row."""
        assert self._store is not None
        centred_ND = self._centred(image_ND)
        best_N = np.full(len(image_ND), -1, np.float32)
        for part in self._store.parts:
            stored_MD = self._store.vectors(part.name, "image")
            for start in range(0, part.rows, BLOCK):
                block_MD = self._centred(stored_MD[start : start + BLOCK].astype(np.float32))
                best_N = np.maximum(best_N, (centred_ND @ block_MD.T).max(axis=1))
        return best_N

    def _centred(self, row_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit rows about the store's mean."""
        assert self._mean_D is not None
        apart_ND = row_ND - self._mean_D
        norm_N1 = np.linalg.norm(apart_ND, axis=1, keepdims=True)
        unit_ND: NDArray[np.float32] = apart_ND / np.maximum(norm_N1, np.finfo(np.float32).tiny)
        return unit_ND


def _encoder_of(store: EmbeddingStore) -> Encoder:
    told = StageFolder(store.path).settings
    name = str(told["encoder"]["name"])
    encoder = open_encoder(name, seed=int(told.get("seed", 0)))
    if encoder.facts.digest != store.model:
        raise MismatchError(
            f"{store.path} was made by {name} of digest {store.model}, found {encoder.facts.digest}"
        )
    return encoder


def _mean_of(store: EmbeddingStore) -> NDArray[np.float32]:
    """Mean vector of the first rows of every part, (D,)."""
    first = [store.vectors(part.name, "image")[:MEANT].astype(np.float64) for part in store.parts]
    mean_D: NDArray[np.float32] = np.concatenate(first).mean(axis=0).astype(np.float32)
    return mean_D


def _poisons(ledger_path: Path | None) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Of a ledger: uids of poisoned pairs, hashes of spoiled pictures, uids of targets."""
    if ledger_path is None:
        return frozenset(), frozenset(), frozenset()
    ledger = Ledger.open(ledger_path)
    frame = ledger.frame
    drawn_on = frame["attack"].is_in([attack for attack in ledger.attacks if ledger.backdoors(attack)])
    # Attacks without a trigger use clean pictures, which may occur in the test shards by themselves.
    spoiled = frame.filter(drawn_on & (frame["image_hash"] != frame["original_image_hash"]))
    targets = frozenset(target.uid for target in ledger.targets)
    return ledger.planted(), frozenset(spoiled["image_hash"]), targets


def _in_order(facts: Iterator[PartFacts]) -> list[PartFacts]:
    return sorted(facts, key=lambda one: int(one.part.name))


def _require_usable(settings: EvaluateSettings, facts: Sequence[PartFacts]) -> None:
    if not any(one.pictures for one in facts):
        raise DataError(f"no usable pair in the {len(facts)} test shards")
    if poisoned := [uid for one in facts for uid in one.poisoned]:
        raise DataError(
            f"{len(poisoned):,} test pairs are poisons of {settings.ledger}, {poisoned[0]} the first: "
            "wanted test shards that no attack has touched"
        )


def _labelled(facts: PartFacts, classes: Sequence[str]) -> int:
    return sum(facts.labels[name] for name in classes)


def _quotas(facts: Sequence[PartFacts], classes: Sequence[str], most: int) -> Quotas:
    """So many labelled pictures of each part that ``most`` come together, first parts first."""
    quotas = Quotas()
    for one in facts:
        quotas.append((one.part, min(most, _labelled(one, classes))))
        most -= quotas[-1][1]
    return quotas


def _facts_json(
    settings: EvaluateSettings, test_set: TestSet, facts: Sequence[PartFacts], classes: Sequence[str]
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "dataset": test_set.name,
        "pictures": sum(one.pictures for one in facts),
        "labelled": sum(_labelled(one, classes) for one in facts),
        "targets_set_apart": sum(one.targets for one in facts),
        "classes": list(classes),
    }
    if settings.store:
        if hashed := sum(one.hashed for one in facts):
            said["copies"] = _share(sum(one.copies for one in facts), hashed)
        near = _share(sum(one.near for one in facts), sum(one.compared for one in facts))
        said["near_duplicates"] = near | {"cosine": settings.near, "store": str(settings.store)}
    return said


def _share(hits: int, n: int) -> dict[str, Any]:
    low, high = wilson(hits, n)
    return {"hits": hits, "n": n, "value": round(hits / n, 6) if n else 0.0, "low": low, "high": high}
