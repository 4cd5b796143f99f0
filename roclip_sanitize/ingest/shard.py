"""Rows of a list → one shard, and tables of what was had and what was not.

    NAME.tar NAME.parquet NAME_stats.json   as img2dataset writes them; keys and order are those of the rows
    pairs/pairs_NAME.parquet                url, caption, uid, key, sha256, phash of the pairs
    failures/failures_NAME.parquet          url, caption, uid, hashes, row, reason, detail of all others

Both tables are lists that ``roclip ingest`` takes: the first to fetch the same pictures again and refuse
those that were swapped since, the second to give what failed another try, held against the same hashes.

Pictures are fetched as they come, decoded in threads, and written in the order of the rows, so that the same
answers give the same bytes. Memory: one shard's pictures as they are written, and those under way as fetched.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.captions import decode_caption
from roclip_sanitize.errors import BadPair
from roclip_sanitize.hashes import encoded_hash
from roclip_sanitize.ingest.expected import Expected, mismatch
from roclip_sanitize.ingest.fetching import Fetcher, FetchError, FetchSettings
from roclip_sanitize.ingest.resizing import Resized, ResizeMode, Resizer, key_of
from roclip_sanitize.ingest.tables import Row
from roclip_sanitize.limits import WORK_KEY, Laps
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.store import failures_file, write_parquet

STEPS = ("fetch", "write")
HASH_MISMATCH, BAD_HASH = "hash_mismatch", "bad_expected_hash"
PAIR_SCHEMA: dict[str, Any] = dict.fromkeys(("url", "caption", "uid", "key", "sha256", "phash"), str)
FAILURE_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("url", "caption", "uid", "sha256", "md5", "phash"), str),
    "row": int,
    **dict.fromkeys(("reason", "detail"), str),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSettings:
    """What becomes of a picture.

    Attributes:
        side: pixels, see img2dataset's image_size.
        mode: how it gets there, see img2dataset's resize_mode.
        quality: of the JPEG.
        only_if_bigger: whether smaller pictures stay as they are.
        tolerance: bits in which the perceptual hash of one picture may differ.
    """

    side: int
    mode: ResizeMode
    quality: int
    only_if_bigger: bool
    tolerance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOfRows:
    """One shard to make. A few megabytes, that travel to whoever makes it.

    Attributes:
        number: which shard it is.
        rows: of the list.
        rows_per_shard: how many all shards but the last have.
    """

    number: int
    rows: Sequence[Row]
    rows_per_shard: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.number:05d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Had:
    """A picture that was had: as it is written, and hashes of what it was made from."""

    picture: Resized
    sha256: str
    phash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Why a row gave no pair; ``fetched`` is whether its URL gave something."""

    reason: str
    detail: str
    fetched: bool = False


