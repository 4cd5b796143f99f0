"""Nearest neighbours with exact cosines, whatever found the candidates.

    find() ─▶ candidates ─▶ exact cosines ─▶ admissible ones ─▶ k best of a part ─▶ merge() of parts

A fast search sums products in an order that depends on batch, threads and device, so its scores
differ in the last bits from one run to the next. Here it only proposes candidates: they are
scored again in one fixed order, ties break by row number, and the search is repeated deeper
until no row that it left out can belong to the answer. So the answer is the same, bit for bit,
however the rows are split and whoever searched them.

An approximate search does not look at every row. What it proposes goes the same way, so that its
cosines are exact too, and it is asked for more where exclusions leave fewer than k.

Pure arithmetic: no files, no FAISS. index.py reads the vectors and does the finding.

Dimension key: Q queries, M rows of one part, C candidates per query, K neighbours, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.store import Modality

SLACK = 16  # candidates beyond k: rounding shuffles only the nearest few
DEEPER = 4  # each repetition fetches this many times more
CANDIDATES_AT_ONCE = 1 << 22  # about 100 MB of scores, places and row numbers
PRODUCTS_AT_ONCE = 1 << 17  # float64: 1 MB, so that they stay in the cache
ROWS_AT_ONCE = 1 << 14

Find: TypeAlias = Callable[[NDArray[np.float32], int], tuple[NDArray[Any], NDArray[np.int64]]]
"""(Q, D) queries and C → (Q, C) scores, and the (Q, C) places of the C best of M rows, C <= M.

