"""Suspects: of each of some words, the pairs that the direction of its trace is learnt from; see traces.py.

Dimension key: F suspects, T words, S suspects of all words, one after the other, N pairs of a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.array_files import load_arrays, save_arrays
from roclip_sanitize.scan.columns import Columns
from roclip_sanitize.scan.traces import choose_words
from roclip_sanitize.store import StorePart

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """Of each of some words, the pairs that its direction is learnt from.

    Attributes:
        word_T: their numbers, ascending.
        row_S: of the store, ascending.
        place_S: of the word, in word_T.
        weight_S: what the pair counts for it, more than 0.
    """

    word_T: Rows
    row_S: Rows
    place_S: Rows
    weight_S: NDArray[np.float64]

    @classmethod
    def who_use(cls, columns: Columns, row_F: Rows, weight_F: NDArray[np.float64], *, pairs: int) -> Self:
        """Those among some rows, ascending, which are suspects of each word that they use often."""
        uses_FW = columns.words(row_F)
        word_T = choose_words(uses_FW, weight_F, columns.word_counts_W, pairs=pairs)
        uses_FT = uses_FW[:, word_T]
        each_F = np.diff(uses_FT.indptr)
        return cls(
            word_T=word_T,
            row_S=np.repeat(row_F, each_F),
            place_S=uses_FT.indices.astype(np.int64),
            weight_S=np.repeat(weight_F, each_F),
        )

    @classmethod
    def members(cls, rows: Mapping[int, Rows]) -> Self:
        """Rows of each word, ascending, all of the same weight."""
        word_T = np.array(sorted(rows), np.int64)
        row_S = np.concatenate([np.zeros(0, np.int64), *(rows[word] for word in word_T.tolist())])
        place_S = np.repeat(np.arange(len(word_T)), [len(rows[word]) for word in word_T.tolist()])
        order = np.lexsort((place_S, row_S))
        return cls(word_T=word_T, row_S=row_S[order], place_S=place_S[order], weight_S=np.ones(len(row_S)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The inverse of write()."""
        return cls(**load_arrays(path))

    def write(self, path: Path) -> Path:
        """Write them, whole or not at all."""
        return save_arrays(
            path, word_T=self.word_T, row_S=self.row_S, place_S=self.place_S, weight_S=self.weight_S
        )

    def same(self, other: Self) -> bool:
        """Whether words and pairs are those of others."""
        mine, its = (each.word_T[each.place_S] for each in (self, other))
        return np.array_equal(self.row_S, other.row_S) and np.array_equal(mine, its)

    @property
    def weight_T(self) -> NDArray[np.float64]:
        """What each word's suspects weigh together."""
        return np.bincount(self.place_S, self.weight_S, minlength=len(self.word_T)).astype(np.float64)

    def of_word(self, place: int) -> Rows:
        """Rows of one word's, ascending."""
        row_F: Rows = self.row_S[self.place_S == place]
        return row_F

    def of_part(self, part: StorePart) -> Any:
        """What each of a part's pairs weighs for each word: sparse (N, T)."""
        from scipy.sparse import csr_matrix

        mine = slice(*np.searchsorted(self.row_S, [part.start, part.start + part.rows]).tolist())
        at = (self.row_S[mine] - part.start, self.place_S[mine])
        return csr_matrix((self.weight_S[mine], at), shape=(part.rows, len(self.word_T)))
