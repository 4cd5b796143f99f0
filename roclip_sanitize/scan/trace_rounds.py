"""Traces over a store: who shares one with pairs that were found, round by round, until nobody joins them.

    choose_words()     found pairs → words that they use often; none is the end
    SumWorker          of each lot of parts: sums of found pictures, by word
    LikenessWorker     of each lot: how much every picture that comes with such a word is like the found ones
    weigh_evidence()   all lots → traces, and each pair's evidence; who has enough of it is found from then on

traces.py says what is computed, and why. Pictures are told as the first look of cross prediction tells them
(halves.py): along directions in which all differ alike.

    traces/found.npz                   rows of the pairs that ranks found
    traces/round_0/words.npz           the words, and how many found pairs use each
    traces/round_0/sums_00000.npy      of one lot
    traces/round_0/likeness_00000.npz  of one lot, pair by pair
    traces/round_0/traced.npz          traces, and the rows that have evidence of one, with the word; one
                                       after the other, each round's holds all that is known

Dimension key: M pairs, F found pairs, T words, U uses of a word by a pair, P directions, R traced rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.executors.base import Executor
from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.array_files import load_arrays, save_array, save_arrays
from roclip_sanitize.scan.columns import WORD_NUMBERS, Columns, word_of
from roclip_sanitize.scan.cross_files import Files, Lot, lots_of, one_thread
from roclip_sanitize.scan.cross_rounds import read_judged
from roclip_sanitize.scan.estimate import is_below
from roclip_sanitize.scan.looks import looks_at
from roclip_sanitize.scan.parts import Places, run_missing
from roclip_sanitize.scan.traces import JOINS, Trace, choose_words, likeness, sums_of
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.storage import exists, here, remove
from roclip_sanitize.store import EmbeddingStore, StorePart

MOST_ROUNDS = 8
STEP = "traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """Pairs that have evidence of a trace.

    Attributes:
        row_R: int64, of the store, ascending.
        evidence_R: float32, more than 0, see traces.py.
        word_R: int64, the number of the word whose trace it is.
        traces: of all words that have one, by number.
    """

    row_R: NDArray[np.int64]
    evidence_R: NDArray[np.float32]
    word_R: NDArray[np.int64]
    traces: tuple[Trace, ...]

    @classmethod
    def nothing(cls) -> Traced:
        """Of nobody."""
        none = np.zeros(0, np.int64)
        return cls(row_R=none, evidence_R=np.zeros(0, np.float32), word_R=none, traces=())

    @classmethod
    def read(cls, places: Places) -> Traced:
        """What the last round knew; nothing where there was none."""
        rounds = 0
        while exists(_Files(places).traced(rounds)):
            rounds += 1
        return cls.of_round(places, rounds - 1) if rounds else cls.nothing()

    @classmethod
    def of_round(cls, places: Places, number: int) -> Traced:
        """What a round knew."""
        told = load_arrays(_Files(places).traced(number))
        traces = tuple(
            Trace(word=int(word), found=int(found), others=int(others), origin=origin, spread=spread, gap=gap)
            for word, found, others, origin, spread, gap in told["traces"].tolist()
        )
        return cls(row_R=told["row"], evidence_R=told["evidence"], word_R=told["word"], traces=traces)

    def write(self, path: Path) -> Path:
        """The inverse of of_round()."""
        named = ("word", "found", "others", "origin", "spread", "gap")
        traces = np.array([[getattr(trace, name) for name in named] for trace in self.traces], np.float64)
        return save_arrays(
            path,
            row=self.row_R,
            evidence=self.evidence_R,
            word=self.word_R,
            traces=traces.reshape(-1, len(named)),
        )

    @property
    def found_F(self) -> NDArray[np.int64]:
        """Rows with enough evidence to be found."""
        return self.row_R[self.evidence_R >= JOINS]

    def told(self, columns: Columns) -> list[dict[str, Any]]:
        """By word, those whose trace most pairs carry first: the word, how many do, and the gap."""
        carried = self.evidence_R >= JOINS
        found = []
        for trace in self.traces:
            row_C = self.row_R[carried & (self.word_R == trace.word)]
            if len(row_C):
                said = word_of(columns.captions(row_C[:1])[0], trace.word)
                found.append({"word": said, "pairs": len(row_C), "gap": round(trace.gap, 2)})
        return sorted(found, key=lambda one: (-one["pairs"], one["word"]))

    def of_part(self, part: StorePart) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Evidence of each of a part's pairs, 0 for none, and whose trace it is, -1 for none's."""
        evidence_N, word_N = np.zeros(part.rows, np.float32), np.full(part.rows, -1)
        mine = _between(self.row_R, part.start, part.start + part.rows)
        evidence_N[self.row_R[mine] - part.start] = self.evidence_R[mine]
        word_N[self.row_R[mine] - part.start] = self.word_R[mine]
        return evidence_N, word_N


