"""RoCLIP's rewriting as a table of uids: who gets whose caption, and whose picture. The ``pair`` stage.

    first   caption ─▶ most similar other caption ─▶ its text goes to this image
            image   ─▶ most similar other image   ─▶ it goes to this caption
    final   image   ─▶ most similar caption       ─▶ its text goes to this image

"first" is the first version of the paper, within each modality; "final" is the released one, across
them, and needs a CLIP. The pool is whatever the indexes hold. A pair never receives anything from
itself, nor from a pair with the same picture: a poison's copies would only vouch for each other.

    pairs/pairs_00000.parquet     a row per pair of the store part, see PAIR_SCHEMA
    done/00000.json               rows, how many found a match, tally, seconds of each step

Dimension key: N pairs of a store part, P pairs of the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import indexed_rows, inspect_index, open_index
from roclip_sanitize.limits import WORK_KEY, Laps, Limits, Work
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.store import EmbeddingStore, Modality, StorePart, write_parquet

if TYPE_CHECKING:
    import polars

Method = Literal["first", "final"]
STEPS = ("pool", "text search", "image search", "write", "hash")
QUERIES_AT_ONCE = 4_096
PARTS_AT_ONCE = 64  # parts matched before any is written: what a kill can cost
PAIR_SCHEMA: dict[str, Any] = {
    "uid": str,
    "caption_uid": str,  # the pair whose caption replaces this one's; "" for none
    "caption": str,  # that caption; "" for none
    "caption_cosine": float,  # null for none
    "image_uid": str,  # the pair whose picture replaces this one's; "" for none
    "image_cosine": float,  # null for none
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """How to pair.

    Attributes:
        store: the embedding store.
        index_text: an index of its captions.
        index_image: an index of its images, over the same pool; for the first method.
        method: "first" or "final".
        exclude_equal_captions: first method: look past captions equal to the pair's own, which
            would rewrite nothing.
    """

    store: Path
    index_text: Path
    index_image: Path | None = None
    method: Method = "final"
    exclude_equal_captions: bool = True

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(f"method is {self.method!r}, wanted one of {', '.join(get_args(Method))}")
        if self.method == "first" and self.index_image is None:
            raise ConfigError("the first method matches images too: give an image index")


def pair_store(settings: PairSettings, *, out: Path, executor: Executor) -> Tally:
    """Write the pair table of every part of the store.

    Returns:
        Pairs seen, and seconds of all workers together.

    Raises:
        MismatchError: an index belongs to another store or holds another pool; or the final
            method is asked of a store without a common space.

    Memory here: uids and captions of the pool.
    """
    store = EmbeddingStore.open(settings.store)
    directions = _directions(settings, store)
    folder = StageFolder.create(
        out,
        stage="pair",
        settings={
            "store": str(settings.store),
            "model": store.model,
            "method": settings.method,
            "indexes": [str(direction.index) for direction in directions],
            "exclude_equal_captions": settings.exclude_equal_captions,
        },
    )
    missing = [part for part in store.parts if folder.marker(part.name) is None]
    laps = Laps()
    pool = _Pool.read(store, directions) if missing else None
    laps.lap("pool")
    for first in range(0, len(missing), PARTS_AT_ONCE):
        parts = missing[first : first + PARTS_AT_ONCE]
        matches = [direction.match(store, parts, executor) for direction in directions]
        laps.start()
        for part, *found in zip(parts, *matches, strict=True):
            assert pool is not None
            _write_part(folder, store, part, found=found, pool=pool, laps=laps, workers=executor.size)
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    folder.finish({"method": settings.method, "tally": tally.to_json()})
    return tally


def pair_limits(out: Path) -> Limits:
    """What bounded a pairing, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=STEPS)


def read_pairs(out: Path) -> polars.DataFrame:
    """The whole table, in the row order of the store: columns of PAIR_SCHEMA.

    Raises:
        DataError: there is none.
        MismatchError: it is unfinished.
    """
    import polars

    folder = StageFolder.open(out, stage="pair")
    empty = polars.DataFrame(schema=PAIR_SCHEMA)
    return polars.concat(
        [empty, *(polars.read_parquet(pairs_file(out, each.name)) for each in folder.markers())]
    )


