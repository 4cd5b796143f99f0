"""Shards: WebDataset tars as img2dataset writes them, read and written member by member.

    00000.tar     KEY.jpg KEY.txt KEY.json, one pair after the other
    00000.parquet what is known of each pair; 00000_stats.json the counts

Reading walks the tar's headers over a memory map and copies nothing until asked, so that a
pass that only selects or copies costs no decoding. A pair can be copied as the raw blocks it
had, headers and padding included: that is what "byte-identical" means here.

A broken pair costs no other pair: it becomes a Failure. A broken shard costs what lies behind
the break. Door to tarfile.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from braceexpand import braceexpand

from roclip_sanitize import captions
from roclip_sanitize.errors import BadPair, ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.records import Failure, FailureReason
from roclip_sanitize.runfiles import atomic_file, write_json

BLOCK = tarfile.BLOCKSIZE
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_EXTENSION = "txt"
FIELDS_EXTENSION = "json"
NAME_ERRORS = "backslashreplace"  # a name that is no UTF-8 must still fit into tables
UID_DIGITS = 32
LONG_NAME_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
PAX_RECORD = re.compile(rb"([1-9]\d{0,18}) ([^=]+)=")  # its length in bytes, then its name


def expand_shards(spec: str) -> list[Path]:
    """The shards that a specification names, in order.

    Args:
        spec: paths with brace ranges (``data/{00000..00331}.tar``), several joined by ``::``.

    Raises:
        ConfigError: the specification is empty, leaves a brace open or names a shard twice.
        ShardMissing: a named shard does not exist.
    """
    parts = [part.strip() for part in spec.split("::") if part.strip()]
    try:
        paths = [Path(name).expanduser() for part in parts for name in braceexpand(part)]
    except ValueError as error:
        raise ConfigError(
            f"{spec!r} leaves a brace open: wanted something like '{{00000..00009}}'"
        ) from error
    if not paths:
        raise ConfigError(f"no shards named in {spec!r}: wanted something like 'data/{{00000..00009}}.tar'")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ShardMissing(f"shard {missing[0]}{more} of {len(paths)} named does not exist")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{spec!r} names a shard twice")
    return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard of a stage's work.

    Attributes:
        name: the shard's name in the stage's output: its ordinal, five digits or more.
        path: where it lies.
    """

    name: str
    path: Path


