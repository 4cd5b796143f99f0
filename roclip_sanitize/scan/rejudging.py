"""Verdicts derived again from a finished scan's tables of scores, and from nothing else.

    scores/*.parquet ─▶ rankings ─▶ cut ─▶ verdicts, part by part

The rule is that of verdicts.py; what is checked with it is that the tables on the disk obey it. So that it
holds long after a scan, the raw scores in its work folder are not looked at.

Dimension key: N pairs, of a part or of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.records import Reason, Verdict
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.scan.collisions import Collisions
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.long_tail import Ends, Labels, guard_labels
from roclip_sanitize.scan.parts import LABEL_COLUMN
from roclip_sanitize.scan.scoring import WEIGHED
from roclip_sanitize.scan.verdicts import (
    Company,
    Thresholds,
    candidates,
    collides,
    combined,
    count_carriers,
    find_cut,
    judge,
    ordering,
    percentiles,
)

if TYPE_CHECKING:
    import polars

PERCENTILE = "_percentile"  # ends the column of a score's place among all pairs
COUNTS = ("captions_of_picture", "pictures_of_caption")
ROOM_FOR_TRACES = 10  # layout that has room in its budget for them first
COMPANY = {"word_lift": (4, 1), "trace": (6, 0), "kin": (7, 0)}  # layout that has it first; of all, before


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartScores:
    """One part's scores, as judging takes them."""

    weighed: dict[Reason, NDArray[np.float32]]
    company: Company
    collisions: Collisions


def carriers_of(scan: StageFolder) -> int:
    """Pairs for whose trace a finished scan made room in its budget; older ones did not. Memory: a part."""
    if scan.settings["tables"] < ROOM_FOR_TRACES:
        return 0
    carriers, thresholds = 0, _thresholds(scan)
    for marker in scan.markers():
        table = read_table(table_file(scan.path, "scores", marker.name), columns=["trace", *COUNTS])
        carriers += count_carriers(table["trace"].to_numpy(), collides(_collisions(table), thresholds))
    return carriers


