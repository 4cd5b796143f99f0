"""All that a scan knows of one pair: scores with their places, neighbours' captions, verdict in words.

Memory: one part's tables. Cost: it looks through the names of all parts, once for the pair and once for
its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import DataError
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.store import EmbeddingStore

PERCENTILE = "_percentile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A pair whose picture is like the one asked about."""

    uid: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFindings:
    """What a scan found of a pair.

    Attributes:
        uid: its name.
        key: its key in the shard.
        shard: name of its shard.
        caption: its words.
        kept: the verdict.
        reasons: for setting it aside, the first counts.
        sentence: the reasons in words; "" of a pair that was kept.
        scores: what each detector says, None where it can say nothing.
        percentiles: share of all pairs that a detector suspects less, in per cent.
        neighbours: whose pictures are most like its own, nearest first; of flagged pairs only.
    """

    uid: str
    key: str
    shard: str
    caption: str
    kept: bool
    reasons: tuple[str, ...]
    sentence: str
    scores: dict[str, float | None]
    percentiles: dict[str, float | None]
    neighbours: tuple[Neighbour, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        verdict = "kept" if self.kept else f"set aside: {', '.join(self.reasons)}"
        lines = [
            f"{self.uid}  {self.key} in {self.shard}",
            f"caption     {self.caption}",
            f"verdict     {verdict}",
        ]
        if self.sentence:
            lines.append(f"why         {self.sentence}")
        for name, score in self.scores.items():
            place = self.percentiles.get(name)
            above = f", above {place:.1f} % of all pairs" if place is not None else ""
            told = "nothing to say" if score is None else f"{score:.4g}{above}"
            lines.append(f"{name:<24} {told}")
        lines += [f"neighbour   {each.uid}  {each.caption}" for each in self.neighbours]
        return lines


def find_pair(scan: Path, uid: str) -> PairFindings:
    """Look a pair up in a finished scan; the first of that name, if several shards have one.

    Raises:
        DataError: there is no scan, or no such pair in it; or the scan's store is gone.
        MismatchError: the scan is unfinished.
    """
    import polars

    folder = StageFolder.open(scan, stage="scan")
    store = EmbeddingStore.open(Path(folder.settings["store"]))
    for marker in folder.markers():
        frames = [polars.read_parquet(table_file(scan, what, marker.name)) for what in ("scores", "verdicts")]
        mine = (frames[0]["uid"] == uid).arg_true()
        if not len(mine):
            continue
        place = int(mine[0])
        scores, verdict = (frame.row(place, named=True) for frame in frames)
        names = store.metadata(marker.name, ("uid", "caption")).row(place, named=True)
        told = {name: value for name, value in scores.items() if isinstance(value, int | float | None)}
        witnesses = [each for each in (scores["neighbours"] or "").split(";") if each]
        return PairFindings(
            uid=uid,
            key=scores["key"],
            shard=scores["shard"],
            caption=names["caption"],
            kept=verdict["kept"],
            reasons=tuple(each for each in verdict["reasons"].split(";") if each),
            sentence=verdict["sentence"] or "",
            scores={name: value for name, value in told.items() if _is_score(name)},
            percentiles={
                name.removesuffix(PERCENTILE): value
                for name, value in told.items()
                if name.endswith(PERCENTILE)
            },
            neighbours=_captions(store, witnesses),
        )
    raise DataError(f"{scan} knows no pair {uid}: wanted the uid of one of its {store.rows:,}")


def _is_score(name: str) -> bool:
    return name not in {"uid", "key", "shard", "neighbours"} and not name.endswith(PERCENTILE)


def _captions(store: EmbeddingStore, uids: Sequence[str]) -> tuple[Neighbour, ...]:
    """In the order of the uids."""
    import polars

    found = dict[str, str]()
    for part in store.parts:
        if len(found) == len(uids):
            break
        names = store.metadata(part.name, ("uid", "caption")).filter(polars.col("uid").is_in(uids))
        found.update(zip(names["uid"], names["caption"], strict=True))
    return tuple(Neighbour(uid=uid, caption=found.get(uid, "")) for uid in uids)
