"""Traces over a store: what suspects of a word have in common, round by round, until nobody joins them.

Each round, of seeds first and then of growth, is

    suspects.npz     of each word, who is asked about
    SumWorker        of each lot of parts: weighted sums of the suspects' pictures, by word
    LikenessWorker   of each lot: how much every picture that comes with such a word is like theirs
    judgement        all lots → traces, and whom the next round suspects

traces.py says what is computed, and why. Pictures are told as the first look of cross prediction tells them
(halves.py), along directions in which all differ alike; once more at the same length each; and by their
textures, where a scan has some. Whoever carries a trace of any of these carries one.

What each step leaves, trace_files.py says.

Dimension key: M pairs that use a word, F suspects, T words, U uses of a word by a pair, P directions, N pairs
of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.array_files import load_arrays, save_array, save_arrays
from roclip_sanitize.scan.columns import Columns
from roclip_sanitize.scan.cross_files import Files, Lot, lots_of, one_thread
from roclip_sanitize.scan.cross_judged import read_judged
from roclip_sanitize.scan.cross_rounds import tell_halves
from roclip_sanitize.scan.looks import BLOCK_ROWS, TEXTURES, looks_at, texture_look
from roclip_sanitize.scan.parts import Places, run_missing
from roclip_sanitize.scan.suspects import Rows, Suspects
from roclip_sanitize.scan.trace_files import TraceFiles
from roclip_sanitize.scan.traced import Compared, Traced, grow, refine, single_out
from roclip_sanitize.scan.traces import even, likeness, likeness_to_all, sums_of, weight_of
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.storage import here, remove
from roclip_sanitize.store import EmbeddingStore, StorePart

REFINEMENTS = 4  # of seeds
MOST_ROUNDS = 8  # of growth
FIRST = "seed_0"  # round: that of all pairs with a rank below 1/2, weighed
EVERYBODY = 2_000  # rows, some more where they cannot be dealt out evenly


def find_traces(
    store: EmbeddingStore,
    places: Places,
    executor: Executor,
    *,
    second: Sequence[Path] = (),
    textures: Path | None = None,
) -> None:
    """Find traces in a store, or go on with it; see Traced.read(). Cross prediction is done already.

    Args:
        store: whose pairs.
        places: of the scan.
        executor: where the workers run.
        second: stores of the same pairs by young models, as cross prediction had them.
        textures: store of their textures, in which traces are looked for, too.

    Memory: of the driver 16 bytes for each pair with a rank below 1/2, and 48 for each use of a word that
    these use often; of a worker half of the latter, one part's pictures in float16, and a block of them with
    6 kB each.
    """
    look = looks_at(store.path)[0]
    first = _Rounds(store, TraceFiles(places, look), executor)
    first.once("weights", lambda: _write_weights(store, places, second))
    if first.done("traced"):
        return
    told = [first.files, TraceFiles(places, look, even=True)]
    if textures:
        told.append(TraceFiles(places, texture_look(textures)))
        tell_halves(Files(places=places, look=told[-1].look), store, executor)
    found = Traced.nothing()
    for rounds in (_Rounds(store, files, executor) for files in told):
        found = found.joined(_grown(_seeds(rounds), rounds))
    first.once("traced", lambda: [found.write(Traced.file(places))])


class _Pictures:
    """Pairs' pictures, and which of a round's words they come with."""

    def __init__(self, files: TraceFiles, name: str) -> None:
        self._files, self._even = Files(places=files.places, look=files.look), files.even
        self._columns = Columns(files.places.columns)
        self.suspects = Suspects.load(files.suspects(name))

    def uses(self, row_M: Rows) -> Any:
        """Which of the words some rows' captions use: sparse (M, T) of ones."""
        return self._columns.words(row_M)[:, self.suspects.word_T]

    def rows(self, part: StorePart, place_M: Rows) -> Iterator[tuple[Rows, NDArray[np.float64]]]:
        """Some of a part's rows, in one block or more: which, and their pictures (M, P)."""
        with np.load(here(self._files.halves(part.name))) as told:
            picture_NP = told["picture"]
        for start in range(0, max(1, len(place_M)), BLOCK_ROWS):
            block_M = place_M[start : start + BLOCK_ROWS]
            row_MP = picture_NP[block_M].astype(np.float64)
            yield block_M, even(row_MP) if self._even else row_MP


