"""Choose the pairs worth showing, and fetch their pictures.

    verdicts (+ ledger) ─▶ candidates ─▶ one pass over the shards ─▶ GalleryItem

With a ledger of planted pairs, the mistakes are shown too: poisons that were missed and clean pairs
that were lost. The choice follows from uids alone, so that the same scan shows the same pairs.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.captions import normalise_caption
from roclip_sanitize.errors import BadPair, DataError
from roclip_sanitize.images import decode_image, encode_jpeg
from roclip_sanitize.report import words
from roclip_sanitize.report.data import GalleryItem, GalleryKind, Neighbour
from roclip_sanitize.shards import Pair, Shard
from roclip_sanitize.storage import names_in

if TYPE_CHECKING:
    import polars

THUMBNAIL_PX = 96
NEIGHBOURS_SHOWN = 4
QUOTAS: Mapping[GalleryKind, int] = {"caught": 10, "lost": 4, "missed": 4, "quarantined": 18}
VERDICTS = re.compile(r"verdicts_.+\.parquet")
SPARE = 4  # candidates per place, so that near-copies of one picture need not fill the page


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A pair that may be shown: its verdict, and what the ledger says of it."""

    uid: str
    kind: GalleryKind
    attack: str
    reasons: tuple[str, ...]
    sentence: str
    neighbours: tuple[str, ...]


def collect_gallery(
    scan: Path, store_shards: Iterable[Path], ledger: Path | None = None
) -> list[GalleryItem]:
    """Choose about 18 pairs and make their small pictures.

    Args:
        scan: folder with ``verdicts/verdicts_*.parquet``.
        store_shards: the shards that were scanned; read once, and no further than needed.
        ledger: what was planted, where that is known: a poison folder or its ``ledger.parquet``.

    Returns:
        Caught poisons, lost clean pairs and missed poisons; without a ledger, quarantined pairs.

    Raises:
        DataError: the scan has no verdicts.
    """
    candidates = _candidates(_read_verdicts(scan, _read_ledger(ledger)), judged=ledger is not None)
    wanted = {uid for one in candidates for uid in (one.uid, *one.neighbours)}
    pairs = _find_pairs(store_shards, wanted)
    chosen = [
        one
        for kind, quota in QUOTAS.items()
        for one in _most_varied([other for other in candidates if other.kind == kind], pairs)[:quota]
    ]
    return [_item(one, pairs) for one in chosen]


def small_pictures(shards: Iterable[Path], uids: Iterable[str]) -> dict[str, bytes]:
    """JPEGs of some pairs' pictures by uid, as GalleryItem has them; those not there are left out."""
    found = _find_pairs(shards, set(uids))
    return {uid: _thumbnail(pair.image) for uid, pair in found.items()}


def _read_ledger(ledger: Path | None) -> polars.DataFrame:
    import polars

    if ledger is None:
        return polars.DataFrame(schema={"uid": str, "attack": str, "cover": bool})
    planted = read_table(ledger if ledger.suffix == ".parquet" else ledger / "ledger.parquet")
    if "cover" not in planted.columns:
        planted = planted.with_columns(cover=False)
    return planted.select("uid", "attack", "cover").unique("uid", keep="first", maintain_order=True)


def _read_verdicts(scan: Path, ledger: polars.DataFrame) -> polars.DataFrame:
    """Verdicts of quarantined and of planted pairs, by uid; ``attack`` is null for the others.

    Cover samples are left out: to keep one is no mistake, and to lose one neither.
    """
    import polars

    names = [name for name in names_in(scan / "verdicts") if VERDICTS.fullmatch(name)]
    files = [scan / "verdicts" / name for name in sorted(names, key=lambda name: (len(name), name))]
    if not files:
        raise DataError(f"{scan} has no verdicts/verdicts_*.parquet: wanted a folder made by 'roclip scan'")
    columns = ["uid", "kept", "reasons", "sentence", "neighbours"]
    parts = []
    for file in files:
        rows = read_table(file, columns=columns).join(ledger, on="uid", how="left")
        told = rows.filter(~polars.col("kept") | polars.col("attack").is_not_null())
        parts.append(told.filter(~polars.col("cover").fill_null(False)))
    return polars.concat(parts).unique("uid", keep="first", maintain_order=True).sort("uid")


def _candidates(verdicts: polars.DataFrame, *, judged: bool) -> list[_Candidate]:
    """Candidates of each kind, taking turns between attacks and reasons so that none fills the page."""
    groups = defaultdict[tuple[GalleryKind, str, tuple[str, ...]], list[_Candidate]](list)
    for row in verdicts.iter_rows(named=True):
        one = _candidate(row, judged=judged)
        group = groups[one.kind, one.attack, one.reasons[:1]]
        if len(group) < SPARE * QUOTAS[one.kind]:
            group.append(one)
    found = list[_Candidate]()
    for kind, quota in QUOTAS.items():
        turns = itertools.zip_longest(*(groups[key] for key in sorted(groups) if key[0] == kind))
        in_turn = [one for turn in turns for one in turn if one is not None]
        found += in_turn[: SPARE * quota]
    return found


def _candidate(row: Mapping[str, Any], *, judged: bool) -> _Candidate:
    attack = row["attack"] or ""
    kind: GalleryKind = "quarantined"
    if judged:
        kind = "missed" if row["kept"] else ("caught" if attack else "lost")
    return _Candidate(
        uid=row["uid"],
        kind=kind,
        attack=attack,
        reasons=_split(row["reasons"]),
        sentence=row["sentence"] or "",
        neighbours=_split(row["neighbours"])[:NEIGHBOURS_SHOWN],
    )


def _split(joined: str | None) -> tuple[str, ...]:
    return tuple(part for part in (joined or "").split(";") if part)


def _find_pairs(shards: Iterable[Path], wanted: set[str]) -> dict[str, Pair]:
    found = dict[str, Pair]()
    for path in shards:
        if len(found) == len(wanted):
            break
        with Shard(path) as shard:
            found |= {
                pair.uid: pair for pair in shard.pairs() if pair.uid in wanted and pair.uid not in found
            }
    return found


def _most_varied(candidates: Sequence[_Candidate], pairs: Mapping[str, Pair]) -> list[_Candidate]:
    """Those whose picture and caption were not seen before come first; pairs not found are left out."""
    fresh, repeats = list[_Candidate](), list[_Candidate]()
    seen = set[str]()
    for one in candidates:
        if one.uid not in pairs:
            continue
        pair = pairs[one.uid]
        marks = {pair.image_hash, normalise_caption(pair.caption)}
        (repeats if marks & seen else fresh).append(one)
        seen |= marks
    return fresh + repeats


def _item(one: _Candidate, pairs: Mapping[str, Pair]) -> GalleryItem:
    pair = pairs[one.uid]
    return GalleryItem(
        uid=one.uid,
        kind=one.kind,
        attack=one.attack,
        reasons=one.reasons,
        sentence=words.one_line(one.sentence),
        caption=words.one_line(pair.caption),
        picture=_thumbnail(pair.image),
        neighbours=tuple(
            Neighbour(caption=words.one_line(pairs[uid].caption), picture=_thumbnail(pairs[uid].image))
            for uid in one.neighbours
            if uid in pairs
        ),
    )


def _thumbnail(data: bytes) -> bytes:
    """A small JPEG of the whole picture, for a trigger may sit in a corner; b"" if it cannot be decoded."""
    try:
        image = decode_image(data)
    except BadPair:
        return b""
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return encode_jpeg(np.asarray(image, dtype=np.uint8))
