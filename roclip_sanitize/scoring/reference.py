"""Which pairs others are held against: as many as are asked for, drawn by the names of the pairs.

A name and the seed decide whether a pair is drawn, and neither the order of the shards nor who draws: those
whose names hash to the smallest numbers are.

Dimension key: N pairs, R reference pairs; 2 the halves of a uid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.uids import split_uids
from roclip_sanitize.scoring.contract import Pairs
from roclip_sanitize.store import MODALITIES, EmbeddingStore

MIXES = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64 (Steele, Lea & Flood 2014)


def drawn_rows(store: EmbeddingStore, *, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of the pairs that are drawn, ascending: (R,). All, if there are not more.

    Memory: 16 bytes a pair.
    """
    numbers = [
        mixed(split_uids(store.metadata(part.name, ("uid",))["uid"].to_list()), seed) for part in store.parts
    ]
    number_N = np.concatenate([np.empty(0, np.uint64), *numbers])
    if len(number_N) <= count:
        return np.arange(len(number_N))
    return np.sort(np.argsort(number_N, kind="stable")[:count])


def read_rows(store: EmbeddingStore, row_R: NDArray[np.int64]) -> Pairs:
    """The pairs of some rows, ascending, as reference pairs of their own."""
    halves = []
    for modality in MODALITIES:
        blocks = []
        for part in store.parts:
            mine = row_R[(row_R >= part.start) & (row_R < part.start + part.rows)] - part.start
            if len(mine):
                blocks.append(np.asarray(store.vectors(part.name, modality)[mine], np.float32))
        halves.append(np.concatenate(blocks))
    return Pairs(image_MD=halves[0], text_MD=halves[1], own_M=np.arange(len(row_R)))


def mixed(uid_N2: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """64 bits of a uid and a seed, well mixed: whoever chooses uids cannot choose them for all seeds."""
    mixed_N = np.full(len(uid_N2), seed, np.uint64)
    for half in range(2):
        mixed_N = mixed_N ^ uid_N2[:, half]
        for shift, factor in zip((30, 27), MIXES, strict=True):
            mixed_N = (mixed_N ^ (mixed_N >> np.uint64(shift))) * np.uint64(factor)
        mixed_N ^= mixed_N >> np.uint64(31)
    return mixed_N
