"""Tar blocks ⇄ members: one walk over the headers, nothing copied, nothing decoded.

Knows long names in GNU's and in PAX's form, and refuses what does not add up. Door to tarfile.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import IO

from roclip_sanitize.errors import ShardUnreadable
from roclip_sanitize.runfiles import atomic_file

BLOCK = tarfile.BLOCKSIZE
NAME_ERRORS = "backslashreplace"  # a name that is no UTF-8 must still fit into tables
LONG_NAME_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
PAX_RECORD = re.compile(rb"([1-9]\d{0,18}) ([^=]+)=")  # its length in bytes, then its name


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


def walk_members(data: mmap | bytes, *, tar: str) -> Iterator[Member]:
    """Walk the headers.

    Args:
        data: the whole tar.
        tar: its name, for messages.

    Yields:
        Regular files, in order, each wholly present.

    Raises:
        ShardUnreadable: the shard is empty, is no tar, or breaks off; what came before the
            break has been yielded.
    """
    if not len(data):
        raise ShardUnreadable(f"{tar} is empty (0 bytes)")
    position = start = 0
    overrides: dict[str, str] = {}
    while True:
        header = data[position : position + BLOCK]
        if header == b"\0" * BLOCK:
            return
        info = _parse_header(header, position, tar=tar)
        begin, position = position + BLOCK, position + BLOCK + -(-info.size // BLOCK) * BLOCK
        if begin + info.size > len(data):
            raise ShardUnreadable(
                f"{tar} breaks off inside {overrides.get('path', info.name)}: "
                f"{begin + info.size:,} bytes wanted, {len(data):,} found"
            )
        if info.type in LONG_NAME_TYPES:
            overrides |= _long_names(info.type, data[begin : begin + info.size])
            continue
        if info.isreg():
            yield Member(overrides.get("path", info.name), start, begin, info.size)
        overrides, start = {}, position


@contextmanager
def tar_file(path: Path) -> Iterator[IO[bytes]]:
    """A tar to append blocks to: atomic, and its end comes by itself."""
    with atomic_file(path) as file:
        yield file
        file.write(b"\0" * (2 * BLOCK))
        file.write(b"\0" * (-file.tell() % tarfile.RECORDSIZE))


def member_blocks(name: str, data: bytes) -> bytes:
    """A file as tar blocks. Time, owner and mode are fixed, so that equal files are equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + data + b"\0" * (-len(data) % BLOCK)


def _parse_header(header: bytes, position: int, *, tar: str) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", NAME_ERRORS)
    except tarfile.HeaderError as error:
        what = "is no tar" if position == 0 else f"has no valid header at byte {position:,}"
        raise ShardUnreadable(f"{tar} {what}: {error}") from error
    if info.size < 0:  # base-256 sizes have a sign: the walk would go backwards, for ever
        raise ShardUnreadable(f"{tar} has a member of {info.size} bytes at byte {position:,}")
    return info


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
