"""Detector: is a picture still what it was when somebody embedded it before?

    changed    1 - cosine of its vector with the one that another store has of the same pair

Of what a URL led to when a list was made, hashes tell only as long as nobody encodes the picture again
(split-view poisoning, Carlini et al. 2023); vectors of the same encoder tell of any other picture, and of
nothing else. Such vectors come with many datasets: ``roclip adopt`` makes a store of them.

A pair is told by its uid; but where that is a hash of its content, another picture makes it another. So
where a uid is not found, the pair with the same key in the same shard is meant, if its caption is the same.

Dimension key: M pairs of a part, D width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.scoring.contract import Scores
from roclip_sanitize.store import EmbeddingStore, StorePart


class Changed:
    """Holds a store's pictures against those of another.

    Args:
        store: the pictures as they are.
        expected: the same shards' pictures as they were, by the same encoder.

    Raises:
        MismatchError: the other store is of other shards, or its vectors of another width.
    """

    def __init__(self, store: EmbeddingStore, expected: Path) -> None:
        self._store, self._expected = store, EmbeddingStore.open(expected)
        if [part.name for part in self._expected.parts] != [part.name for part in store.parts]:
            raise MismatchError(
                f"{expected} has {len(self._expected.parts)} parts, wanted the {len(store.parts)} of "
                f"{store.path}: adopt the vectors for the same shards"
            )

    def __call__(self, part: StorePart) -> Scores:
        """(M,) float32 from 0 to 2, NaN for pairs that the other store lacks."""
        place_M = self._places(part)
        known_M = np.flatnonzero(place_M >= 0)
        score_M = np.full(len(place_M), np.nan, np.float32)
        if len(known_M):
            was_MD = self._vectors(self._expected, part)[place_M[known_M]]
            is_MD = self._vectors(self._store, part)[known_M]
            if was_MD.shape != is_MD.shape:
                raise MismatchError(
                    f"vectors of {self._expected.path} have {was_MD.shape[1]} numbers, those of "
                    f"{self._store.path} {is_MD.shape[1]}: the same encoder must have made both"
                )
            score_M[known_M] = 1 - np.einsum("md,md->m", was_MD, is_MD, dtype=np.float64)
        return score_M

    def _places(self, part: StorePart) -> NDArray[np.int64]:
        """Each pair's row in the other store's part, or -1: (M,)."""
        of_uid, of_key = dict[str, int](), dict[tuple[str, str], int]()
        for place, (uid, key, caption) in enumerate(self._names(self._expected, part)):
            of_uid[uid] = of_key[key, caption] = place
        mine = self._names(self._store, part)
        found = (of_uid.get(uid, of_key.get((key, caption), -1)) for uid, key, caption in mine)
        return np.fromiter(found, np.int64)

    def _names(self, store: EmbeddingStore, part: StorePart) -> list[tuple[str, str, str]]:
        return store.metadata(part.name, ("uid", "key", "caption")).rows()

    def _vectors(self, store: EmbeddingStore, part: StorePart) -> NDArray[np.float32]:
        return np.asarray(store.vectors(part.name, "image"), np.float32)
