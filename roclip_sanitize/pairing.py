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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import indexed_rows, inspect_index
from roclip_sanitize.index_plan import contents_of
from roclip_sanitize.limits import Laps, Limits, Work
from roclip_sanitize.matching import PARTS_AT_ONCE, Exclusion, Matches, Pool, Question, commit_part
from roclip_sanitize.neighbours import Neighbours
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.store import EmbeddingStore, Modality, StorePart, write_parquet
from roclip_sanitize.whereabouts import store_of

if TYPE_CHECKING:
    import polars

Method = Literal["first", "final"]
STEPS = ("pool", "text search", "image search", "write", "hash")
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
        MismatchError: an index belongs to another store or holds another pool; the final method is
            asked of a store without a common space; or ``out`` was made otherwise, or of other contents.

    Memory here: uids and captions of the pool.
    """
    store = EmbeddingStore.open(settings.store)
    questions = _questions(settings, store)
    folder = StageFolder.create(
        out,
        stage="pair",
        settings={
            "store": str(settings.store),
            "model": store.model,
            "method": settings.method,
            "indexes": [str(question.index) for question in questions],
            "exclude_equal_captions": settings.exclude_equal_captions,
            **contents_of(out, settings.store, [question.index for question in questions]),
        },
    )
    missing = [part for part in store.parts if folder.marker(part.name) is None]
    laps = Laps()
    pool = _read_pool(questions) if missing else None
    laps.lap("pool")
    for first in range(0, len(missing), PARTS_AT_ONCE):
        parts = missing[first : first + PARTS_AT_ONCE]
        answers = [question.ask(store, parts, executor) for question in questions]
        laps.start()
        for part, *matches in zip(parts, *answers, strict=True):
            assert pool is not None
            _write_part(folder, store, part, matches=matches, pool=pool, laps=laps, workers=executor.size)
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
        [empty, *(read_table(pairs_file(out, each.name), schema=PAIR_SCHEMA) for each in folder.markers())]
    )


def pairs_file(out: Path, name: str) -> Path:
    """Where one part's table lies."""
    return out / "pairs" / f"pairs_{name}.parquet"


def _questions(settings: PairSettings, store: EmbeddingStore) -> list[Question]:
    """Captions first, then images; each index checked against the store."""
    _require_index(settings.index_text, store, modality="text")
    if settings.method == "final":
        store.require_joint("final pairing")
        return [Question(modality="image", index=settings.index_text)]
    assert settings.index_image is not None
    _require_index(settings.index_image, store, modality="image")
    exclude: tuple[Exclusion, ...] = ("uid", "image", "caption")
    if not settings.exclude_equal_captions:
        exclude = exclude[:2]
    return [
        Question(modality="text", index=settings.index_text, exclude=exclude),
        Question(modality="image", index=settings.index_image),
    ]


def _require_index(path: Path, store: EmbeddingStore, *, modality: Modality) -> None:
    facts = inspect_index(path)
    if facts["modality"] != modality:
        raise MismatchError(f"{path} is an index of {facts['modality']} vectors, wanted {modality}")
    if store_of(StageFolder(path)).resolve() != store.path.resolve() or facts["model"] != store.model:
        raise MismatchError(f"{path} indexes {facts['store']} (model {facts['model']}), wanted {store.path}")


def _read_pool(questions: Sequence[Question]) -> Pool:
    """The pool that the indexes of all questions share."""
    rows = [indexed_rows(question.index) for question in questions]
    if not all(np.array_equal(rows[0], other_P) for other_P in rows[1:]):
        paths = " and ".join(str(question.index) for question in questions)
        raise MismatchError(f"{paths} hold different pools: build both with the same pool and seed")
    return Pool.read(questions[0].index, ["uid", "caption"])


def _givers(pool: Pool, found: Neighbours) -> polars.DataFrame:
    """uid, caption and cosine of the nearest; "", "" and null for none."""
    import polars

    row_N, cosine_N = found.rows_NK[:, 0], found.cosine_NK[:, 0]
    cosine = polars.Series("cosine", np.where(row_N < 0, np.float32(np.nan), cosine_N))
    return pool.of(row_N).with_columns(cosine.fill_nan(None))


def _write_part(
    folder: StageFolder,
    store: EmbeddingStore,
    part: StorePart,
    *,
    matches: Sequence[Matches],
    pool: Pool,
    laps: Laps,
    workers: int,
) -> Marker:
    import polars

    captions, *images = (_givers(pool, each.found) for each in matches)
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
    work = Work.total([own, *(each.work for each in matches)])
    matched = int((matches[0].found.rows_NK >= 0).sum())
    return commit_part(folder, part, path, matched=matched, work=work, laps=laps)