An approximate one may give more than C, or -1 for places where it has no more to offer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTask:
    """A question: the neighbours of some rows of a store, which the searcher reads by itself.

    Attributes:
        store: where the queries are.
        part: the store part that holds them.
        modality: which of its vectors ask.
        start: first row within the part.
        stop: the row after the last.
        k: neighbours wanted per row.
        exclude_self: never answer with the query's own row; for queries from the indexed store.
        exclude_hash: never answer with a row of the query's image hash.
        exclude_caption: never answer with a row of the query's caption, normalised.
        max_cosine: never answer with a row closer than this.
        reference: score every row with plain numpy: slow, and what recall is measured against.
        effort: how far an approximate index looks, see IndexSettings.nprobe; 0 takes what the index
            chose when it was built.
    """

    store: Path
    part: str
    modality: Modality
    start: int
    stop: int
    k: int
    exclude_self: bool = False
    exclude_hash: bool = False
    exclude_caption: bool = False
    max_cosine: float | None = None
    reference: bool = False
    effort: int = 0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}, wanted 1 or more neighbours")
        if self.effort < 0:
            raise ConfigError(f"effort is {self.effort}, wanted 0 or more")
        if not 0 <= self.start <= self.stop:
            raise ConfigError(f"rows {self.start} to {self.stop} are no range")

    @property
    def excluded_columns(self) -> tuple[str, ...]:
        """Metadata columns in which an answer must differ from its query."""
        wanted = (("image_hash", self.exclude_hash), ("caption", self.exclude_caption))
        return tuple(column for column, excluded in wanted if excluded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Nearest rows of Q queries, best first; equal cosines in the order of their rows.

    Attributes:
        rows_NK: int64 row numbers in the whole store; -1 where there are fewer than K.
        cosine_NK: float32, never rising along K; -inf where there are fewer than K. Half-precision
            vectors are of unit length only to 1e-4, and so are their cosines.
    """

    rows_NK: NDArray[np.int64]
    cosine_NK: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.rows_NK.shape != self.cosine_NK.shape or self.rows_NK.ndim != 2:
            raise ValueError(
                f"rows are {self.rows_NK.shape}, cosines {self.cosine_NK.shape}: wanted both (N, K)"
            )

    @classmethod
    def none(cls, queries: int, k: int) -> Neighbours:
        """The answer where there is nothing to find."""
        return cls(
            rows_NK=np.full((queries, k), -1, np.int64), cosine_NK=np.full((queries, k), -np.inf, np.float32)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Vectors with what decides whether one may answer another.

    Attributes:
        vectors_ND: float32, unit rows; or what gives such rows when it is read by their places.
        row_N: int64, their numbers in the whole store.
        codes: metadata column → uint64 codes of its values, see codes_of().
    """

    vectors_ND: NDArray[np.float32]
    row_N: NDArray[np.int64]
    codes: Mapping[str, NDArray[np.uint64]]

    def take(self, places: NDArray[np.int64]) -> Rows:
        """Some of the rows."""
        return Rows(
            vectors_ND=self.vectors_ND[places],
            row_N=self.row_N[places],
            codes={column: code_N[places] for column, code_N in self.codes.items()},
        )


def codes_of(values: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit codes: equal strings, equal codes. A collision would only cost one neighbour."""
    digests = (hashlib.blake2b(value.encode(), digest_size=8).digest() for value in values)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def best_k(rows_NC: NDArray[np.int64], cosine_NC: NDArray[np.float32], k: int) -> Neighbours:
    """The k best of some answers; absent ones have row -1 and cosine -inf."""
    order_NK = np.lexsort((rows_NC, -cosine_NC), axis=-1)[:, :k]
    found = Neighbours.none(len(rows_NC), k)
    found.rows_NK[:, : order_NK.shape[1]] = np.take_along_axis(rows_NC, order_NK, axis=1)
    found.cosine_NK[:, : order_NK.shape[1]] = np.take_along_axis(cosine_NC, order_NK, axis=1)
    return found


def merge(answers: Sequence[Neighbours], k: int) -> Neighbours:
    """Turn the answers of all parts to one question into the answer of the whole."""
    if len(answers) == 1 and answers[0].rows_NK.shape[1] == k:
        return answers[0]  # in order already
    rows_NC = np.concatenate([answer.rows_NK for answer in answers], axis=1)
    cosine_NC = np.concatenate([answer.cosine_NK for answer in answers], axis=1)
    return best_k(rows_NC, cosine_NC, k)


def search_part(
    part: Rows, queries: Rows, *, find: Find, task: SearchTask, bounded: bool = True
) -> Neighbours:
    """The exact k best admissible rows of one part for every query, among those that ``find`` can see.

    Args:
        part: M rows to search, with codes of ``task.excluded_columns``.
        queries: Q rows that ask, with the same codes.
        find: proposes candidates among the M.
        task: k and the exclusions.
        bounded: the scores are inner products but for rounding, and of the rows that ``find`` can see
            none that it left out is better than those it gave. Where that is not so, k admissible
            rows are enough.

    Cost: one search with k + 16 candidates; four times deeper for queries of which many candidates
    are excluded or tie, up to all M where they all are.
    """
    found = Neighbours.none(len(queries.row_N), task.k)
    waiting_Q = np.arange(len(queries.row_N))
    fetch = min(task.k + SLACK, len(part.row_N))
    while len(waiting_Q) and fetch:
        unsure = []
        for some_Q in _blocks(waiting_Q, max(1, CANDIDATES_AT_ONCE // fetch)):
            answer, sure_Q = _attempt(
                part, queries.take(some_Q), find=find, task=task, fetch=fetch, bounded=bounded
            )
            found.rows_NK[some_Q], found.cosine_NK[some_Q] = answer.rows_NK, answer.cosine_NK
            unsure.append(some_Q[~sure_Q])
        waiting_Q = np.concatenate(unsure)
        fetch = min(fetch * DEEPER, len(part.row_N))
    return found


def _attempt(
    part: Rows, queries: Rows, *, find: Find, task: SearchTask, fetch: int, bounded: bool
) -> tuple[Neighbours, NDArray[np.bool_]]:
    """The k best of ``fetch`` candidates, and for which queries looking deeper would change nothing."""
    score_QC, found_QC = find(queries.vectors_ND, fetch)
    absent_QC, place_QC = found_QC < 0, np.maximum(found_QC, 0)
    cosine_QC = exact_cosines(part.vectors_ND, place_QC, queries.vectors_ND)
    barred_QC = absent_QC | _barred(part, queries, place_QC, cosine_QC, task)
    rows_QC = np.where(barred_QC, -1, part.row_N[place_QC])
    answer = best_k(rows_QC, np.where(barred_QC, np.float32(-np.inf), cosine_QC), task.k)
    if fetch == len(part.row_N):
        return answer, np.ones(len(rows_QC), np.bool_)
    exhausted_Q = absent_QC.any(axis=1)
    if not bounded:
        return answer, exhausted_Q | (answer.rows_NK[:, -1] >= 0)
    # A float32 sum of D products is off by less than D units of 2**-24, in any order of summation.
    left_out_Q = score_QC.min(axis=1) + (part.vectors_ND.shape[1] + 8) * 2.0**-24
    return answer, exhausted_Q | (answer.cosine_NK[:, -1] > left_out_Q)


def nearest(
    vectors_MD: NDArray[np.float32], query_QD: NDArray[np.float32], *, k: int, find: Find
) -> Neighbours:
    """The exact k best of some rows by their places, none of them excluded."""
    rows = Rows(vectors_ND=vectors_MD, row_N=np.arange(len(vectors_MD)), codes={})
    queries = Rows(vectors_ND=query_QD, row_N=np.arange(len(query_QD)), codes={})
    task = SearchTask(store=Path(), part="", modality="image", start=0, stop=len(query_QD), k=k)
    return search_part(rows, queries, find=find, task=task)


def _barred(
    part: Rows, queries: Rows, place_QC: NDArray[np.int64], cosine_QC: NDArray[np.float32], task: SearchTask
) -> NDArray[np.bool_]:
    barred_QC = np.zeros(place_QC.shape, np.bool_)
    if task.exclude_self:
        barred_QC |= part.row_N[place_QC] == queries.row_N[:, None]
    for column in task.excluded_columns:
        barred_QC |= part.codes[column][place_QC] == queries.codes[column][:, None]
    if task.max_cosine is not None:
        barred_QC |= cosine_QC > np.float32(task.max_cosine)
    return barred_QC


def exact_cosines(
    vectors_MD: NDArray[np.float32], place_QC: NDArray[np.int64], query_QD: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Inner product of each query with its candidates, the same bits for the same two vectors always.

    Products of float32 are exact in float64, and einsum adds up each row by itself, in an order that
    depends on D alone.
    """
    candidates, width = place_QC.shape[1], vectors_MD.shape[1]
    place_P, asked_QD = place_QC.ravel(), query_QD.astype(np.float64)
    cosine_P = np.empty(len(place_P), np.float32)
    for some_P in _blocks(np.arange(len(place_P)), max(1, PRODUCTS_AT_ONCE // width)):
        found_PD = vectors_MD[place_P[some_P]].astype(np.float64)
        cosine_P[some_P] = np.einsum("pd,pd->p", found_PD, asked_QD[some_P // candidates])
    return cosine_P.reshape(place_QC.shape)


def numpy_find(vectors_MD: NDArray[np.float32]) -> Find:
    """A plain search of every row: the reference for any other."""

    def find(query_QD: NDArray[np.float32], fetch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        score_QC = np.empty((len(query_QD), 0), np.float32)
        place_QC = np.empty((len(query_QD), 0), np.int64)
        for place_B in _blocks(np.arange(len(vectors_MD)), ROWS_AT_ONCE):
            score_QB = query_QD @ np.asarray(vectors_MD[place_B], np.float32).T
            score_QC = np.concatenate([score_QC, score_QB], axis=1)
            place_QC = np.concatenate([place_QC, np.broadcast_to(place_B, score_QB.shape)], axis=1)
            order_QC = np.argsort(-score_QC, axis=1, kind="stable")[:, :fetch]
            score_QC = np.take_along_axis(score_QC, order_QC, axis=1)
            place_QC = np.take_along_axis(place_QC, order_QC, axis=1)
        return score_QC, place_QC

    return find


def _blocks(values: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