def pairs_file(out: Path, name: str) -> Path:
    """Where one part's table lies."""
    return out / "pairs" / f"pairs_{name}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """The best of the pool for N queries: store rows, -1 for none; cosines; what finding them cost."""

    row_N: NDArray[np.int64]
    cosine_N: NDArray[np.float32]
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direction:
    """Which vectors ask which index."""

    modality: Modality
    index: Path
    exclude_caption: bool = False

    def match(self, store: EmbeddingStore, parts: Sequence[StorePart], executor: Executor) -> list[_Match]:
        """One match per part. All workers search side by side, so that each second costs one of every."""
        laps = Laps()
        with open_index(self.index, executor) as index:
            answers = index.search(task for part in parts for task in self._questions(store, part))
            return [self._collect(answers, part, laps, workers=executor.size) for part in parts]

    def _questions(self, store: EmbeddingStore, part: StorePart) -> Iterator[SearchTask]:
        for start in range(0, part.rows, QUERIES_AT_ONCE):
            yield SearchTask(
                store=store.path,
                part=part.name,
                modality=self.modality,
                start=start,
                stop=min(start + QUERIES_AT_ONCE, part.rows),
                k=1,
                exclude_self=True,
                exclude_hash=True,
                exclude_caption=self.exclude_caption,
            )

    def _collect(self, answers: Iterator[Neighbours], part: StorePart, laps: Laps, *, workers: int) -> _Match:
        own = list(islice(answers, -(-part.rows // QUERIES_AT_ONCE))) or [Neighbours.none(0, 1)]
        laps.lap(f"{self.modality} search")
        return _Match(
            row_N=np.concatenate([answer.rows_NK[:, 0] for answer in own]),
            cosine_N=np.concatenate([answer.cosine_NK[:, 0] for answer in own]),
            work=laps.work(0, workers=workers),
        )


def _directions(settings: PairSettings, store: EmbeddingStore) -> list[_Direction]:
    """Captions first, then images; each index checked against the store."""
    _require_index(settings.index_text, store, modality="text")
    if settings.method == "final":
        store.require_joint("final pairing")
        return [_Direction(modality="image", index=settings.index_text)]
    assert settings.index_image is not None
    _require_index(settings.index_image, store, modality="image")
    return [
        _Direction(
            modality="text", index=settings.index_text, exclude_caption=settings.exclude_equal_captions
        ),
        _Direction(modality="image", index=settings.index_image),
    ]


def _require_index(path: Path, store: EmbeddingStore, *, modality: Modality) -> None:
    facts = inspect_index(path)
    if facts["modality"] != modality:
        raise MismatchError(f"{path} is an index of {facts['modality']} vectors, wanted {modality}")
    if Path(facts["store"]).resolve() != store.path.resolve() or facts["model"] != store.model:
        raise MismatchError(f"{path} indexes {facts['store']} (model {facts['model']}), wanted {store.path}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """Who can give.

    Attributes:
        row_P: store rows, ascending.
        names: their uid and caption, and a last row of "" for none.
    """

    row_P: NDArray[np.int64]
    names: polars.DataFrame

    @classmethod
    def read(cls, store: EmbeddingStore, directions: Sequence[_Direction]) -> _Pool:
        """The pool that the indexes of all directions share."""
        import polars

        row_P, *others = (indexed_rows(direction.index) for direction in directions)
        if not all(np.array_equal(row_P, other_P) for other_P in others):
            paths = " and ".join(str(direction.index) for direction in directions)
            raise MismatchError(f"{paths} hold different pools: build both with the same pool and seed")
        names = [polars.DataFrame(schema={"uid": str, "caption": str})]
        for part in store.parts:
            first, last = np.searchsorted(row_P, (part.start, part.start + part.rows))
            names.append(store.metadata(part.name, ["uid", "caption"])[row_P[first:last] - part.start])
        none = polars.DataFrame({"uid": [""], "caption": [""]})
        return cls(row_P=row_P, names=polars.concat([*names, none]))

    def givers(self, match: _Match) -> polars.DataFrame:
        """uid, caption and cosine of what was matched; "", "" and null for none."""
        import polars

        place_N = np.where(match.row_N < 0, len(self.row_P), np.searchsorted(self.row_P, match.row_N))
        cosine = polars.Series("cosine", np.where(match.row_N < 0, np.float32(np.nan), match.cosine_N))
        return self.names[place_N].with_columns(cosine.fill_nan(None))


def _write_part(
    folder: StageFolder,
    store: EmbeddingStore,
    part: StorePart,
    *,
    found: Sequence[_Match],
    pool: _Pool,
    laps: Laps,
    workers: int,
) -> Marker:
    import polars

    captions, *images = (pool.givers(match) for match in found)
    frame = polars.DataFrame(
        {
            "uid": store.metadata(part.name, ["uid"])["uid"],
            "caption_uid": captions["uid"],
            "caption": captions["caption"],
            "caption_cosine": captions["cosine"],
            "image_uid": images[0]["uid"] if images else [""] * part.rows,
            "image_cosine": images[0]["cosine"] if images else [None] * part.rows,
        },
        schema=PAIR_SCHEMA,
    )
    path = pairs_file(folder.path, part.name)
    write_parquet(path, frame)
    laps.lap("write")
    own = laps.work(part.rows, workers=workers)  # they wait meanwhile
    work = Work.total([own, *(match.work for match in found)])
    facts = {
        "rows": part.rows,
        "tally": Tally(seen=part.rows, seconds=work.wall).to_json(),
        "matched": int((found[0].row_N >= 0).sum()),
        WORK_KEY: work.to_json(),
    }
    marker = folder.commit(part.name, files=[path], facts=facts)
    laps.lap("hash")
    return marker
