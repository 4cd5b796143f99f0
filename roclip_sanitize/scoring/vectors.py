"""Detectors that look at vectors, over a store, part by part.

Dimension key: N pairs of a part, M of a block, B of a batch, R reference pairs, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.cross_files import one_thread
from roclip_sanitize.scoring.contract import MakeDetector, Pairs, Scores
from roclip_sanitize.scoring.reference import drawn_rows, read_rows
from roclip_sanitize.scoring.released import RELEASED, batches, score_batch
from roclip_sanitize.store import MODALITIES, EmbeddingStore, StorePart

BLOCK_PAIRS = 1_024


class Drawn:
    """Those that hold every pair against the same reference pairs, drawn of the whole store."""

    def __init__(
        self,
        store: EmbeddingStore,
        makers: Mapping[str, MakeDetector],
        *,
        reference: int,
        neighbours: int,
        seed: int,
    ) -> None:
        self._store = store
        self._row_R = drawn_rows(store, count=reference, seed=seed)
        among = read_rows(store, self._row_R)
        with one_thread():
            self._detectors = {name: make(among, neighbours=neighbours) for name, make in makers.items()}

    def __call__(self, part: StorePart) -> dict[str, Scores]:
        """A part's scores by each of them: (N,)."""
        scores = {name: np.empty(part.rows, np.float32) for name in self._detectors}
        with one_thread():
            for start in range(0, part.rows, BLOCK_PAIRS):
                place_M = np.arange(start, min(start + BLOCK_PAIRS, part.rows))
                pairs = pairs_at(self._store, part, place_M, own_M=self._own(part.start + place_M))
                for name, detector in self._detectors.items():
                    scores[name][place_M] = detector(pairs)
        return scores

    def _own(self, row_M: NDArray[np.int64]) -> NDArray[np.int64]:
        place_M = np.minimum(np.searchsorted(self._row_R, row_M), len(self._row_R) - 1)
        return np.where(self._row_R[place_M] == row_M, place_M, -1)


class Batched:
    """Those that hold the pairs of a part against each other, batch by batch."""

    def __init__(
        self, store: EmbeddingStore, names: Sequence[str], *, reference: int, neighbours: int, seed: int
    ) -> None:
        self._store, self._names = store, names
        self._size, self._k, self._seed = reference, neighbours, seed

    def __call__(self, part: StorePart) -> dict[str, Scores]:
        """A part's scores by each of them: (N,)."""
        scores = {name: np.empty(part.rows, np.float32) for name in self._names}
        uids = self._store.metadata(part.name, ("uid",))["uid"].to_list()
        with one_thread():
            for place_B in batches(uids, size=self._size, seed=self._seed):
                batch = pairs_at(self._store, part, place_B, own_M=np.arange(len(place_B)))
                found = score_batch([RELEASED[name] for name in self._names], batch, neighbours=self._k)
                for name in self._names:
                    scores[name][place_B] = found[RELEASED[name]]
        return scores


def pairs_at(
    store: EmbeddingStore, part: StorePart, place_M: NDArray[np.int64], *, own_M: NDArray[np.int64]
) -> Pairs:
    """Some of a part's pairs, by their places in it."""
    image_MD, text_MD = (
        np.asarray(store.vectors(part.name, modality)[place_M], np.float32) for modality in MODALITIES
    )
    return Pairs(image_MD=image_MD, text_MD=text_MD, own_M=own_M)