class SumWorker:
    """Sums lots' suspects' pictures, for one round."""

    def __init__(self, files: TraceFiles, name: str) -> None:
        self._files, self._name = files, name
        self._pictures = _Pictures(files, name)

    def __call__(self, lot: Lot) -> Marker:
        """Sum one lot."""
        laps = Laps()
        sum_TP = np.sum([self._summed(part) for part in lot.parts], axis=0)
        path = save_array(self._files.sums(self._name, lot.name), sum_TP)
        return self._files.commit(f"{self._name}_sums_{lot.name}", path, laps=laps)

    def _summed(self, part: StorePart) -> NDArray[np.float64]:
        weight_NT = self._pictures.suspects.of_part(part)
        blocks = self._pictures.rows(part, np.flatnonzero(np.diff(weight_NT.indptr)))
        sum_TP: NDArray[np.float64] = np.sum(
            [sums_of(weight_NT[rows], row_FP) for rows, row_FP in blocks], axis=0
        )
        return sum_TP


class LikenessWorker:
    """Compares lots' pictures with the suspects', for one round; in the first, every n-th with all words'."""

    def __init__(self, files: TraceFiles, name: str, lots: Sequence[Lot]) -> None:
        self._files, self._name = files, name
        self._step = max(1, sum(part.rows for lot in lots for part in lot.parts) // EVERYBODY)
        self._pictures = _Pictures(files, name)
        self._weight_T = self._pictures.suspects.weight_T
        self._sum_TP = np.sum([np.load(here(files.sums(name, lot.name))) for lot in lots], axis=0)

    def __call__(self, lot: Lot) -> Marker:
        """Compare one lot."""
        laps = Laps()
        row, place, like = zip(*map(self._compared, lot.parts), strict=True)
        path = save_arrays(
            self._files.likeness(self._name, lot.name),
            row=np.concatenate(row),
            place=np.concatenate(place),
            likeness=np.concatenate(like),
            everybody=np.concatenate([self._everybody(part) for part in lot.parts]),
        )
        return self._files.commit(f"{self._name}_likeness_{lot.name}", path, laps=laps)

    def _compared(self, part: StorePart) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Of each use of a word, in rows' order: the row, the word's place, the likeness."""
        uses_NT = self._pictures.uses(np.arange(part.start, part.start + part.rows))
        weight_NT = self._pictures.suspects.of_part(part)
        like_U, place_M = list[NDArray[np.float64]](), np.flatnonzero(np.diff(uses_NT.indptr))
        with one_thread():
            for place_B, row_BP in self._pictures.rows(part, place_M):
                uses_BT, weight_BT = uses_NT[place_B], weight_NT[place_B]
                like_U.append(likeness(uses_BT, row_BP, weight_BT, self._sum_TP, self._weight_T))
        row_U = np.repeat(part.start + place_M, np.diff(uses_NT.indptr)[place_M])
        return row_U, uses_NT[place_M].indices, np.concatenate(like_U)

    def _everybody(self, part: StorePart) -> NDArray[np.float64]:
        """How much every n-th row is like the suspects of each word: (R, T).

        Nobody but in the first round, which alone asks; and not at the same length, where too many honest
        pairs stand out of everybody (benchmarks/LOG.md).
        """
        if self._name != FIRST or self._files.even:
            return np.zeros((0, len(self._weight_T)))
        place_R = np.flatnonzero(np.arange(part.start, part.start + part.rows) % self._step == 0)
        weight_NT = self._pictures.suspects.of_part(part)
        with one_thread():
            found = [
                likeness_to_all(row_BP, weight_NT[place_B], self._sum_TP, self._weight_T)
                for place_B, row_BP in self._pictures.rows(part, place_R)
            ]
        return np.concatenate(found)


class _Rounds:
    """Does what is not done yet."""

    def __init__(self, store: EmbeddingStore, files: TraceFiles, executor: Executor) -> None:
        self.files, self._lots, self._executor = files, lots_of(store.parts), executor
        self._work = StageFolder(files.places.work)

    def done(self, name: str) -> bool:
        """Whether something was written."""
        return self._work.marker(self.files.marked(name)) is not None

    def once(self, name: str, write: Callable[[], Sequence[Path]]) -> None:
        """Write files, unless they are there."""
        if not self.done(name):
            laps = Laps()
            self.files.commit(name, *write(), laps=laps, workers=self._executor.size)

    def suspect(self, name: str, row_F: Rows, weight_F: NDArray[np.float64]) -> None:
        """Whom a round suspects: of each word that some rows use often, these."""

        def write() -> list[Path]:
            places = self.files.places
            ranked = MismatchedWords.read(places.mismatched_words)
            who = Suspects.who_use(Columns(places.columns), row_F, weight_F, pairs=ranked.pairs)
            return [who.write(self.files.suspects(name))]

        self.once(f"{name}_suspects", write)

    def run(self, name: str, judge: Callable[[Iterable[Compared]], Sequence[Path]]) -> None:
        """Compare all pairs with a round's suspects, and have it judged: ``judge`` writes what follows."""
        if not self.done(f"{name}_judged"):
            marked = self.files.marked(name)
            summing = partial(SumWorker, self.files, name)
            run_missing(summing, self._lots, self._work, f"{marked}_sums_", self._executor)
            comparing = partial(LikenessWorker, self.files, name, self._lots)
            run_missing(comparing, self._lots, self._work, f"{marked}_likeness_", self._executor)
            self.once(f"{name}_judged", lambda: judge(self._compared(name)))
        for lot in self._lots:  # large, and of no more use
            remove(self.files.sums(name, lot.name))
            remove(self.files.likeness(name, lot.name))

    def _compared(self, name: str) -> Iterator[Compared]:
        """All lots' likenesses, word by word."""
        suspects = Suspects.load(self.files.suspects(name))
        told = [load_arrays(self.files.likeness(name, lot.name)) for lot in self._lots]
        row_U, place_U, like_U, like_RT = (
            np.concatenate([one[each] for one in told]) for each in ("row", "place", "likeness", "everybody")
        )
        for place, word in enumerate(suspects.word_T.tolist()):
            mine = place_U == place
            suspect_M = np.isin(row_U[mine], suspects.of_word(place))
            uneven = self.files.look.name == TEXTURES
            yield Compared(word, row_U[mine], like_U[mine], suspect_M, uneven, like_RT[:, place])


def _seeds(rounds: _Rounds) -> Traced:
    """The traces that ranks below 1/2 lead to."""
    files, told = rounds.files, load_arrays(rounds.files.weights)
    rounds.suspect(FIRST, told["row"], told["weight"])
    for number in range(1 + REFINEMENTS):
        suspects = Suspects.load(files.suspects(f"seed_{number}"))
        if not len(suspects.word_T):
            return Traced.nothing()
        rounds.run(f"seed_{number}", partial(_write_refined, files, number, told["row"]))
        if number and suspects.same(Suspects.load(files.suspects(f"seed_{number + 1}"))):
            break
    return Traced.load(files.traced(f"seed_{number}"))


def _grown(known: Traced, rounds: _Rounds) -> Traced:
    """Traces of all words that those use who carry one."""
    files = rounds.files
    for number in range(MOST_ROUNDS if len(known.found_F) else 0):
        name, found_F = f"growth_{number}", known.found_F
        rounds.suspect(name, found_F, np.ones(len(found_F)))
        if not len(Suspects.load(files.suspects(name)).word_T):
            break
        rounds.run(name, partial(_write_grown, files, name, known))
        known = Traced.load(files.traced(name))
        if np.array_equal(known.found_F, found_F):
            break
    return known


def _write_weights(store: EmbeddingStore, places: Places, second: Sequence[Path]) -> list[Path]:
    weight_N = np.concatenate([np.zeros(0), *(_weights(places, part, second) for part in store.parts)])
    row_F = np.flatnonzero(weight_N)
    files = TraceFiles(places, looks_at(store.path)[0])
    return [save_arrays(files.weights, row=row_F, weight=weight_N[row_F])]


def _weights(places: Places, part: StorePart, second: Sequence[Path]) -> NDArray[np.float64]:
    """How odd the first look, or all together, find a part's pairs: (N,), the larger of the two.

    Where poisons are half of what goes by a word, young CLIPs learn that they belong to it: then thumbnails
    and words alone tell.
    """
    looks = [read_judged(places, part, second=those)[1] for those in {(), tuple(second)}]
    weight_N: NDArray[np.float64] = np.max([weight_of(rank_N2.min(axis=1)) for rank_N2 in looks], axis=0)
    return weight_N


def _write_refined(
    files: TraceFiles, number: int, suspected_F: Rows, compared: Iterable[Compared]
) -> list[Path]:
    traced, members = refine(compared, suspected_F) if number else (Traced.nothing(), single_out(compared))
    following = files.suspects(f"seed_{number + 1}")
    return [traced.write(files.traced(f"seed_{number}")), Suspects.members(members).write(following)]


def _write_grown(files: TraceFiles, name: str, before: Traced, compared: Iterable[Compared]) -> list[Path]:
    return [grow(compared, before=before).write(files.traced(name))]