class IngestWorker:
    """Makes one shard after the other."""

    def __init__(self, fetching: FetchSettings, pictures: PictureSettings, threads: int, out: Path) -> None:
        self._fetching, self._pictures, self._folder = fetching, pictures, StageFolder(out)
        self._resize = Resizer(
            side=pictures.side,
            mode=pictures.mode,
            quality=pictures.quality,
            only_if_bigger=pictures.only_if_bigger,
        )
        self._threads = threads or len(os.sched_getaffinity(0))
        self._laps = Laps()

    def __call__(self, task: ShardOfRows) -> Marker:
        """Make one shard."""
        self._laps.start()
        found = asyncio.run(self._all(task.rows))
        self._laps.lap("fetch")
        files = self._write(task, found)
        failed = Counter(each.reason for each in found if isinstance(each, Failed))
        self._laps.lap("write")
        work = self._laps.work(len(task.rows))
        tally = Tally(seen=len(task.rows), failed=failed, seconds=work.wall)
        facts = {"rows": len(task.rows), "tally": tally.to_json(), WORK_KEY: work.to_json()}
        return self._folder.commit(task.name, files=files, facts=facts)

    async def _all(self, rows: Sequence[Row]) -> list[Had | Failed]:
        with ThreadPoolExecutor(self._threads) as threads:
            async with Fetcher.opened(self._fetching) as fetcher:
                return await asyncio.gather(*(self._one(row, fetcher, threads) for row in rows))

    async def _one(self, row: Row, fetcher: Fetcher, threads: ThreadPoolExecutor) -> Had | Failed:
        """What came of one row."""
        if row.flaw:
            return Failed(reason=BAD_HASH, detail=row.flaw)
        try:
            decode_caption(row.caption.encode("utf-8", "replace"))
            async with fetcher.fetched(row.url) as data:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, self._made_of, data, row.expected)
        except FetchError as error:
            return Failed(reason=str(error.reason), detail=error.detail)
        except BadPair as error:
            reason, _, detail = str(error).partition(": ")
            return Failed(reason=reason, detail=detail)

    def _made_of(self, data: bytes, expected: Expected) -> Had | Failed:
        """A picture from bytes that anybody may have sent.

        Raises:
            BadPair: they are no picture, or too large a one.
        """
        phash = encoded_hash(data)
        if why := mismatch(data, lambda: phash, expected, tolerance=self._pictures.tolerance):
            return Failed(reason=HASH_MISMATCH, detail=why, fetched=True)
        return Had(picture=self._resize(data), sha256=hashlib.sha256(data).hexdigest(), phash=phash)

    def _write(self, task: ShardOfRows, found: Sequence[Had | Failed]) -> list[Path]:
        import polars

        out = self._folder.path
        pairs, failures = list[dict[str, Any]](), list[dict[str, Any]]()
        with ShardWriter(out / f"{task.name}.tar") as shard:
            for place, (row, each) in enumerate(zip(task.rows, found, strict=True)):
                key = key_of(place, task.number, rows_per_shard=task.rows_per_shard)
                if isinstance(each, Had):
                    pairs.append(_add(shard, key, row, each))
                else:
                    number = task.number * task.rows_per_shard + place
                    failures.append(_fail(shard, key, row, each) | {"row": number})
        files = [*shard.files, pairs_file(out, task.name), failures_file(out, task.name)]
        write_parquet(files[-2], polars.DataFrame(pairs, schema=PAIR_SCHEMA))
        write_parquet(files[-1], polars.DataFrame(failures, schema=FAILURE_SCHEMA))
        return files


def pairs_file(out: Path, name: str) -> Path:
    """Where the table of one shard's pairs lies."""
    return out / "pairs" / f"pairs_{name}.parquet"


def _add(shard: ShardWriter, key: str, row: Row, had: Had) -> dict[str, Any]:
    """Write a pair; returns its row of the table of pairs."""
    picture, caption = had.picture, decode_caption(row.caption.encode("utf-8", "replace"))
    fields = {
        "url": row.url,
        "status": "success",
        "width": picture.width,
        "height": picture.height,
        "original_width": picture.original_width,
        "original_height": picture.original_height,
        "phash": had.phash,
        **({"uid": row.uid} if row.uid else {}),
    }
    uid = shard.add(key, image=picture.data, caption=caption, fields=fields, sha256=had.sha256)
    named = {"url": row.url, "caption": caption, "uid": uid, "key": key}
    return {**named, "sha256": had.sha256, "phash": had.phash}


def _fail(shard: ShardWriter, key: str, row: Row, failed: Failed) -> dict[str, Any]:
    """Note a failure; returns its row of the table of failures."""
    status = "failed_to_resize" if failed.fetched else "failed_to_download"
    error = f"{failed.reason}: {failed.detail}".rstrip(": ")
    shard.note_failure(key, caption=row.caption, fields={"url": row.url}, status=status, error=error)
    told = {"url": row.url, "caption": row.caption, "uid": row.uid, **asdict(row.expected)}
    return {**told, "reason": failed.reason, "detail": failed.detail}