class _Files:
    """Where all this lies."""

    def __init__(self, places: Places) -> None:
        self._folder = places.work / "traces"

    @property
    def found(self) -> Path:
        return self._folder / "found.npz"

    def words(self, number: int) -> Path:
        return self._round(number) / "words.npz"

    def sums(self, number: int, name: str) -> Path:
        return self._round(number) / f"sums_{name}.npy"

    def likeness(self, number: int, name: str) -> Path:
        return self._round(number) / f"likeness_{name}.npz"

    def traced(self, number: int) -> Path:
        return self._round(number) / "traced.npz"

    def _round(self, number: int) -> Path:
        return self._folder / f"round_{number}"


class _Pictures:
    """Pairs' pictures, and which of a round's words they come with."""

    def __init__(self, places: Places, number: int) -> None:
        self._cross = Files(places=places, look=looks_at(places.store)[0])
        self._columns = Columns(places.columns)
        told = load_arrays(_Files(places).words(number))
        self.word_T, self.found_T = told["word"], told["found"]
        self._found_F = known_rows(places, number)

    def found_in(self, part: StorePart) -> NDArray[np.int64]:
        """Rows of a part that were found."""
        return self._found_F[_between(self._found_F, part.start, part.start + part.rows)]

    def uses(self, row_M: NDArray[np.int64]) -> Any:
        """Which of the words some rows' captions use: sparse (M, T) of ones."""
        return self._columns.words(row_M)[:, self.word_T]

    def rows(self, part: StorePart, row_M: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pictures of a part's rows: (M, P)."""
        with np.load(here(self._cross.halves(part.name))) as told:
            picture_MP: NDArray[np.float64] = told["picture"][row_M - part.start].astype(np.float64)
        return picture_MP


class SumWorker:
    """Sums lots' found pictures, for one round."""

    def __init__(self, places: Places, number: int) -> None:
        self._places, self._number = places, number
        self._pictures = _Pictures(places, number)

    def __call__(self, lot: Lot) -> Marker:
        """Sum one lot."""
        laps = Laps()
        sums = []
        for part in lot.parts:
            found_F = self._pictures.found_in(part)
            sums.append(sums_of(self._pictures.uses(found_F), self._pictures.rows(part, found_F)))
        path = save_array(_Files(self._places).sums(self._number, lot.name), np.sum(sums, axis=0))
        return _commit(self._places, f"{self._number}_sums_{lot.name}", path, laps=laps)


class LikenessWorker:
    """Compares lots' pictures with the found ones, for one round."""

    def __init__(self, places: Places, number: int, lots: Sequence[Lot]) -> None:
        self._places, self._number = places, number
        self._pictures = _Pictures(places, number)
        files = _Files(places)
        self._sum_TP = np.sum([np.load(here(files.sums(number, lot.name))) for lot in lots], axis=0)

    def __call__(self, lot: Lot) -> Marker:
        """Compare one lot."""
        laps = Laps()
        row, place, like = zip(*map(self._compared, lot.parts), strict=True)
        path = save_arrays(
            _Files(self._places).likeness(self._number, lot.name),
            row=np.concatenate(row),
            word=np.concatenate(place),
            likeness=np.concatenate(like),
        )
        return _commit(self._places, f"{self._number}_likeness_{lot.name}", path, laps=laps)

    def _compared(self, part: StorePart) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Of each use of a word, in rows' order: the row, the word's place, the likeness."""
        row_N = np.arange(part.start, part.start + part.rows)
        uses_NT = self._pictures.uses(row_N)
        used = np.flatnonzero(np.diff(uses_NT.indptr))
        row_M, uses_MT = row_N[used], uses_NT[used]
        found_M = np.isin(row_M, self._pictures.found_in(part))
        with one_thread():
            like_U = likeness(
                uses_MT, self._pictures.rows(part, row_M), found_M, self._sum_TP, self._pictures.found_T
            )
        return np.repeat(row_M, np.diff(uses_MT.indptr)), uses_MT.indices, like_U


def find_traces(
    store: EmbeddingStore, places: Places, executor: Executor, *, second: Sequence[Path] = ()
) -> None:
    """Find traces in a store, or go on with it; see Traced.read(). Cross prediction is done already.

    Args:
        store: whose pairs.
        places: of the scan.
        executor: where the workers run.
        second: stores of the same pairs by young models, as cross prediction had them.

    Memory: of the driver 24 bytes for each use of a word that found pairs use often; of a worker one part's
    pictures with such words, 1.5 kB each.
    """
    work, files, lots = StageFolder(places.work), _Files(places), lots_of(store.parts)
    if work.marker("traces_found") is None:
        laps = Laps()
        path = save_arrays(files.found, row=_below(store, places, second))
        _commit(places, "found", path, laps=laps, workers=executor.size)
    for number in range(MOST_ROUNDS):
        if work.marker(f"traces_{number}_words") is None:
            laps = Laps()
            path = _write_words(places, number)
            _commit(places, f"{number}_words", path, laps=laps, workers=executor.size)
        if not len(load_arrays(files.words(number))["word"]):
            return
        if work.marker(f"traces_{number}_traced") is None:
            run_missing(partial(SumWorker, places, number), lots, work, f"traces_{number}_sums_", executor)
            comparing = partial(LikenessWorker, places, number, lots)
            run_missing(comparing, lots, work, f"traces_{number}_likeness_", executor)
            laps = Laps()
            path = weigh_evidence(places, number, lots).write(files.traced(number))
            _commit(places, f"{number}_traced", path, laps=laps, workers=executor.size)
        for lot in lots:  # large, and of no more use
            remove(files.sums(number, lot.name))
            remove(files.likeness(number, lot.name))
        if np.array_equal(known_rows(places, number), known_rows(places, number + 1)):
            return


def known_rows(places: Places, number: int) -> NDArray[np.int64]:
    """Rows of the pairs that are found before a round, ascending."""
    ranked_F: NDArray[np.int64] = load_arrays(_Files(places).found)["row"]
    return np.union1d(ranked_F, Traced.of_round(places, number - 1).found_F) if number else ranked_F


def weigh_evidence(places: Places, number: int, lots: Sequence[Lot]) -> Traced:
    """All lots' likenesses → traces and evidence; what earlier rounds knew is not forgotten.

    A row has the evidence of one word: the largest, and if several are as large, that of the most telling.
    """
    files = _Files(places)
    words, found_F = load_arrays(files.words(number))["word"], known_rows(places, number)
    told = [load_arrays(files.likeness(number, lot.name)) for lot in lots]
    row_U, place_U, like_U = (
        np.concatenate([one[name] for one in told]) for name in ("row", "word", "likeness")
    )
    before = Traced.of_round(places, number - 1) if number else Traced.nothing()
    traces = {trace.word: trace for trace in before.traces}
    evidence = [(before.row_R, before.evidence_R, before.word_R)]
    for place, word in enumerate(words.tolist()):
        row_M, like_M = row_U[place_U == place], like_U[place_U == place]
        if trace := Trace.of(word, like_M, np.isin(row_M, found_F)):
            traces[word] = trace
            evidence.append((row_M, trace.evidence(like_M).astype(np.float32), np.full(len(row_M), word)))
    row_R, evidence_R, word_R = (np.concatenate(each) for each in zip(*evidence, strict=True))
    telling_R = np.array([traces[word].telling for word in word_R.tolist()], np.float64)
    most = np.lexsort((word_R, -telling_R, -evidence_R, row_R))  # of each row, its largest evidence first
    most = most[evidence_R[most] > 0]
    most = most[np.unique(row_R[most], return_index=True)[1]]
    return Traced(
        row_R=row_R[most],
        evidence_R=evidence_R[most],
        word_R=word_R[most],
        traces=tuple(traces[word] for word in sorted(traces)),
    )


def _below(store: EmbeddingStore, places: Places, second: Sequence[Path]) -> NDArray[np.int64]:
    """Rows of all pairs whose ranks find them."""
    return np.concatenate(
        [
            part.start + np.flatnonzero(is_below(read_judged(places, part, second=second)[1]))
            for part in store.parts
        ]
    )


def _write_words(places: Places, number: int) -> Path:
    columns, ranked = Columns(places.columns), MismatchedWords.read(places.mismatched_words)
    found_F = known_rows(places, number)
    found_W = np.bincount(columns.words(found_F).indices, minlength=WORD_NUMBERS)
    found = MismatchedWords(below_W=found_W, pairs=ranked.pairs, below=len(found_F))
    word_T = choose_words(found, columns.word_counts_W)
    return save_arrays(_Files(places).words(number), word=word_T, found=found_W[word_T])


def _between(row_M: NDArray[np.int64], start: int, stop: int) -> slice:
    return slice(*np.searchsorted(row_M, [start, stop]).tolist())


def _commit(places: Places, name: str, *files: Path, laps: Laps, workers: int = 1) -> Marker:
    laps.lap(STEP)
    return places.commit(f"traces_{name}", *files, rows=0, laps=laps, workers=workers)
