"""All that a scan knows of one pair: scores with their places, neighbours' captions, verdict in words.

Memory: one part's tables. Cost: it looks through the names of all parts, once for the pair and once for
its neighbours, and through all scores once for its places among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import DataError
from roclip_sanitize.records import Reason
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.agreement import NEUTRAL
from roclip_sanitize.scan.explain import why_kept
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.parts import LABEL_COLUMN, Places
from roclip_sanitize.scan.rejudging import COMPANY, PERCENTILE
from roclip_sanitize.scan.scoring import WEIGHED
from roclip_sanitize.scan.settings import scanned_store
from roclip_sanitize.scan.verdicts import Company
from roclip_sanitize.store import EmbeddingStore, StorePart

if TYPE_CHECKING:
    import polars

NAMES = ("uid", "key", "shard")
TELLING = {
    Reason.TRACE_OF_MISMATCHED_PAIRS: "trace",
    Reason.KIN_OF_MISMATCHED_PAIRS: "kin",
    Reason.WORD_OF_MISMATCHED_PAIRS: "word_lift",
}  # scores of a pair's company, by the reason that they are
NEIGHBOURS_TOLD = 10  # to people; --json has all


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
        sentence: why it was set aside, or kept.
        scores: what each detector says, None where it can say nothing.
        percentiles: share of all pairs of which it says less, in per cent; None likewise.
        neighbours: whose pictures are most like its own, nearest first; or near-copies of it, where these
            alone speak against it. None of a kept pair if the scan's work folder is gone.
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
            f"why         {self.sentence}",
        ]
        for name, score in self.scores.items():
            place = self.percentiles.get(name)
            above = f", above {place:.1f} % of all pairs" if place is not None else ""
            told = "nothing to say" if score is None else f"{score:.4g}{above}"
            lines.append(f"{name:<24} {told}")
        lines += [f"neighbour   {each.uid}  {each.caption}" for each in self.neighbours[:NEIGHBOURS_TOLD]]
        if (more := len(self.neighbours) - NEIGHBOURS_TOLD) > 0:
            lines.append(f"and {more} neighbours more: --json lists them")
        return lines


def find_pair(scan: Path, uid: str) -> PairFindings:
    """Look a pair up in a finished scan; the first of that name, if several shards have one.

    Raises:
        DataError: there is no scan, or no such pair in it; or the scan's store is gone.
        MismatchError: the scan is unfinished, or its store holds something else than was scanned.
    """
    folder = StageFolder.open(scan, stage="scan")
    store = scanned_store(folder)
    for marker in folder.markers():
        frames = [read_table(table_file(scan, what, marker.name)) for what in ("scores", "verdicts")]
        mine = (frames[0]["uid"] == uid).arg_true()
        if not len(mine):
            continue
        place = int(mine[0])
        scores, verdict = (frame.row(place, named=True) for frame in frames)
        (part,) = [each for each in store.parts if each.name == marker.name]
        told = {name: value for name, value in scores.items() if _is_score(name)}
        budget, label = _budget(folder, store.rows), _saved_by(folder, scores)
        room = folder.facts["label_cuts"][label]["suspicion"] <= 1 if label else budget > 0
        return PairFindings(
            uid=uid,
            key=scores["key"],
            shard=scores["shard"],
            caption=store.metadata(part.name, ("caption",))["caption"][place],
            kept=verdict["kept"],
            reasons=tuple(each for each in verdict["reasons"].split(";") if each),
            sentence=verdict["sentence"] or why_kept(_suspects(told), budget=budget, label=label, room=room),
            scores=told,
            percentiles=_percentiles(folder, told),
            neighbours=_witnesses(store, scores["neighbours"]) or _neighbours(store, scan, part, place),
        )
    raise DataError(f"{scan} knows no pair {uid}: wanted the uid of one of its {store.rows:,}")


def _is_score(name: str) -> bool:
    return name not in {*NAMES, LABEL_COLUMN, "trace_word", "neighbours"} and not name.endswith(PERCENTILE)


def _suspects(scores: Mapping[str, float | None]) -> list[str]:
    """Names of the scores that make a pair suspicious, see verdicts.combined()."""
    suspects = [name for name in WEIGHED if (scores.get(name) or 0) > NEUTRAL]
    lift_N, trace_N, kin_N = (
        np.array([ordinary if (score := scores.get(name)) is None else score], np.float32)
        for name, (_, ordinary) in COMPANY.items()
    )
    tells = Company(lift_N=lift_N, trace_N=trace_N, kin_N=kin_N).tells()
    return suspects + [name for reason, name in TELLING.items() if tells[reason][0]]


def _budget(folder: StageFolder, pairs: int) -> float:
    """The share of all pairs that the budget could take, lowered or not; older scans never lowered it."""
    budget, allowed = float(folder.settings["budget"]), folder.facts.get("allowed")
    if allowed is None:
        return budget if budget * pairs >= 1 else 0.0
    return float(allowed / max(1, pairs))


def _saved_by(folder: StageFolder, scores: Mapping[str, Any]) -> str:
    """The label of a kept pair, if that is why the budget did not take it."""
    label = scores.get(LABEL_COLUMN)
    if label not in folder.facts.get("label_cuts", {}):
        return ""
    over = np.float32(scores["suspicion"]) >= np.float32(folder.facts["cut"]["suspicion"])
    return str(label) if over else ""


def _percentiles(folder: StageFolder, scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """The places of one pair's scores among those of all pairs that have one."""
    lower, known = Counter[str](), Counter[str]()
    for marker in folder.markers():
        table = read_table(table_file(folder.path, "scores", marker.name), columns=list(scores))
        for name, score in scores.items():
            known[name] += len(table) - table[name].null_count()
            if score is not None:
                lower[name] += int((table[name] < score).sum())
    return {
        name: None if score is None else 100 * lower[name] / known[name] for name, score in scores.items()
    }


def _witnesses(store: EmbeddingStore, joined: str | None) -> tuple[Neighbour, ...]:
    """Those that a flagged pair is shown with, in their order."""
    import polars

    uids = [uid for uid in (joined or "").split(";") if uid]
    found = dict[str, str]()
    for part in store.parts:
        if len(found) == len(uids):
            break
        names = store.metadata(part.name, ("uid", "caption")).filter(polars.col("uid").is_in(uids))
        found.update(zip(names["uid"], names["caption"], strict=True))
    return tuple(Neighbour(uid=uid, caption=found.get(uid, "")) for uid in uids)


def _neighbours(store: EmbeddingStore, scan: Path, part: StorePart, place: int) -> tuple[Neighbour, ...]:
    """Those that the scan's search noted of any pair."""
    row_K = Places(store=store.path, work=scan / "work").rows("neighbours", part)[place]
    found = dict[int, Neighbour]()
    for other in store.parts:
        found.update(_named(store, other, row_K[(row_K >= other.start) & (row_K < other.start + other.rows)]))
    return tuple(found[row] for row in row_K.tolist() if row in found)


def _named(
    store: EmbeddingStore, part: StorePart, row_M: NDArray[np.int64]
) -> Iterator[tuple[int, Neighbour]]:
    """Rows of one part by their number."""
    if not len(row_M):
        return
    names: polars.DataFrame = store.metadata(part.name, ("uid", "caption"))
    for row in row_M.tolist():
        uid, caption = names.row(row - part.start)
        yield row, Neighbour(uid=uid, caption=caption)
