"""Detector: can a pair's picture be told from its caption, and its caption from its picture?

roclip_sanitize/cross_prediction.py says how, and why so; this is the same over a store, part by part. Each
of its rounds is two passes over the parts, and two small steps over the whole:

    SquareWorker       of each lot: sums of products of weighted rows, by folding and fold
    learn()            all lots' sums → regressions in both directions
    RankWorker         of each part: how many other captions tell less of a picture than its own does,
                       and how many other pictures less of a caption
    weigh()            all ranks → weights of the next round

What ranks mean, and what becomes of the last ones, cross_judged.py says.

Dimension key: N pairs of a part, or of the store; M of a block; P directions of pictures, E of captions;
K foldings, F folds, R references.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import (
    FOLDINGS,
    FOLDS,
    fits,
    own_fits,
    ridge,
    share_worse_ties_half,
    tie_broken,
    weights,
)
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.array_files import load_arrays, save_array, save_arrays
from roclip_sanitize.scan.columns import Columns
from roclip_sanitize.scan.cross_files import (
    Files,
    Lot,
    fold_of,
    lots_of,
    one_thread,
    packed,
    strangers,
    unpacked,
)
from roclip_sanitize.scan.cross_judged import came_to_an_end, suspect, trust_after
from roclip_sanitize.scan.halves import (
    Halves,
    HalvesWorker,
    SumWorker,
    Vectors,
    choose_references,
    find_directions,
    read_directions,
)
from roclip_sanitize.scan.looks import looks_at
from roclip_sanitize.scan.parts import Places, run_missing
from roclip_sanitize.storage import here, remove
from roclip_sanitize.store import EmbeddingStore, StorePart


def cross_predict(
    store: EmbeddingStore, places: Places, executor: Executor, *, second: Sequence[Path] = ()
) -> None:
    """Judge all pairs of a store, or go on with it; see cross_judged.py. The columns are there already.

    Args:
        store: whose pairs.
        places: of the scan.
        executor: where the workers run.
        second: stores of the same pairs by young models, to look at them again; see looks.py.

    Memory: of the driver about 80 bytes a pair, and 450 MB; of a worker blocks, and one part's halves.
    """
    looks = [Files(places=places, look=look) for look in looks_at(store.path, second)]
    for files in looks:
        _look(files, looks[0], store, executor)
    if StageFolder(places.work).marker("cross_suspicion") is None:
        laps = Laps()
        files = looks[0]
        files.commit("suspicion", suspect(looks, store.parts), laps=laps, workers=executor.size)


class SquareWorker:
    """Sums products of lots' rows, for one round."""

    def __init__(self, files: Files, number: int) -> None:
        self._files, self._number = files, number
        self._halves = Halves(files, files.look.rounds[number])
        self._picture_N = Columns(files.places.columns).picture_N
        self._weight_N = np.load(here(self._files.weights(number)), mmap_mode="r")

    def __call__(self, lot: Lot) -> Marker:
        """Sum one lot."""
        laps, width = Laps(), sum(self._halves.widths)
        square_KFWW = np.zeros((FOLDINGS, FOLDS, width, width))
        with one_thread():
            for part in lot.parts:
                for block, picture_MP, caption_ME in self._halves.blocks(part):
                    row = slice(part.start + block.start, part.start + block.stop)
                    self._add(square_KFWW, np.hstack([caption_ME, picture_MP]), row)
        path = save_array(self._files.squares(self._number, lot.name), packed(square_KFWW))
        return self._files.commit(f"{self._number}_squares_{lot.name}", path, laps=laps)

    def _add(self, square_KFWW: NDArray[np.float64], both_MW: Vectors, row: slice) -> None:
        weight_M = self._weight_N[row]
        for folding in range(FOLDINGS):
            fold_M = fold_of(self._picture_N[row], folding)
            for fold in range(FOLDS):
                used = np.flatnonzero((fold_M == fold) & (weight_M > 0))
                rooted = both_MW[used] * np.sqrt(weight_M[used])[:, None]
                square_KFWW[folding, fold] += rooted.T @ rooted


