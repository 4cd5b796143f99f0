"""What the detectors found of one store part, put together: one score each for every pair.

Dimension key: N pairs of a part; 2 by caption, and by picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.limits import Laps
from roclip_sanitize.records import Reason
from roclip_sanitize.runfiles import Marker
from roclip_sanitize.scan import repetition
from roclip_sanitize.scan.agreement import NEUTRAL, suspicion
from roclip_sanitize.scan.collisions import Collisions, count_collisions
from roclip_sanitize.scan.columns import Columns, read_sparse
from roclip_sanitize.scan.cross_judged import read_judged, read_suspicion, share_trusted_less
from roclip_sanitize.scan.kin import excess
from roclip_sanitize.scan.parts import Places, rows_of
from roclip_sanitize.scan.settings import ScanSettings
from roclip_sanitize.scan.traced import Traced
from roclip_sanitize.scan.verdicts import Company
from roclip_sanitize.scan.word_lift import MismatchedWords
from roclip_sanitize.storage import atomic_file, here
from roclip_sanitize.store import StorePart

WEIGHED = {
    "cross_prediction": Reason.PICTURE_AND_CAPTION_DISAGREE,
    "agreement": Reason.NEIGHBOURS_DISAGREE,
    "repetition": Reason.CAPTION_REPEATED,
}  # detectors that share the budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One part's scores.

    Attributes:
        agreement_N: float32, see agreement.suspicion(); NaN where there is none.
        repetition_N: float32, see repetition.suspicion(); NaN where nobody looked.
        cross_prediction_N: float32, see cross_judged.suspicion(); NaN where there is none.
        rank_N2: float32, by caption and by picture, as there.
        lift_N: float32, see word_lift.py; 1 where nobody looked.
        trace_N: float32, see traces.py; 0 where nobody looked.
        trace_word_N: int64, the number of the word whose trace it is; -1 for none.
        kin_N: float32, see kin.py; 0 where nobody looked.
        collisions: counts, zeros where nobody looked.
    """

    agreement_N: NDArray[np.float32]
    repetition_N: NDArray[np.float32]
    cross_prediction_N: NDArray[np.float32]
    rank_N2: NDArray[np.float32]
    lift_N: NDArray[np.float32]
    trace_N: NDArray[np.float32]
    trace_word_N: NDArray[np.int64]
    kin_N: NDArray[np.float32]
    collisions: Collisions

    @property
    def weighed(self) -> dict[Reason, NDArray[np.float32]]:
        """The suspicion behind each reason that a budget limits."""
        return {
            WEIGHED["cross_prediction"]: self.cross_prediction_N,
            WEIGHED["agreement"]: self.agreement_N,
            WEIGHED["repetition"]: self.repetition_N,
        }

    def company(self, *, mismatched: float) -> Company:
        """What each pair shares with others that do not match, given how many do not belong together."""
        return Company(lift_N=self.lift_N, trace_N=self.trace_N, kin_N=self.kin_N, mismatched=mismatched)

    def write(self, path: Path) -> None:
        """Write the scores, whole or not at all."""
        with atomic_file(path) as file:
            np.savez(
                file,
                agreement=self.agreement_N,
                repetition=self.repetition_N,
                cross_prediction=self.cross_prediction_N,
                rank=self.rank_N2,
                lift=self.lift_N,
                trace=self.trace_N,
                trace_word=self.trace_word_N,
                kin=self.kin_N,
                captions_of_picture=self.collisions.captions_of_picture_N,
                pictures_of_caption=self.collisions.pictures_of_caption_N,
            )

    @classmethod
    def read(cls, path: Path) -> Scores:
        """The inverse of write()."""
        with np.load(here(path)) as arrays:
            return cls(
                agreement_N=arrays["agreement"],
                repetition_N=arrays["repetition"],
                cross_prediction_N=arrays["cross_prediction"],
                rank_N2=arrays["rank"],
                lift_N=arrays["lift"],
                trace_N=arrays["trace"],
                trace_word_N=arrays["trace_word"],
                kin_N=arrays["kin"],
                collisions=Collisions(
                    captions_of_picture_N=arrays["captions_of_picture"],
                    pictures_of_caption_N=arrays["pictures_of_caption"],
                ),
            )


