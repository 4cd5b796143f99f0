"""The test shards, decoded once, and everything that can be counted on them with one encoder.

Dimension key: N test pictures, S side in pixels, D width, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.triggers import stamp
from roclip_sanitize.decoding import chunked, decode_pairs
from roclip_sanitize.encoder_facts import Encoder
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.evaluation.attack_success import TARGETED_CUTOFFS, targeted_success, trigger_success
from roclip_sanitize.evaluation.counts import Count
from roclip_sanitize.evaluation.retrieval import retrieval_ranks
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.zero_shot import class_vectors, image_vectors, predict, top_classes
from roclip_sanitize.images import Fit, decode_image, to_square
from roclip_sanitize.records import Failure
from roclip_sanitize.shards import Pair, Shard

RETRIEVAL_CUTOFFS = (1, 5, 10)
SEEN_CLASSES = max(TARGETED_CUTOFFS)
ENCODED_AT_ONCE = 512


class TestPictures:
    """The test shards, decoded for one kind of model."""

    __test__ = False  # no pytest class

    def __init__(self, settings: EvaluateSettings, *, side: int, fit: Fit) -> None:
        self._settings = settings
        self._side, self._fit = side, fit
        self._ledger = Ledger.open(settings.ledger) if settings.ledger else None
        self._triggered_pictures: dict[str, NDArray[np.uint8]] = {}
        self._pairs, self._image_NSS3 = self._read()
        self._classes = self._choose_classes()
        self._require_attacked_classes()
        number = {name: index for index, name in enumerate(self._classes)}
        self._label_N = np.array([number.get(self._label(pair), -1) for pair in self._pairs])
        if not (self._label_N >= 0).any():
            raise DataError(f"no test pair has a label {settings.label!r} among the {len(number)} classes")

    def measure(self, encoder: Encoder, *, curve: bool) -> Iterator[Count]:
        """Everything there is to know of one set of weights; less of it for a curve."""
        labelled = np.flatnonzero(self._label_N >= 0)
        shown = labelled[: self._settings.curve_pictures] if curve else labelled
        class_CD = class_vectors(encoder, self._classes, self._settings.templates)
        image_ND = image_vectors(encoder, self._image_NSS3[shown])
        label_N, clean_NK = self._label_N[shown], top_classes(image_ND, class_CD, most=SEEN_CLASSES)
        hits = int((clean_NK[:, 0] == label_N).sum())
        yield Count(attack=None, metric="zero_shot_top1", hits=hits, trials=len(shown))
        for attack in self._ledger.attacks if self._ledger else ():
            yield from self._attack(attack, encoder, class_CD, shown, clean_NK)
        if not curve:
            yield from self._retrieval(encoder)

    def _attack(
        self,
        attack: str,
        encoder: Encoder,
        class_CD: NDArray[np.float32],
        shown: NDArray[np.int64],
        clean_NK: NDArray[np.int64],
    ) -> Iterator[Count]:
        assert self._ledger is not None
        label_N = self._label_N[shown]
        targets = self._ledger.targets_of(attack)
        if targets:
            target_TD = image_vectors(encoder, self._target_pictures(attack))
            yield from targeted_success(
                attack,
                targets=targets,
                target_class_TK=top_classes(target_TD, class_CD, most=SEEN_CLASSES),
                clean_class_NK=clean_NK,
                label_N=label_N,
                classes=self._classes,
            )
            return
        triggered_N = predict(image_vectors(encoder, self._triggered(attack)[shown]), class_CD)
        yield from trigger_success(
            attack,
            target=self._classes.index(self._ledger.target(attack)),
            triggered_class_N=triggered_N,
            clean_class_N=clean_NK[:, 0],
            label_N=label_N,
        )

    def _retrieval(self, encoder: Encoder) -> Iterator[Count]:
        captions = [pair.caption for pair in self._pairs]
        parts = [encoder.encode_captions(part) for part in chunked(captions, ENCODED_AT_ONCE)]
        caption_ND = np.concatenate(parts)
        rank_2N = retrieval_ranks(image_vectors(encoder, self._image_NSS3), caption_ND, captions)
        for cutoff in RETRIEVAL_CUTOFFS:
            hits = int((rank_2N < cutoff).sum())
            yield Count(attack=None, metric=f"retrieval_r{cutoff}", hits=hits, trials=len(rank_2N))

    def _triggered(self, attack: str) -> NDArray[np.uint8]:
        """All test pictures with an attack's trigger, stamped before resizing, as poisons are."""
        if attack not in self._triggered_pictures:
            assert self._ledger is not None
            trigger = self._ledger.trigger(attack)
            squares = []
            for number, pair in enumerate(self._pairs):
                rng = np.random.default_rng([self._settings.seed, number])
                stamped = stamp(np.asarray(decode_image(pair.image)), trigger, rng)
                squares.append(to_square(stamped, self._side, fit=self._fit))
            self._triggered_pictures[attack] = np.stack(squares)
        return self._triggered_pictures[attack]

    def _target_pictures(self, attack: str) -> NDArray[np.uint8]:
        assert self._ledger is not None
        pictures = [self._ledger.picture(target) for target in self._ledger.targets_of(attack)]
        return np.stack([to_square(decode_image(data), self._side, fit=self._fit) for data in pictures])

    def _read(self) -> tuple[list[Pair], NDArray[np.uint8]]:
        failures: list[Failure] = []
        pairs, pictures = list[Pair](), list[NDArray[np.uint8]]()
        for path in self._settings.test_shards:
            with Shard(path) as shard:
                for pair, picture in decode_pairs(shard, side=self._side, fit=self._fit, failures=failures):
                    pairs.append(pair)
                    pictures.append(picture)
        if not pairs:
            raise DataError(f"no usable pair in the {len(self._settings.test_shards)} test shards")
        return pairs, np.stack(pictures)

    def _choose_classes(self) -> Sequence[str]:
        if self._settings.classes:
            return self._settings.classes
        if self._ledger:
            return self._ledger.classes
        counts = Counter(label for pair in self._pairs if (label := self._label(pair)))
        return [label for label, _ in counts.most_common(self._settings.class_count)]

    def _require_attacked_classes(self) -> None:
        """Success is to be called by a name, so that the name must be there to choose."""
        if not self._ledger:
            return
        named = frozenset[str]().union(*map(self._ledger.goal_classes, self._ledger.attacks))
        if missing := sorted(named - set(self._classes)):
            raise ConfigError(f"classes lack {', '.join(missing)}, which the ledger's attacks name")

    def _label(self, pair: Pair) -> str:
        return str(pair.fields.get(self._settings.label, ""))
