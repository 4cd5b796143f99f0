"""Who carries a trace, and who is suspected next: a round's judgement, and what a scan keeps of all rounds.

    work/traces/traced.npz   traces by word, and the rows that have evidence of one, with the word

Dimension key: M pairs with a word, F found pairs, R traced rows, C carriers, N pairs of a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.array_files import load_arrays, save_arrays
from roclip_sanitize.scan.columns import Columns, word_of
from roclip_sanitize.scan.parts import Places
from roclip_sanitize.scan.traces import JOINS, LEAST_CARRIERS, Trace, enough, stand_out
from roclip_sanitize.storage import exists
from roclip_sanitize.store import StorePart

Rows = NDArray[np.int64]


class Evidence(NamedTuple):
    """What all pairs that use a word have of its trace: rows (M,) int64, evidence (M,) float64."""

    trace: Trace
    row_M: Rows
    evidence_M: NDArray[np.float64]

    @property
    def row_C(self) -> Rows:
        """Rows that carry it."""
        return self.row_M[self.evidence_M >= JOINS]


class Compared(NamedTuple):
    """All pairs that use a word, and which of them were suspects: rows, likeness, both (M,).

    ``uneven`` is Trace.of()'s; ``likeness_R`` that of some pairs of the whole store.
    """

    word: int
    row_M: Rows
    likeness_M: NDArray[np.float64]
    suspect_M: NDArray[np.bool_]
    uneven: bool = False
    likeness_R: NDArray[np.float64] = np.zeros(0)

    def evidence(self) -> Evidence | None:
        """What they have of the word's trace; None where it has none."""
        trace = Trace.of(self.word, self.likeness_M, self.suspect_M, uneven=self.uneven)
        if trace is None:
            return None
        return Evidence(trace, self.row_M, trace.evidence(self.likeness_M, uneven=self.uneven))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """Pairs that have evidence of a trace.

    Attributes:
        row_R: int64, of the store, ascending.
        evidence_R: float32, more than 0, see traces.py.
        word_R: int64, the number of the word whose trace it is.
        traces: of all words that have one, by number.
    """

    row_R: Rows
    evidence_R: NDArray[np.float32]
    word_R: Rows
    traces: tuple[Trace, ...]

    @classmethod
    def nothing(cls) -> Self:
        """Of nobody."""
        none = np.zeros(0, np.int64)
        return cls(row_R=none, evidence_R=np.zeros(0, np.float32), word_R=none, traces=())

    @classmethod
    def of(cls, evidence: Iterable[Evidence], *, before: Self | None = None) -> Self:
        """Some words' evidence, and what was known before, which is not forgotten."""
        known = before or cls.nothing()
        traces = {trace.word: trace for trace in known.traces}
        parts = [(known.row_R, known.evidence_R, known.word_R)]
        for trace, row_M, evidence_M in evidence:
            traces[trace.word] = trace
            parts.append((row_M, evidence_M.astype(np.float32), np.full(len(row_M), trace.word)))
        return cls._largest(traces, *(np.concatenate(each) for each in zip(*parts, strict=True)))

    def joined(self, other: Self) -> Self:
        """With those of the same pairs that were found elsewhere: of each row the larger evidence.

        A word that has a trace in both is told by the one that stands for it better.
        """
        traces = {trace.word: trace for trace in sorted((*self.traces, *other.traces), key=_telling)}
        row_R, evidence_R, word_R = (
            np.concatenate([getattr(each, name) for each in (self, other)])
            for name in ("row_R", "evidence_R", "word_R")
        )
        return self._largest(traces, row_R, evidence_R, word_R)

    @classmethod
    def _largest(
        cls, traces: Mapping[int, Trace], row_R: Rows, evidence_R: NDArray[np.float32], word_R: Rows
    ) -> Self:
        """Of each row its largest evidence, and if several words' are as large, the most telling's."""
        telling_R = np.array([traces[word].telling for word in word_R.tolist()], np.float64)
        most = np.lexsort((word_R, -telling_R, -evidence_R, row_R))
        most = most[evidence_R[most] > 0]
        most = most[np.unique(row_R[most], return_index=True)[1]]
        return cls(
            row_R=row_R[most],
            evidence_R=evidence_R[most],
            word_R=word_R[most],
            traces=tuple(traces[word] for word in sorted(traces)),
        )

    @classmethod
    def read(cls, places: Places) -> Self:
        """Those of a store, after trace_rounds.find_traces(); nothing where nobody looked for them."""
        path = cls.file(places)
        return cls.load(path) if exists(path) else cls.nothing()

    @staticmethod
    def file(places: Places) -> Path:
        """Where they are read."""
        return places.work / "traces" / "traced.npz"

    @classmethod
    def load(cls, path: Path) -> Self:
        """The inverse of write()."""
        told = load_arrays(path)
        traces = tuple(
            Trace(word=int(word), found=int(found), others=int(others), origin=origin, spread=spread, gap=gap)
            for word, found, others, origin, spread, gap in told["traces"].tolist()
        )
        return cls(row_R=told["row"], evidence_R=told["evidence"], word_R=told["word"], traces=traces)

    def write(self, path: Path) -> Path:
        """Write it, whole or not at all."""
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
    def found_F(self) -> Rows:
        """Rows with enough evidence to be found."""
        return self.row_R[self.evidence_R >= JOINS]

    def carriers(self) -> dict[int, int]:
        """Number of a word → how many pairs carry its trace, of those that carry several the most telling."""
        words, counts = np.unique(self.word_R[self.evidence_R >= JOINS], return_counts=True)
        return dict(zip(words.tolist(), counts.tolist(), strict=True))

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

    def of_part(self, part: StorePart) -> tuple[NDArray[np.float32], Rows]:
        """Evidence of each of a part's pairs, 0 for none, and whose trace it is, -1 for none's."""
        evidence_N, word_N = np.zeros(part.rows, np.float32), np.full(part.rows, -1)
        mine = slice(*np.searchsorted(self.row_R, [part.start, part.start + part.rows]).tolist())
        evidence_N[self.row_R[mine] - part.start] = self.evidence_R[mine]
        word_N[self.row_R[mine] - part.start] = self.word_R[mine]
        return evidence_N, word_N