def learn(files: Files, number: int, lots: Sequence[Lot], *, pictures: int, captions: int) -> Path:
    """All lots' sums → regressions: (K, F, E, P) of pictures by captions, (K, F, P, E) of the reverse.

    What judges a fold was learnt from the others.
    """
    width = pictures + captions
    half_KFU = np.zeros((FOLDINGS, FOLDS, width * (width + 1) // 2))
    for lot in lots:
        half_KFU += np.load(here(files.squares(number, lot.name)))
    square_KFWW = unpacked(half_KFU)
    to_picture = np.empty((FOLDINGS, FOLDS, captions, pictures), np.float32)
    to_caption = np.empty((FOLDINGS, FOLDS, pictures, captions), np.float32)
    said, seen = slice(captions), slice(captions, None)
    for folding in range(FOLDINGS):
        for fold in range(FOLDS):
            square_WW = square_KFWW[folding].sum(axis=0) - square_KFWW[folding, fold]
            with one_thread():
                to_picture[folding, fold] = ridge(square_WW[said, said], square_WW[said, seen])
                to_caption[folding, fold] = ridge(square_WW[seen, seen], square_WW[seen, said])
    return save_arrays(files.learnt(number), to_picture=to_picture, to_caption=to_caption)


class _Judged(NamedTuple):
    """Some pairs' halves: pictures (M, P), captions (M, E)."""

    picture_MP: Vectors
    caption_ME: Vectors


class RankWorker:
    """Ranks parts' pairs, for one round."""

    def __init__(self, files: Files, number: int) -> None:
        self._files, self._number = files, number
        self._halves = Halves(files, files.look.rounds[number])
        self._picture_N = Columns(files.places.columns).picture_N
        self._learnt = load_arrays(self._files.learnt(number))
        self._references = {
            (folding, fold): self._predicted_references(folding, fold)
            for folding in range(FOLDINGS)
            for fold in range(FOLDS)
        }

    def __call__(self, part: StorePart) -> Marker:
        """Rank one part; in the last round its strangers, too."""
        laps, last = Laps(), self._number == self._files.look.last
        rank_N2, order_N2, stranger_N2 = np.zeros((3, part.rows, 2))
        known_N = load_arrays(self._files.halves(part.name))["known"]
        with one_thread():
            for block, picture_MP, caption_ME in self._halves.blocks(part):
                row = slice(part.start + block.start, part.start + block.stop)
                other_M = strangers(self._picture_N[row])
                for folding in range(FOLDINGS):
                    fold_M = fold_of(self._picture_N[row], folding)
                    for fold in range(FOLDS):
                        judged = np.flatnonzero(fold_M == fold)
                        told = _Judged(picture_MP[judged], caption_ME[judged])
                        met = np.searchsorted(judged, other_M[judged]) if last else None
                        found = self._ranks(told, folding, fold, met)
                        for direction, (rank_M, own_M, met_M) in enumerate(found):
                            rank_N2[block][judged, direction] += rank_M / FOLDINGS
                            order_N2[block][judged, direction] += tie_broken(rank_M, own_M)
                            stranger_N2[block][judged, direction] += met_M / FOLDINGS
                none_M = other_M == np.arange(len(other_M))  # they met themselves
                stranger_N2[block][none_M | ~known_N[block] | ~known_N[block][other_M]] = np.nan
        ranks = {"rank": rank_N2, "order": order_N2, **({"strangers": stranger_N2} if last else {})}
        path = save_arrays(
            self._files.ranks(self._number, part.name),
            **{name: each_N2.astype(np.float32) for name, each_N2 in ranks.items()},
        )
        return self._files.commit(f"{self._number}_ranks_{part.name}", path, laps=laps)

    def _ranks(
        self, told: _Judged, folding: int, fold: int, met: NDArray[np.int64] | None
    ) -> list[tuple[NDArray[np.float64], Vectors, NDArray[np.float64]]]:
        """By caption and by picture: ranks, how well the own prediction fits, and ranks of strangers.

        Args:
            told: the pairs.
            folding: how they were folded.
            fold: theirs.
            met: whose caption each picture gets as a stranger; None if nobody asks, and zeros are told.
        """
        found, mine = [], np.arange(len(told.picture_MP))
        for direction, (told_MD, asked_ME) in enumerate((told, told[::-1])):
            predicted_MD = asked_ME @ self._learnt_by(folding, fold)[direction]
            own_M, other_MR = fits(told_MD, predicted_MD, self._references[folding, fold][direction])
            met_M = np.zeros(len(mine))
            if met is not None:  # the picture is the row's own, and the caption that of the one it met
                is_told, predicts = (mine, met) if direction == 0 else (met, mine)
                met_own_M = own_fits(told_MD[is_told], predicted_MD[predicts])
                met_M = share_worse_ties_half(met_own_M, other_MR[is_told])
            found.append((share_worse_ties_half(own_M, other_MR), own_M, met_M))
        return found

    def _learnt_by(self, folding: int, fold: int) -> tuple[Vectors, Vectors]:
        """Regressions to pictures (E, P) and to captions (P, E)."""
        return self._learnt["to_picture"][folding, fold], self._learnt["to_caption"][folding, fold]

    def _predicted_references(self, folding: int, fold: int) -> tuple[Vectors, Vectors]:
        """Pictures (R, P) and captions (R, E) as the other halves of one fold's references predict them."""
        picture_RP, caption_RE = self._halves.references(folding, fold)
        learnt_EP, learnt_PE = self._learnt_by(folding, fold)
        with one_thread():
            return caption_RE @ learnt_EP, picture_RP @ learnt_PE


def weigh(files: Files, number: int, parts: Sequence[StorePart], *, first: Files) -> Path:
    """Weights of a round, from the ranks of the one before.

    Before the first of all there are none: every vote counts. Before the first of the second look, those
    that the first look ended with are taken, if it could look.
    """
    vote_N = np.load(here(files.votes))
    if number:
        trust_N = trust_after(files, number - 1, parts)
    elif files != first and came_to_an_end([first]):
        trust_N = trust_after(first, first.look.last, parts)
    else:
        trust_N = np.ones(len(vote_N), np.float32)
    weight_N = weights(trust_N, vote_N, left_out=files.look.rounds[number].left_out)
    return save_array(files.weights(number), weight_N.astype(np.float32))


def _look(files: Files, first: Files, store: EmbeddingStore, executor: Executor) -> None:
    """All rounds of one look."""
    work, lots = StageFolder(files.places.work), lots_of(store.parts)
    tell_halves(files, store, executor)
    if work.marker(f"{files.marked}references") is None:
        laps = Laps()
        chosen = choose_references(files, store.parts)
        files.commit("references", *chosen, laps=laps, workers=executor.size)
    if not all(directions.width for directions in read_directions(files)):
        return
    for number in range(len(files.look.rounds)):
        _round(number, files, first, store, lots, executor)


def tell_halves(files: Files, store: EmbeddingStore, executor: Executor) -> None:
    """A look's rows along its directions, part by part: what its rounds, and traces, read."""
    work, lots = StageFolder(files.places.work), lots_of(store.parts)
    run_missing(partial(SumWorker, files), lots, work, f"{files.marked}sums_", executor)
    if work.marker(f"{files.marked}directions") is None:
        laps = Laps()
        path = find_directions(files, lots, rows=store.rows)
        files.commit("directions", path, laps=laps, workers=executor.size)
    run_missing(partial(HalvesWorker, files), store.parts, work, f"{files.marked}halves_", executor)


def _round(
    number: int, files: Files, first: Files, store: EmbeddingStore, lots: Sequence[Lot], executor: Executor
) -> None:
    work, marked = StageFolder(files.places.work), f"{files.marked}{number}_"
    if work.marker(f"{marked}weights") is None:
        laps = Laps()
        path = weigh(files, number, store.parts, first=first)
        files.commit(f"{number}_weights", path, laps=laps, workers=executor.size)
    if work.marker(f"{marked}learnt") is None:
        squaring = partial(SquareWorker, files, number)
        run_missing(squaring, lots, work, f"{marked}squares_", executor)
        laps = Laps()
        pictures, captions = (directions.width for directions in read_directions(files))
        path = learn(files, number, lots, pictures=pictures, captions=captions)
        files.commit(f"{number}_learnt", path, laps=laps, workers=executor.size)
    for lot in lots:  # large, and of no more use
        remove(files.squares(number, lot.name))
    ranking = partial(RankWorker, files, number)
    run_missing(ranking, store.parts, work, f"{marked}ranks_", executor)
