"""Shards: WebDataset tars as img2dataset writes them, read and written member by member.

    00000.tar     KEY.jpg KEY.txt KEY.json, one pair after the other
    00000.parquet what is known of each pair; 00000_stats.json the counts

Reading walks the tar's headers over a memory map, which sources.py makes of a file, a URL or a
gzip, and copies nothing until asked, so that a pass that only selects or copies costs no
decoding. A pair can be copied as the raw blocks it had, headers and padding included: that is
what "byte-identical" means here.

A broken pair costs no other pair: it becomes a Failure. A broken shard costs what lies behind
the break.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from roclip_sanitize import captions
from roclip_sanitize.braces import expand_braces, not_there
from roclip_sanitize.errors import BadPair, ConfigError, ShardUnreadable
from roclip_sanitize.images import MAX_IMAGE_BYTES
from roclip_sanitize.records import UID_DIGITS, Failure, FailureReason, is_uid
from roclip_sanitize.remote import bare_path, file_name, is_url, source_name
from roclip_sanitize.sources import Opened, missing_sources, open_source, source_path
from roclip_sanitize.tars import Member, split_name, walk_members

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_EXTENSION = "txt"
FIELDS_EXTENSION = "json"
BYTE_ORDER_MARK = "\ufeff"
MAX_CAPTION_BYTES, MAX_FIELDS_BYTES = 1_000_000, 4_000_000  # of files, before they are read


def expand_shards(spec: str) -> list[Path]:
    """The shards that a specification names, in order.

    Args:
        spec: paths or URLs with brace ranges (``data/{00000..00331}.tar``,
            ``s3://bucket/{00000..00331}.tar.gz``), several joined by ``::``.

    Returns:
        A path each; see sources.py for what stands for a URL.

    Raises:
        ConfigError: the specification is empty, leaves a brace open, stands for more than a million
            names, a folder or a shard twice; or there is no such protocol here.
        ShardMissing: a named shard does not exist.
        ShardUnreadable: a store does not answer.
    """
    parts = [part.strip() for part in spec.split("::") if part.strip()]
    paths = [source_path(name) for part in parts for name in expand_braces(part)]
    if not paths:
        raise ConfigError(f"no shards named in {spec!r}: wanted something like 'data/{{00000..00009}}.tar'")
    if missing := missing_sources(paths):
        raise not_there([source_name(path) for path in missing], of=len(paths))
    places = {str(bare_path(path)) if is_url(path) else os.path.abspath(path) for path in paths}
    if len(places) < len(paths):
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
    """A tar open for reading. Use as a context manager; what entering raises, open_source() says.

    Args:
        path: where it lies.
        whole: whether most of it will be read; see open_source().

    Attributes:
        path: where it lies.
        name: of its file.
        failures: what was wrong so far; complete once pairs() is exhausted.
    """

    def __init__(self, path: Path, *, whole: bool = True) -> None:
        self.path, self.name = path, file_name(path)
        self._whole = whole
        self.failures: list[Failure] = []
        self._resources = ExitStack()
        self._opened = Opened(data=b"")

    def __enter__(self) -> Self:
        self._opened = self._resources.enter_context(open_source(self.path, whole=self._whole))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def retries(self) -> Counter[str]:
        """What its store was asked again for, by kind of failure."""
        return self._opened.retries

    def members(self) -> Iterator[Member]:
        """The tar's files, in order.

        Raises:
            ShardUnreadable: as walk_members() says, or not all could be unpacked; what came before
                the break has been yielded.
        """
        if len(self._opened.data) or not self._opened.flaw:
            yield from walk_members(self._opened.data, tar=self.name)
        if self._opened.flaw:
            raise ShardUnreadable(self._opened.flaw)

    def pairs(self) -> Iterator[Pair]:
        """Read the pairs one by one; what cannot be used goes to ``failures``.

        Never raises for bad content: an unreadable shard yields nothing and one Failure, a
        truncated one yields what lies before the break and one Failure.
        """
        seen_keys: set[str] = set()
        seen_uids: dict[str, int] = {}
        for key, by_extension in self._files():
            if key in seen_keys:
                self._fail("", key, FailureReason.DUPLICATE_KEY, "this key came before in the same shard")
                continue
            seen_keys.add(key)
            try:
                pair = self._read_pair(key, by_extension)
            except BadPair as error:
                uid = self._uid_of_bad(by_extension)
                self.failures.append(Failure.of(error, uid=uid, key=key, shard=self.name))
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
        """Members grouped by key, as WebDataset groups them: neighbours with one stem, see split_name()."""
        for key, by_extension in self._files():
            yield key, tuple(by_extension.values())

    def _files(self) -> Iterator[tuple[str, dict[str, Member]]]:
        """The same, each group by extension and in shard order."""
        current, group = "", dict[str, Member]()
        try:
            for member in self.members():
                key, extension = split_name(member.name)
                if not key:
                    continue
                if group and (key != current or extension in group):
                    yield current, group
                    group = {}
                current = key
                group[extension] = member
        except ShardUnreadable as error:
            if not group and not current:
                self._fail("", "", FailureReason.UNREADABLE_SHARD, str(error))
                return
            self._fail("", current, FailureReason.TRUNCATED_SHARD, str(error))
            return  # the group at the break may lack members: it is part of what was lost
        if group:
            yield current, group

    def pair(self, members: Sequence[Member]) -> Pair:
        """Read one pair whose members are known.

        Raises:
            BadPair: they make none.
        """
        named = [(*split_name(member.name), member) for member in members]
        return self._read_pair(named[0][0], {extension: member for _, extension, member in named})

    def read(self, member: Member) -> bytes:
        """A member's data."""
        return self._opened.data[member.offset : member.offset + member.size]

    def raw(self, members: Sequence[Member]) -> bytes:
        """The tar blocks of some members exactly as they lie in the shard."""
        return b"".join(self._opened.data[member.start : member.end] for member in members)

    def _read_pair(self, key: str, by_extension: Mapping[str, Member]) -> Pair:
        image = next((by_extension[name] for name in IMAGE_EXTENSIONS if name in by_extension), None)
        if image is None:
            raise BadPair(
                f"{FailureReason.NO_IMAGE}: has {sorted(by_extension)}, wanted one of {IMAGE_EXTENSIONS}"
            )
        if CAPTION_EXTENSION not in by_extension:
            raise BadPair(
                f"{FailureReason.NO_CAPTION}: has {sorted(by_extension)}, wanted {CAPTION_EXTENSION}"
            )
        _require_size(image, MAX_IMAGE_BYTES, FailureReason.IMAGE_TOO_LARGE)
        _require_size(by_extension[CAPTION_EXTENSION], MAX_CAPTION_BYTES, FailureReason.CAPTION_TOO_LONG)
        image_bytes = self.read(image)  # mostly first in its shard: what follows comes with it
        caption_bytes = self.read(by_extension[CAPTION_EXTENSION])
        fields = self._read_fields(by_extension.get(FIELDS_EXTENSION))
        return Pair(
            uid=fields.get("uid") or content_uid(image_bytes, caption_bytes),
            key=key,
            caption=captions.decode_caption(caption_bytes),
            fields=fields,
            image=image_bytes,
            members=tuple(by_extension.values()),
        )

    def _read_fields(self, member: Member | None) -> dict[str, Any]:
        if member is None:
            return {}
        _require_size(member, MAX_FIELDS_BYTES, FailureReason.BAD_JSON)
        try:
            text = self.read(member).decode().removeprefix(BYTE_ORDER_MARK)
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

    def _uid_of_bad(self, by_extension: Mapping[str, Member]) -> str:
        try:
            return str(self._read_fields(by_extension.get(FIELDS_EXTENSION)).get("uid") or "")
        except BadPair:
            return ""

    def _fail(self, uid: str, key: str, reason: FailureReason, detail: str) -> None:
        self.failures.append(Failure(uid=uid, key=key, shard=self.name, reason=reason, detail=detail))


def _require_size(member: Member, most: int, reason: FailureReason) -> None:
    """Refuse a file before it is read."""
    if member.size > most:
        raise BadPair(f"{reason}: {member.size:,} bytes, at most {most:,}")


def content_uid(image: bytes, caption: bytes) -> str:
    """A uid for a pair that brings none: 128 bits of its content, so equal pairs are one pair."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(len(image).to_bytes(8, "big") + image + caption)
    return digest.hexdigest()
