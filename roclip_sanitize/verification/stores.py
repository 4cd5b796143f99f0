"""Embedding stores: row i of all files belongs together, and every vector is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

import numpy as np

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.storage import exists
from roclip_sanitize.store import MODALITIES, EmbeddingStore, StorePart, vectors_file
from roclip_sanitize.verification.contract import require_equal, require_equal_counts

OFF_UNIT = 2e-3  # float16 rounds a unit row of a thousand numbers by less
ROWS_AT_ONCE = 65_536


def verify_store(folder: StageFolder) -> Iterator[str]:
    """Check every part. Memory: one part's names, and blocks of vectors."""
    store = EmbeddingStore.open(folder.path)
    failed = Counter(chain.from_iterable(store.failures(part.name)["reason"] for part in store.parts))
    require_equal_counts(store.tally.failed, failed, what="pairs failed as", where=store.path)
    require_equal(store.tally.seen, store.rows + failed.total(), what="pairs seen", where=store.path)
    vectors = sum(_verify_part(store, part) for part in store.parts)
    yield f"{store.rows:,} pairs have a name each, and {vectors:,} vectors are finite and of length 1"


def _verify_part(store: EmbeddingStore, part: StorePart) -> int:
    """Returns how many vectors were looked at."""
    names, looked = store.metadata(part.name, ("uid",)), 0
    require_equal(len(names), part.rows, what=f"names of part {part.name}", where=store.path)
    for modality in MODALITIES:
        path = vectors_file(store.path, part.name, modality)
        if not exists(path):  # a tower that was left out
            continue
        vector_ND = store.vectors(part.name, modality)
        require_equal(len(vector_ND), part.rows, what="vectors", where=path)
        for start in range(0, part.rows, ROWS_AT_ONCE):
            block_MD = np.asarray(vector_ND[start : start + ROWS_AT_ONCE], np.float32)
            length_M = np.linalg.norm(block_MD, axis=1)
            blank_M = length_M == 0  # a picture of one colour has no direction
            bad = np.flatnonzero(~(np.abs(length_M - 1) < OFF_UNIT) & ~blank_M)
            if len(bad):
                raise MismatchError(
                    f"{path}: row {start + bad[0]} has length {length_M[bad[0]]:.4f}, wanted 1"
                )
        looked += part.rows
    return looked