class Rejudged:
    """What a finished scan's scores make of its pairs.

    Attributes:
        ends: where the budget ends.
        allowed: how many pairs it may set aside.

    Memory: 13 bytes of every pair, and one part's scores.
    """

    def __init__(self, scan: StageFolder) -> None:
        settings = scan.settings
        self._scan, self._markers = scan, scan.markers()
        self._thresholds = _thresholds(scan)
        self._reasons = [reason for detector, reason in WEIGHED.items() if detector in settings["detectors"]]
        self._label = settings.get("label", "")
        self._looks = scan.facts.get("looks", 1)  # older scans weighed agreement as after one, however many
        self._mismatched = scan.facts.get("mismatched", 0.0)  # older scans made no difference
        self._rankings = {reason: self._ranking(reason) for reason in self._reasons}
        rows = sum(marker.facts["rows"] for marker in self._markers)
        self.allowed = Strangers.from_json(scan.facts.get("strangers", {})).allowed(
            pairs=rows,
            budget=settings["budget"],
            times=settings.get("times_mismatched", 0.0),
            carriers=carriers_of(scan),
        )
        self.ends = self._find_ends(rows)

    def verdicts(self, marker: Marker) -> list[Verdict]:
        """Of one part's pairs, in its order."""
        scores = self._scores(marker)
        uids, suspicion_N = self._uids(marker), self._suspicion(scores)
        return judge(
            uids,
            self.ends.flagged(suspicion_N, uids, self._labels(marker)),
            scores.weighed,
            scores.collisions,
            thresholds=self._thresholds,
            company=scores.company,
        )

    def derived(self, marker: Marker) -> dict[str, NDArray[np.float32]]:
        """Of one part's scores those that follow from others, by column: (N,) float32 each; NaN for null."""
        scores = self._scores(marker)
        collided_N = collides(scores.collisions, self._thresholds)
        told_N = ordering(
            scores.weighed, self._rankings, collided_N, looks=self._looks, company=scores.company
        )
        places = {
            f"{detector}{PERCENTILE}": percentiles(scores.weighed[reason], self._rankings[reason])
            for detector, reason in WEIGHED.items()
            if reason in self._rankings
        }
        return {"suspicion": told_N.astype(np.float32), **places}

    def _ranking(self, reason: Reason) -> NDArray[np.float32]:
        """All suspicions behind a reason, ascending."""
        parts = [self._scores(marker).weighed[reason] for marker in self._markers]
        suspicion_N = np.concatenate([np.empty(0, np.float32), *parts])
        return np.sort(suspicion_N[~np.isnan(suspicion_N)])

    def _suspicion(self, scores: _PartScores) -> NDArray[np.float64]:
        return combined(scores.weighed, self._rankings, looks=self._looks, company=scores.company)

    def _find_ends(self, rows: int) -> Ends:
        combined_N, collided_N = np.empty(rows), np.empty(rows, np.bool_)
        for block, scores in zip(self._blocks(), map(self._scores, self._markers), strict=True):
            combined_N[block] = self._suspicion(scores)
            collided_N[block] = collides(scores.collisions, self._thresholds)
        candidate_N = candidates(combined_N, collided_N)
        cut = find_cut(combined_N, candidate_N, allowed=self.allowed, uids_of=self._uids_of)
        if not self._label:
            return Ends(cut=cut)
        labels = Labels.joined(self._labels(marker) or () for marker in self._markers)
        times, uids_of = self._scan.settings["times_per_label"], self._uids_of
        return guard_labels(
            labels, combined_N, candidate_N, collided_N, cut=cut, times=times, uids_of=uids_of
        )

    def _labels(self, marker: Marker) -> list[str | None] | None:
        if not self._label:
            return None
        labels: list[str | None] = self._table(marker, (LABEL_COLUMN,))[LABEL_COLUMN].to_list()
        return labels

    def _blocks(self) -> Iterator[slice]:
        """Each part's rows among those of all."""
        start = 0
        for marker in self._markers:
            yield slice(start, start + marker.facts["rows"])
            start += marker.facts["rows"]

    def _uids_of(self, row_M: NDArray[np.int64]) -> Sequence[str]:
        """Names of rows, ascending."""
        found = list[str]()
        for block, marker in zip(self._blocks(), self._markers, strict=True):
            mine = row_M[(row_M >= block.start) & (row_M < block.stop)] - block.start
            if len(mine):
                uids = self._uids(marker)
                found += [uids[row] for row in mine]
        return found

    def _uids(self, marker: Marker) -> list[str]:
        uids: list[str] = self._table(marker, ("uid",))["uid"].to_list()
        return uids

    def _scores(self, marker: Marker) -> _PartScores:
        layout = self._scan.settings["tables"]
        known = [name for name, (since, _) in COMPANY.items() if layout >= since]
        asked = {column: reason for column, reason in WEIGHED.items() if reason in self._reasons}
        table = self._table(marker, (*asked, *COUNTS, *known))
        weighed = {reason: np.full(len(table), np.nan, np.float32) for reason in WEIGHED.values()}
        weighed |= {reason: table[column].fill_null(math.nan).to_numpy() for column, reason in asked.items()}
        lift_N, trace_N, kin_N = (
            table[name].to_numpy() if name in known else np.full(len(table), ordinary, np.float32)
            for name, (_, ordinary) in COMPANY.items()
        )
        company = Company(lift_N=lift_N, trace_N=trace_N, kin_N=kin_N, mismatched=self._mismatched)
        return _PartScores(weighed=weighed, company=company, collisions=_collisions(table))

    def _table(self, marker: Marker, columns: Sequence[str]) -> polars.DataFrame:
        return read_table(table_file(self._scan.path, "scores", marker.name), columns=list(columns))


def _thresholds(scan: StageFolder) -> Thresholds:
    return Thresholds(
        captions_per_picture=scan.settings["captions_per_picture"],
        pictures_per_caption=scan.settings["pictures_per_caption"],
    )


def _collisions(table: polars.DataFrame) -> Collisions:
    captions_N, pictures_N = (table[column].to_numpy() for column in COUNTS)
    return Collisions(captions_of_picture_N=captions_N, pictures_of_caption_N=pictures_N)
