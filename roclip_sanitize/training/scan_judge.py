"""Whom to trust, as scans of the training's shards have it: see judging.py, which makes them.

The trust in a pair is its place among all by cross prediction's suspicion, lowest for the worst. A pair of
which a scan can say nothing, since no other caption has its words, is trusted as little as the worst.

Of the pairs that resemble a doubtful one those that can be trusted are its witnesses; a crowd of poisons
that resemble each other has none.

Pairs of several shards may share a uid, as copies do that bring none, or whatever a stranger calls them.
Scans and training have them in the same order, so that a pair is told by its uid and its turn among those.

Dimension key: N pairs, F doubtful ones, K witnesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import places
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.matching import match_tables
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.results import score_tables
from roclip_sanitize.training.data import TrainingData
from roclip_sanitize.training.judging import FIRST_LOOK, JUDGED_STAGE, SECOND_LOOK
from roclip_sanitize.training.trust import (
    NOBODY,
    WITNESSES,
    Doubts,
    Encode,
    Rows,
    Vectors,
    doubted,
    without_witnesses,
)

if TYPE_CHECKING:
    import polars

    from roclip_sanitize.training.methods.contract import Tables


class ScanJudge:
    """Reads what scans say. See trust.Judge.

    Args:
        data: the training's pairs.
        tables: where the scans are asked for.
    """

    def __init__(self, data: TrainingData, tables: Tables) -> None:
        self._data, self._tables = data, tables
        self._judged = Path()

    def prepare(self, *, again: bool, encode: Encode) -> None:
        """See Judge.prepare: have the shards scanned, and wait for it."""
        look = SECOND_LOOK if again else FIRST_LOOK
        self._tables.ask(look)
        self._judged = self._tables.get(look)

    def first_look(self) -> Vectors:
        """See Judge.first_look."""
        return self._trust()

    def second_look(self, trust_N: Vectors) -> Vectors:
        """See Judge.second_look. What was thought so far is in the scan already, which looked twice."""
        return self._trust()

    def doubts(self, trust_N: Vectors, *, share: float, witnesses: bool = True) -> Doubts:
        """See Judge.doubts."""
        row_F, trusted = doubted(trust_N, self._data.image_group_N, share=share)
        if not witnesses:
            return without_witnesses(row_F)
        trusted_N = np.zeros(self._data.rows, np.bool_)
        trusted_N[trusted] = True
        return Doubts(
            row_F=row_F,
            by_picture_FK=self._witnesses("by_picture", row_F, trusted_N),
            by_caption_FK=self._witnesses("by_caption", row_F, trusted_N),
        )

    def forget(self) -> None:
        """See Judge.forget: nothing is held."""

    def _trust(self) -> Vectors:
        """(N,) float32: places, of pairs that the scan knows. Memory: their uids, twice."""
        import polars

        told = polars.concat(score_tables(self._fact("scan"), ("uid", "cross_prediction")))
        told = told.with_columns(turn=_turns())
        found = self._rows().join(told, on=["uid", "turn"], how="left", maintain_order="left")
        suspicion_N = found["cross_prediction"].to_numpy()
        known = np.flatnonzero(~np.isnan(suspicion_N.astype(np.float32)))
        if not len(known):
            raise MismatchError(f"{self._fact('scan')} can say nothing of any pair of the training")
        trust_N = np.zeros(self._data.rows, np.float32)
        trust_N[known] = places(-suspicion_N[known].astype(np.float32))
        return trust_N

    def _witnesses(self, table: str, row_F: Rows, trusted_N: NDArray[np.bool_]) -> Rows:
        """(F, K) rows of the trusted pairs that resemble some most, nearest first; see in_turns()."""
        import polars

        rows = self._rows()
        doubtful = rows[row_F].select("uid", "turn", place=polars.int_range(len(row_F), dtype=polars.Int64))
        trusted = rows.filter(polars.Series(trusted_N)).select(match_uid="uid", witness="row")
        trusted = trusted.unique("match_uid", keep="first", maintain_order=True)  # which of them is not told
        near = polars.concat(
            each.join(doubtful, on=["uid", "turn"])
            .join(trusted, on="match_uid")
            .sort("place", "rank")
            .group_by("place", maintain_order=True)
            .head(WITNESSES)
            for each in self._askers(table)
        ).sort("place", "rank")
        return in_turns(near["place"].to_numpy(), near["witness"].to_numpy(), many=len(row_F))

    def _askers(self, table: str) -> Iterator[polars.DataFrame]:
        """Who resembles whom, part by part, with the turn of each that asked."""
        import polars

        shared = self._rows().filter(polars.col("uid").is_duplicated())
        before = shared.select("uid", before=0).unique()
        first = polars.col("rank") == 1  # of the lines on a pair
        for each in match_tables(self._fact(table)):
            told = each.join(before, on="uid", how="left", maintain_order="left")
            turn = first.cast(polars.Int64).cum_sum().over("uid") - 1 + polars.col("before").fill_null(0)
            yield told.with_columns(turn=turn).drop("before")
            here = each.filter(first).group_by("uid").agg(here=polars.len())
            added = polars.col("before") + polars.col("here").fill_null(0)
            before = before.join(here, on="uid", how="left").select("uid", before=added)

    def _rows(self) -> polars.DataFrame:
        import polars

        uids = self._data.uids()
        rows = polars.DataFrame({"uid": uids, "row": np.arange(len(uids))})
        return rows.with_columns(turn=_turns())

    def _fact(self, name: str) -> Path:
        return Path(StageFolder.open(self._judged, stage=JUDGED_STAGE).facts[name])


def _turns() -> polars.Expr:
    """Of pairs with one uid, from 0 on."""
    import polars

    return polars.int_range(polars.len()).over("uid")


def in_turns(place_M: Rows, witness_M: Rows, *, many: int) -> Rows:
    """A table of witnesses, WITNESSES to a place: fewer come in turns, and NOBODY where there is none.

    Args:
        place_M: whose witness each is, from 0 to many - 1, ascending.
        witness_M: rows.
        many: places.
    """
    found_F = np.bincount(place_M, minlength=many)
    start_F = np.cumsum(found_F) - found_F
    turn_FK = np.arange(WITNESSES) % np.maximum(found_F, 1)[:, None]
    padded_M = np.append(witness_M, NOBODY)
    place_FK = np.where(found_F[:, None] > 0, start_F[:, None] + turn_FK, len(witness_M))
    table_FK: Rows = padded_M[place_FK]
    return table_FK