def shares_of_kin(places: Places, kin_NK: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What kin.excess() asks about rows: (N, K) each, NaN and False where a row is -1."""
    if not kin_NK.shape[1]:
        return np.empty(kin_NK.shape, np.float32), np.empty(kin_NK.shape, np.bool_)
    suspicion_N = read_suspicion(places)
    suspicion_NK = np.where(kin_NK >= 0, suspicion_N[np.maximum(kin_NK, 0)], np.float32(np.nan))
    itself = np.float32(1 / max(1, len(suspicion_N)))  # matches no better than itself
    return np.minimum(share_trusted_less(suspicion_NK) + itself, 1), suspicion_NK > NEUTRAL


class ScoreWorker:
    """Scores parts with the chosen detectors."""

    def __init__(self, places: Places, settings: ScanSettings) -> None:
        self._places, self._settings = places, settings
        self._detectors = detectors = settings.detectors
        self._columns = Columns(places.columns)
        judged = "cross_prediction" in detectors
        self._words = MismatchedWords.read(places.mismatched_words) if judged else None
        self._traced = Traced.read(places) if "traces" in detectors else Traced.nothing()
        self._weight_W = np.load(here(places.word_weights)) if "agreement" in detectors else None

    def __call__(self, part: StorePart) -> Marker:
        """Score one part."""
        laps, path = Laps(), self._places.scores(part.name)
        cross_prediction_N, rank_N2 = self._cross_prediction(part)
        trace_N, trace_word_N = self._traced.of_part(part)
        Scores(
            agreement_N=self._agreement(part),
            repetition_N=self._repetition(part),
            cross_prediction_N=cross_prediction_N,
            rank_N2=rank_N2,
            lift_N=self._lift(part, rank_N2),
            trace_N=trace_N,
            trace_word_N=trace_word_N,
            kin_N=self._kin(part),
            collisions=self._collisions(part),
        ).write(path)
        laps.lap("score")
        return self._places.commit(f"scores_{part.name}", path, rows=part.rows, laps=laps)

    def _lift(self, part: StorePart, rank_N2: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._words is None:
            return np.ones(part.rows, np.float32)
        return self._words.lifts(self._columns.words(rows_of(part)), rank_N2, self._columns.word_counts_W)

    def _agreement(self, part: StorePart) -> NDArray[np.float32]:
        if self._weight_W is None:
            return np.full(part.rows, np.nan, np.float32)
        return suspicion(read_sparse(self._places.evidence(part.name)), self._weight_W)

    def _repetition(self, part: StorePart) -> NDArray[np.float32]:
        if "repetition" not in self._detectors:
            return np.full(part.rows, np.nan, np.float32)
        crowd_N = repetition.crowd(
            rows_of(part), self._places.rows("neighbours", part), self._columns.caption_N
        )
        return repetition.suspicion(crowd_N, least=self._settings.pictures_per_caption)

    def _cross_prediction(self, part: StorePart) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if "cross_prediction" not in self._detectors:
            return np.full(part.rows, np.nan, np.float32), np.full((part.rows, 2), np.nan, np.float32)
        return read_judged(self._places, part, second=self._settings.second_look)

    def _kin(self, part: StorePart) -> NDArray[np.float32]:
        if "kin" not in self._detectors:
            return np.zeros(part.rows, np.float32)
        return excess(*shares_of_kin(self._places, self._places.rows("kin", part)))

    def _collisions(self, part: StorePart) -> Collisions:
        if "collisions" not in self._detectors:
            return Collisions.none(part.rows)
        return count_collisions(
            rows_of(part),
            self._places.rows("copies", part),
            picture=self._columns.picture_N,
            caption=self._columns.caption_N,
            captions_of=self._columns.captions_of,
        )
