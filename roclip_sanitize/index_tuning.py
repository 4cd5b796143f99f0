"""What an index is set up with once its store is known: how far it looks, and along how many directions.

    held-out queries ─▶ exact answers ┐
                     ─▶ answers at growing effort ─▶ recall@10 ─▶ effort     of an approximate index

    sample ─▶ directions in which it varies ─▶ transform                     where a stage chooses it

The queries are others than those that measure() reports on, so that the choice does not flatter itself.

Dimension key: N rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index_files import HALF_WHITENING, NOISE_SHARE, one_thread, open_faiss
from roclip_sanitize.index_plan import IndexSettings, Sizes, training_sample
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.searcher import RECALL_AT, ShardedIndex, held_out, recall_of
from roclip_sanitize.storage import exists
from roclip_sanitize.store import EmbeddingStore

SAME = 1e-12  # of the rows' squared lengths: those that vary by less are one row


def least_effort(index: ShardedIndex, store: EmbeddingStore, settings: IndexSettings, sizes: Sizes) -> int:
    """The first of efforts() whose recall@10 reaches ``settings.recall``, else the last.

    Cost: a plain search of every row for 256 queries, and one approximate search for each effort tried.
    """
    least, most = sizes.efforts
    if settings.nprobe:
        return min(settings.nprobe, most)
    tasks = held_out(store, modality=settings.asked_by, seeds=[settings.seed, 3])
    exact = list(index.search(replace(task, reference=True) for task in tasks))
    for effort in efforts(least, most):
        found = list(index.search(replace(task, effort=effort) for task in tasks))
        if recall_of(found, exact, k=max(RECALL_AT)) >= settings.recall:
            return effort
    return most


def efforts(least: int, most: int) -> Iterator[int]:
    """Efforts worth trying, each by a third or a half more than the last: 1, 2, 3, 4, 6, 8, 12, …, most."""
    effort = least
    while effort < most:
        yield effort
        power_of_two = not effort & (effort - 1)
        effort = max(effort + 1, effort * 3 // 2 if power_of_two else effort * 4 // 3)
    yield most


def with_what_varies(settings: IndexSettings, *, out: Path, executor: Executor) -> IndexSettings:
    """The settings, with as many directions as the vectors vary in where their transform wants more.

    Whoever asks for a transform by name is told that there are too few; a stage that chooses one takes what
    there is. No transform is left where all vectors are the same. It depends on store and seed alone.

    Args:
        settings: what is to be indexed.
        out: folder of the index: one that was begun as told needs no second look.
        executor: where the sample is looked at.

    Raises:
        DataError: a vector of the sample is none.

    Cost: the transform is learnt twice more, in a few seconds.
    """
    begun = StageFolder(out).settings.get("transform") if exists(out / "stage.json") else None
    if not settings.directions or begun == settings.transform or not EmbeddingStore.open(settings.store).rows:
        return settings
    (varied,) = executor.map(partial(VarietyCounter, settings), [None])
    if varied >= settings.directions:
        return settings
    return replace(settings, transform=f"pca{varied}" if varied else "")


class VarietyCounter:
    """Counts the directions in which the sample varies that a transform is learnt from."""

    def __init__(self, settings: IndexSettings) -> None:
        self._settings = settings

    def __call__(self, task: None) -> int:
        sample_ND = training_sample(EmbeddingStore.open(self._settings.store), self._settings)
        if not np.isfinite(sample_ND).all():
            raise DataError(f"{self._settings.store} has vectors that are no numbers: make it anew")
        return min(_learnable(sample_ND), _varied(sample_ND))


def _learnable(sample_ND: NDArray[np.float32]) -> int:
    """As FAISS counts, which refuses more. It takes the rounding of many equal rows for directions."""
    faiss, width = open_faiss(), sample_ND.shape[1]
    pca = faiss.PCAMatrix(width, 1, HALF_WHITENING)
    with one_thread():
        pca.train(sample_ND)
    variance_D = faiss.vector_to_array(pca.eigenvalues)
    return int((variance_D > NOISE_SHARE * variance_D[0]).sum())


def _varied(sample_ND: NDArray[np.float32]) -> int:
    """In double precision."""
    row_ND = sample_ND.astype(np.float64)
    length = np.einsum("nd,nd", row_ND, row_ND)
    row_ND -= row_ND.mean(axis=0)
    variance_D = np.linalg.eigvalsh(row_ND.T @ row_ND)
    return int((variance_D > max(NOISE_SHARE * variance_D[-1], SAME * length)).sum())