def single_out(compared: Iterable[Compared]) -> Mapping[int, Rows]:
    """The round of weighed suspects → by word whom the next one suspects: rows that stand out."""
    out = {one.word: (one.row_M[stand_out(one.likeness_M, one.likeness_R)], one) for one in compared}
    return {word: row_F for word, (row_F, one) in out.items() if enough(len(row_F), len(one.row_M))}


def refine(compared: Iterable[Compared], suspected_F: Rows) -> tuple[Traced, Mapping[int, Rows]]:
    """A later round of seeds → the traces that many carry, and by word whom the next round suspects.

    Args:
        compared: word by word.
        suspected_F: rows with a rank below 1/2.
    """
    members, carried = dict[int, Rows](), list[Evidence]()
    for one in compared:
        evidence = one.evidence()
        if evidence and enough(len(evidence.row_C), len(one.row_M)):
            members[one.word] = evidence.row_C
            if many(evidence) and np.isin(evidence.row_C, suspected_F).mean() >= 1 / 2:
                carried.append(evidence)
    return Traced.of(carried), members


def grow(compared: Iterable[Compared], *, before: Traced) -> Traced:
    """A round of growth → what is known after it."""
    found = (one.evidence() for one in compared)
    return Traced.of((evidence for evidence in found if evidence and many(evidence)), before=before)


def many(evidence: Evidence) -> bool:
    """Whether enough pairs carry a trace."""
    return len(evidence.row_C) >= LEAST_CARRIERS


def _telling(trace: Trace) -> float:
    return trace.telling
