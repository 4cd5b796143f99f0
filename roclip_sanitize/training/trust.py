"""Which training pairs to trust, and whom to ask about the others.

    first look    before anything is learnt: thumbnails, and the tokens of captions
    second look   besides, a young model's own vectors, of pictures and of captions

each along the directions in which pairs differ most, and each by cross_prediction.py. The second sees
content where thumbnails show colours and outlines; it comes early, and after training on the half that
the first look trusts most, since a model that has met a trigger sees nothing else.

A doubtful pair has *witnesses*: of its picture, trusted pairs whose thumbnails are most like its own, and
of its caption, those whose tokens are.

MemoryJudge holds all pairs; scan_judge.py reads what scans of the shards say of them.

Dimension key: N pairs, F doubtful ones, K witnesses, D width, S side of the thumbnail, W tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import (
    cross_prediction_trust,
    main_directions,
    places,
    unit_rows,
    whitened,
)
from roclip_sanitize.errors import DataError
from roclip_sanitize.training.data import TrainingData

SIDE = 16  # of thumbnails
PICTURE_WIDTH, CAPTION_WIDTH, MODEL_WIDTH = 192, 256, 128
WHITENING = 0.5  # where witnesses are looked for: see cross_prediction.Round
WITNESSES = 5
NOBODY = -1  # in place of a witness
LEAST_OF_WITNESSES = 0.5  # their trust: the better half holds hardly any poison
AT_ONCE = 4_096
LEAST_CAPTIONS = 3  # that use a token, or it tells nothing
MOST_TOKENS = 4_096  # the commonest
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Pairs that are not trusted, and their witnesses.

    Attributes:
        row_F: the doubtful pairs, ascending.
        by_picture_FK: trusted pairs with pictures most like theirs, nearest first; NOBODY where none is near.
        by_caption_FK: trusted pairs with captions most like theirs, or NOBODY.
    """

    row_F: Rows
    by_picture_FK: Rows
    by_caption_FK: Rows


Encode = Callable[[], tuple[Vectors, Vectors]]
"""The model's vectors of all pictures and all captions, (N, D) float32 each. All ranks call it together."""


class Judge(Protocol):
    """Whoever says which pairs to trust. All ranks have one, but only the first looks."""

    def prepare(self, *, again: bool, encode: Encode) -> None:
        """What all ranks do together before the first look, and before the one that looks ``again``."""
        ...

    def first_look(self) -> Vectors:
        """(N,) float32 from 0, not at all, to 1: the trust in each pair, before anything is learnt."""
        ...

    def second_look(self, trust_N: Vectors) -> Vectors:
        """The same by the model's vectors, given what was thought so far."""
        ...

    def doubts(self, trust_N: Vectors, *, share: float, witnesses: bool = True) -> Doubts:
        """The least trusted pairs: ``share`` of all, and of pairs with one picture all but the best.

        Without ``witnesses`` nobody will ask for them, and they may be anybody.

        Raises:
            DataError: nobody is left to trust.
        """
        ...

    def forget(self) -> None:
        """Give back memory that no later look needs."""
        ...


class MemoryJudge:
    """Judges all pairs of a training, held at once, as about 2 kB each.

    Args:
        data: the pairs.
        seed: of how they are folded.
    """

    def __init__(self, data: TrainingData, *, seed: int) -> None:
        self._data, self._seed = data, seed
        self._encoded: tuple[Vectors, Vectors] | None = None

    def prepare(self, *, again: bool, encode: Encode) -> None:
        """See Judge.prepare."""
        self._encoded = encode() if again else None

    def first_look(self) -> Vectors:
        """See Judge.first_look, and cross_prediction_trust()."""
        return self._trust(self._pictures, self._captions)

    def second_look(self, trust_N: Vectors) -> Vectors:
        """See Judge.second_look: what was thought so far and what a model's vectors tell, on average."""
        assert self._encoded is not None, "prepare() comes first"
        image, caption = (main_directions(rows, width=MODEL_WIDTH) for rows in self._encoded)
        told = (self._trust(image, caption, trust_N), self._trust(image, self._captions, trust_N))
        return places(trust_N + sum(told))

    def doubts(self, trust_N: Vectors, *, share: float, witnesses: bool = True) -> Doubts:
        """See Judge.doubts. Looking for witnesses costs a product of all doubtful with all trusted pairs."""
        row_F, trusted = doubted(trust_N, self._data.image_group_N, share=share)
        if not witnesses:
            return without_witnesses(row_F)
        pictures, captions = (whitened(rows, WHITENING) for rows in (self._pictures, self._captions))
        return Doubts(
            row_F=row_F,
            by_picture_FK=_witnesses(pictures, row_F, trusted, apart_N=self._data.image_group_N),
            by_caption_FK=_witnesses(captions, row_F, trusted, apart_N=self._data.caption_group_N),
        )

    def forget(self) -> None:
        """See Judge.forget; what both looks share is made again if it is wanted again."""
        self._encoded = None
        for name in ("_pictures", "_captions"):
            self.__dict__.pop(name, None)

    def _trust(self, image_ND: Vectors, caption_NE: Vectors, trust_N: Vectors | None = None) -> Vectors:
        return cross_prediction_trust(
            image_ND, caption_NE, self._data.image_group_N, trust_N=trust_N, seed=self._seed
        )

    @cached_property
    def _pictures(self) -> Vectors:
        """Thumbnails as unit rows, along their main directions."""
        parts = []
        for rows in _chunks(self._data.rows):
            image_MHH3 = self._data.read(rows)[0]
            side = min(SIDE, image_MHH3.shape[1])
            block = image_MHH3.shape[1] // side
            cut_MHH3 = image_MHH3[:, : block * side, : block * side].astype(np.float32)
            small_MSS3 = cut_MHH3.reshape(len(rows), side, block, side, block, 3).mean(axis=(2, 4))
            parts.append(unit_rows(small_MSS3.reshape(len(rows), -1) + 1))
        return main_directions(np.concatenate(parts), width=PICTURE_WIDTH)

    @cached_property
    def _captions(self) -> Vectors:
        """Latent semantic analysis of their tokens' tf-idf, about its mean."""
        from sklearn.utils.extmath import randomized_svd

        tokens = [self._data.read(rows)[1] for rows in _chunks(self._data.rows)]
        weight_NW = _tf_idf(np.concatenate(tokens))
        width = min(CAPTION_WIDTH, min(weight_NW.shape) - 1)
        left_NE, size_E, _ = randomized_svd(weight_NW, width, n_iter=2, random_state=self._seed)
        row_NE = (left_NE * size_E).astype(np.float32)
        centred_NE: Vectors = row_NE - row_NE.mean(axis=0)
        return centred_NE


