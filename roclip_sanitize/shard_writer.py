"""Pairs → one shard: the tar, its parquet and its counts."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from roclip_sanitize.runfiles import write_json
from roclip_sanitize.shards import Pair, Shard, content_uid
from roclip_sanitize.sources import source_stem
from roclip_sanitize.storage import atomic_file
from roclip_sanitize.tars import Member, member_blocks, tar_file

if TYPE_CHECKING:
    import polars

SIDECAR_SCHEMA: dict[str, Any] = {  # img2dataset's columns, and uid
    "uid": str,
    "key": str,
    "url": str,
    "caption": str,
    "status": str,
    "error_message": str,
    "width": int,
    "height": int,
    "original_width": int,
    "original_height": int,
    "sha256": str,
}


class ShardWriter:
    """Writes one shard: the tar, its parquet and its counts. Use as a context manager.

    The same pairs in the same order give the same bytes: members have time, owner and mode
    fixed. Nothing appears under the final names unless the block ends without an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._resources = ExitStack()
        self._file: IO[bytes]

    @property
    def files(self) -> list[Path]:
        """What is on disk once the block has ended."""
        beside = self.path.with_name(source_stem(self.path))  # which may have dots: train.0001
        return [self.path, *(beside.with_name(beside.name + end) for end in (".parquet", "_stats.json"))]

    def __enter__(self) -> Self:
        self._file = self._resources.enter_context(tar_file(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)
        if kind is None:
            self._write_sidecars()

    def copy(self, shard: Shard, pair: Pair) -> None:
        """Append a pair as it lies in another shard, byte for byte."""
        self._file.write(shard.raw(pair.members))
        self._rows.append(row_of(pair))

    def copy_raw(self, shard: Shard, members: Sequence[Member]) -> None:
        """Append members that form no usable pair, byte for byte; they get no row."""
        self._file.write(shard.raw(members))

    def add(
        self, key: str, *, image: bytes, caption: str, fields: Mapping[str, Any], sha256: str = ""
    ) -> str:
        """Append a new pair. Returns its uid.

        Args:
            key: its key.
            image: its encoded picture.
            caption: its text.
            fields: what else is known, the ``uid`` among that; key, caption and sha256 are set here.
            sha256: what to record as the picture's hash; by default what it is.
        """
        recorded = sha256 or hashlib.sha256(image).hexdigest()
        full = {**fields, "key": key, "caption": caption, "sha256": recorded}
        full.setdefault("uid", content_uid(image, caption.encode()))
        full.setdefault("status", "success")
        self._file.write(member_blocks(f"{key}.jpg", image))
        self._file.write(member_blocks(f"{key}.txt", caption.encode()))
        self._file.write(member_blocks(f"{key}.json", json.dumps(full, ensure_ascii=False).encode()))
        self._rows.append(_row(full["uid"], key, caption, full))
        return str(full["uid"])

    def note_failure(
        self, key: str, *, caption: str, fields: Mapping[str, Any], status: str, error: str
    ) -> None:
        """Append what has no picture to the table beside the shard, and count it, as img2dataset does.

        Args:
            key: its key.
            caption: its text.
            fields: what else is known.
            status: "failed_to_download" or "failed_to_resize".
            error: why.
        """
        known = _row("", key, caption, fields)
        self._rows.append({**known, "uid": None, "status": status, "error_message": error})

    def _write_sidecars(self) -> None:
        _, parquet, stats = self.files
        table, counts = sidecars(self._rows)
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        with atomic_file(parquet) as file:
            file.write(buffer.getvalue())
        write_json(stats, counts)


def row_of(pair: Pair) -> dict[str, Any]:
    """What the table beside a shard says of a pair that was copied into it."""
    return _row(pair.uid, pair.key, pair.caption, pair.fields)


def sidecars(rows: Sequence[Mapping[str, Any]]) -> tuple[polars.DataFrame, dict[str, int]]:
    """The table beside a shard, and its counts."""
    import polars

    found = Counter(row["status"] for row in rows)
    failed = {name: found[name] for name in ("failed_to_download", "failed_to_resize")}
    counts = {"count": len(rows), "successes": found["success"], **failed}
    return polars.DataFrame(rows, schema=SIDECAR_SCHEMA), counts


def _row(uid: str, key: str, caption: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: _fitting(fields.get(name), kind) for name, kind in SIDECAR_SCHEMA.items()}
    return {**known, "uid": uid, "key": key, "caption": caption, "status": "success"}


def _fitting(value: Any, kind: Any) -> Any:
    """A field if it is what its column wants, else None: anyone may have written it."""
    fits = type(value) is kind and (kind is str or -(2**63) <= value < 2**63)
    return value if fits else None