def shard_tasks(paths: Sequence[Path]) -> list[ShardTask]:
    """Number the shards of a stage. Ordinals, not file names, since two sources may share names."""
    return [ShardTask(name=f"{ordinal:05d}", path=path) for ordinal, path in enumerate(paths)]


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar: where its blocks start, and its data.

    Attributes:
        name: path inside the tar.
        start: first byte of its header, long-name headers included.
        offset: first byte of its data.
        size: bytes of data.
    """

    name: str
    start: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """First byte after its padding."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One usable image-caption pair, its picture not yet decoded.

    Attributes:
        uid: 32 hex digits: the ``uid`` field where there is one, else a hash of the content.
        key: its key in the shard.
        caption: text, not empty.
        fields: the JSON member's fields, {} without one.
        image: the encoded picture's bytes.
        members: the files it consists of, in shard order.
    """

    uid: str
    key: str
    caption: str
    fields: Mapping[str, Any]
    image: bytes
    members: tuple[Member, ...]

    @property
    def image_hash(self) -> str:
        """128-bit hash of the encoded picture, 32 hex digits: equal bytes, equal hash."""
        return hashlib.blake2b(self.image, digest_size=16).hexdigest()


class Shard:
    """A tar open for reading. Use as a context manager.

    Attributes:
        path: the file.
        failures: what was wrong so far; complete once pairs() is exhausted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures: list[Failure] = []
        self._resources = ExitStack()
        self._data: mmap.mmap | bytes = b""

    def __enter__(self) -> Self:
        try:
            file = self._resources.enter_context(self.path.open("rb"))
        except FileNotFoundError as error:
            raise ShardMissing(f"shard {self.path} does not exist") from error
        except OSError as error:
            raise ShardUnreadable(f"shard {self.path} cannot be opened: {error.strerror}") from error
        if self.path.stat().st_size:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._data = self._resources.enter_context(mapped)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def members(self) -> Iterator[Member]:
        """Walk the headers.

        Yields:
            Regular files, in order, each wholly present.

        Raises:
            ShardUnreadable: the shard is empty, is no tar, or breaks off; what came before the
                break has been yielded.
        """
        if not len(self._data):
            raise ShardUnreadable(f"{self.path.name} is empty (0 bytes)")
        position = start = 0
        overrides: dict[str, str] = {}
        while True:
            header = self._data[position : position + BLOCK]
            if header == b"\0" * BLOCK:
                return
            info = self._parse_header(header, position)
            data, position = position + BLOCK, position + BLOCK + -(-info.size // BLOCK) * BLOCK
            if data + info.size > len(self._data):
                raise ShardUnreadable(
                    f"{self.path.name} breaks off inside {overrides.get('path', info.name)}: "
                    f"{data + info.size:,} bytes wanted, {len(self._data):,} found"
                )
            if info.type in LONG_NAME_TYPES:
                overrides |= _long_names(info.type, self._data[data : data + info.size])
                continue
            if info.isreg():
                yield Member(overrides.get("path", info.name), start, data, info.size)
            overrides, start = {}, position

    def pairs(self) -> Iterator[Pair]:
        """Read the pairs one by one; what cannot be used goes to ``failures``.

        Never raises for bad content: an unreadable shard yields nothing and one Failure, a
        truncated one yields what lies before the break and one Failure.
        """
        seen_keys: set[str] = set()
        seen_uids: dict[str, int] = {}
        for key, members in self.groups():
            if key in seen_keys:
                self._fail("", key, FailureReason.DUPLICATE_KEY, "this key came before in the same shard")
                continue
            seen_keys.add(key)
            try:
                pair = self._read_pair(key, members)
            except BadPair as error:
                reason, _, detail = str(error).partition(": ")
                self._fail(self._uid_of_bad(members), key, FailureReason(reason), detail)
                continue
            copies = seen_uids.get(pair.uid, 0)
            seen_uids[pair.uid] = copies + 1
            if copies and pair.fields.get("uid"):
                self._fail(
                    pair.uid, key, FailureReason.DUPLICATE_KEY, "this uid came before in the same shard"
                )
                continue
            yield pair

    def groups(self) -> Iterator[tuple[str, tuple[Member, ...]]]:
        """Members grouped by key, as WebDataset groups them: neighbours with one stem."""
        current, members = "", list[Member]()
        try:
            for member in self.members():
                key, extension = split_name(member.name)
                repeated = any(extension == split_name(other.name)[1] for other in members)
                if members and (key != current or repeated):
                    yield current, tuple(members)
                    members = []
                current = key
                members.append(member)
        except ShardUnreadable as error:
            if not members and not current:
                self._fail("", "", FailureReason.UNREADABLE_SHARD, str(error))
                return
            self._fail("", current, FailureReason.TRUNCATED_SHARD, str(error))
            return  # the group at the break may lack members: it is part of what was lost
        if members:
            yield current, tuple(members)

    def read(self, member: Member) -> bytes:
        """A member's data."""
        return bytes(self._data[member.offset : member.offset + member.size])

    def raw(self, members: Sequence[Member]) -> bytes:
        """The tar blocks of some members exactly as they lie in the shard."""
        return b"".join(bytes(self._data[member.start : member.end]) for member in members)

    def _parse_header(self, header: bytes, position: int) -> tarfile.TarInfo:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", NAME_ERRORS)
        except tarfile.HeaderError as error:
            what = "is no tar" if position == 0 else f"has no valid header at byte {position:,}"
            raise ShardUnreadable(f"{self.path.name} {what}: {error}") from error
        if info.size < 0:  # base-256 sizes have a sign: the walk would go backwards, for ever
            raise ShardUnreadable(f"{self.path.name} has a member of {info.size} bytes at byte {position:,}")
        return info

    def _read_pair(self, key: str, members: tuple[Member, ...]) -> Pair:
        by_extension = {split_name(member.name)[1]: member for member in members}
        image = next((by_extension[name] for name in IMAGE_EXTENSIONS if name in by_extension), None)
        if image is None:
            raise BadPair(
                f"{FailureReason.NO_IMAGE}: has {sorted(by_extension)}, wanted one of {IMAGE_EXTENSIONS}"
            )
        if CAPTION_EXTENSION not in by_extension:
            raise BadPair(
                f"{FailureReason.NO_CAPTION}: has {sorted(by_extension)}, wanted {CAPTION_EXTENSION}"
            )
        caption_bytes = self.read(by_extension[CAPTION_EXTENSION])
        fields = self._read_fields(by_extension.get(FIELDS_EXTENSION))
        image_bytes = self.read(image)
        return Pair(
            uid=fields.get("uid") or content_uid(image_bytes, caption_bytes),
            key=key,
            caption=captions.decode_caption(caption_bytes),
            fields=fields,
            image=image_bytes,
            members=members,
        )

    def _read_fields(self, member: Member | None) -> dict[str, Any]:
        if member is None:
            return {}
        try:
            text = self.read(member).decode("utf-8-sig")
            fields = json.loads(text)
            if "\\ud" in text.lower():  # half an emoji is valid JSON, but no text that can be written
                json.dumps(fields, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise BadPair(f"{FailureReason.BAD_JSON}: {error}") from error
        if not isinstance(fields, dict):
            raise BadPair(f"{FailureReason.BAD_JSON}: a {type(fields).__name__}, wanted an object")
        uid = fields.get("uid")
        if uid is not None and not is_uid(uid):
            raise BadPair(
                f"{FailureReason.BAD_JSON}: uid is {uid!r}, wanted {UID_DIGITS} lower-case hex digits"
            )
        return fields

    def _uid_of_bad(self, members: tuple[Member, ...]) -> str:
        for member in members:
            if member.name.endswith(f".{FIELDS_EXTENSION}"):
                try:
                    uid = self._read_fields(member).get("uid")
                except BadPair:
                    return ""
                return str(uid or "")
        return ""

    def _fail(self, uid: str, key: str, reason: FailureReason, detail: str) -> None:
        self.failures.append(Failure(uid=uid, key=key, shard=self.path.name, reason=reason, detail=detail))


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
        stem = self.path.with_suffix("")
        return [self.path, stem.with_suffix(".parquet"), stem.with_name(f"{stem.name}_stats.json")]

    def __enter__(self) -> Self:
        self._file = self._resources.enter_context(_tar_file(self.path))
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
        self._rows.append(_row(pair.uid, pair.key, pair.caption, pair.fields))

    def copy_raw(self, shard: Shard, members: Sequence[Member]) -> None:
        """Append members that form no usable pair, byte for byte; they get no row."""
        self._file.write(shard.raw(members))

    def add(self, key: str, *, image: bytes, caption: str, fields: Mapping[str, Any]) -> None:
        """Append a new pair. ``fields`` should carry the ``uid``; sha256 and caption are set here."""
        full = {**fields, "key": key, "caption": caption, "sha256": hashlib.sha256(image).hexdigest()}
        full.setdefault("uid", content_uid(image, caption.encode()))
        full.setdefault("status", "success")
        self._append(f"{key}.jpg", image)
        self._append(f"{key}.txt", caption.encode())
        self._append(f"{key}.json", json.dumps(full, ensure_ascii=False).encode())
        self._rows.append(_row(full["uid"], key, caption, full))

    def _append(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self._file.write(data)
        self._file.write(b"\0" * (-len(data) % BLOCK))

    def _write_sidecars(self) -> None:
        import polars

        _, parquet, stats = self.files
        buffer = io.BytesIO()
        polars.DataFrame(self._rows, schema=SIDECAR_SCHEMA).write_parquet(buffer)
        with atomic_file(parquet) as file:
            file.write(buffer.getvalue())
        count = len(self._rows)
        write_json(
            stats, {"count": count, "successes": count, "failed_to_download": 0, "failed_to_resize": 0}
        )


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


def split_name(name: str) -> tuple[str, str]:
    """Key and lower-case extension of a member, as WebDataset splits them: at the base name's first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def content_uid(image: bytes, caption: bytes) -> str:
    """A uid for a pair that brings none: 128 bits of its content, so equal pairs are one pair."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(len(image).to_bytes(8, "big") + image + caption)
    return digest.hexdigest()


def is_uid(value: object) -> bool:
    """Whether ``value`` is 32 lower-case hex digits."""
    return isinstance(value, str) and len(value) == UID_DIGITS and set(value) <= set("0123456789abcdef")


@contextmanager
def _tar_file(path: Path) -> Iterator[IO[bytes]]:
    """A tar's file, atomic; its end blocks come by themselves."""
    with atomic_file(path) as file:
        yield file
        file.write(b"\0" * (2 * BLOCK))
        file.write(b"\0" * (-file.tell() % tarfile.RECORDSIZE))


def _row(uid: str, key: str, caption: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: _fitting(fields.get(name), kind) for name, kind in SIDECAR_SCHEMA.items()}
    return {**known, "uid": uid, "key": key, "caption": caption, "status": "success"}


def _fitting(value: Any, kind: Any) -> Any:
    """A field if it is what its column wants, else None: anyone may have written it."""
    fits = type(value) is kind and (kind is str or -(2**63) <= value < 2**63)
    return value if fits else None


def _long_names(kind: bytes, data: bytes) -> dict[str, str]:
    """The path that a GNU or PAX long-name header gives to the member after it, if any."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", NAME_ERRORS)}
    if kind != tarfile.XHDTYPE:
        return {}
    paths = [value.decode("utf-8", NAME_ERRORS) for name, value in _pax_records(data) if name == b"path"]
    return {"path": paths[-1]} if paths else {}


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while match := PAX_RECORD.match(data, position):
        position += int(match[1])
        yield match[2], data[match.end() : position - 1]