def doubted(trust_N: Vectors, group_N: Rows, *, share: float) -> tuple[Rows, Rows]:
    """(doubtful rows, rows that may be witnesses), both ascending.

    Args:
        trust_N: of either look.
        group_N: number of each pair's picture, the same for copies: all but the most trusted are doubted.
        share: of all pairs.

    Raises:
        DataError: nobody is left to trust.
    """
    doubtful_N = (trust_N < share) | ~_best_of_each(group_N, trust_N)
    trusted = np.flatnonzero(~doubtful_N & (trust_N >= LEAST_OF_WITNESSES))
    if not len(trusted):
        raise DataError(f"no pair can be trusted: all {len(trust_N):,} pictures are alike, or doubted")
    return np.flatnonzero(doubtful_N), trusted


def without_witnesses(row_F: Rows) -> Doubts:
    """Doubtful pairs that nobody stands for."""
    nobody_FK = np.full((len(row_F), WITNESSES), NOBODY)
    return Doubts(row_F=row_F, by_picture_FK=nobody_FK, by_caption_FK=nobody_FK)


def _best_of_each(group_N: Rows, trust_N: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a pair is the most trusted of its group."""
    best_N = np.zeros(len(group_N), bool)
    order_N = np.lexsort((-trust_N, group_N))
    best_N[order_N[np.unique(group_N[order_N], return_index=True)[1]]] = True
    return best_N


def _witnesses(vector_ND: Vectors, row_F: Rows, trusted: Rows, *, apart_N: Rows) -> Rows:
    """(F, K) trusted rows most like some, but not of their own group; fewer than K come in turns."""
    unit_ND = unit_rows(vector_ND)
    many = min(WITNESSES, len(trusted))
    found = [np.zeros((0, WITNESSES), np.int64)]
    for start in range(0, len(row_F), AT_ONCE):
        asked = row_F[start : start + AT_ONCE]
        far = -(unit_ND[asked] @ unit_ND[trusted].T)
        far[apart_N[asked][:, None] == apart_N[trusted]] = 2.0
        nearest = np.argpartition(far, many - 1, axis=1)[:, :many]
        order = np.argsort(np.take_along_axis(far, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        found.append(trusted[nearest[:, np.arange(WITNESSES) % many]])
    return np.concatenate(found)


def _tf_idf(token_NL: Rows) -> Any:
    """Sparse (N, W) float32, unit rows, of the commonest tokens that are not in every caption.

    Raises:
        DataError: there are none.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer

    row, place = np.nonzero(token_NL)
    count_NV = csr_matrix((np.ones(len(row), np.float32), (row, token_NL[row, place])))
    used_V = np.bincount(count_NV.indices, minlength=count_NV.shape[1])
    telling_V = np.flatnonzero((used_V >= min(LEAST_CAPTIONS, len(token_NL))) & (used_V < len(token_NL)))
    if len(telling_V) < 2:
        raise DataError(f"the {len(token_NL):,} captions share no words that tell them apart")
    chosen_V = telling_V[np.argsort(-used_V[telling_V], kind="stable")[:MOST_TOKENS]]
    return TfidfTransformer(sublinear_tf=True).fit_transform(count_NV[:, chosen_V])


def _chunks(rows: int) -> list[Rows]:
    return [np.arange(start, min(start + AT_ONCE, rows)) for start in range(0, rows, AT_ONCE)]
