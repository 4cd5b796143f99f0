"""Tar blocks ⇄ members: one walk over the headers, nothing copied, nothing decoded.

Knows long names in GNU's and in PAX's form, and refuses what does not add up. Door to tarfile,
which is asked about every header but a plain file's: it takes ten times as long, and a walk that
copies nothing does little else.
"""

from __future__ import annotations

import re
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from zlib import adler32

from roclip_sanitize.errors import ShardUnreadable
from roclip_sanitize.sources import Bytes
from roclip_sanitize.storage import atomic_file

BLOCK = tarfile.BLOCKSIZE
NAME_ERRORS = "backslashreplace"  # a name that is no UTF-8 must still fit into tables
END_BLOCK = b"\0" * BLOCK
HEADER = struct.Struct("100s 24x 12s 12x 8s c 188x 155s 12x")  # name, size, checksum, type, name's prefix
HALF = BLOCK // 2
ADLER_SUM = 0xFFFF
CHECKSUM_BLANK = 8 * ord(" ")  # the checksum is taken with spaces in its own place
LONG_NAME_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
MAX_LONG_NAME_BYTES = 1 << 20  # of a header that only names the file after it
MAX_MEMBERS = 10_000_000  # of one tar: whoever reads it keeps a key for every three
WEBDATASETS_OWN = re.compile(r"__[^/]*__/")
PAX_RECORD = re.compile(rb"([1-9]\d{0,18}) ([^=]{1,1024})=")  # its length in bytes, then its name


class Member(NamedTuple):
    """One file in a tar: where its blocks start, and its data. A tuple, for these are made by the million.

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


def walk_members(data: Bytes, *, tar: str) -> Iterator[Member]:
    """Walk the headers.

    Args:
        data: the whole tar.
        tar: its name, for messages.

    Yields:
        Regular files, in order, each wholly present.

    Raises:
        ShardUnreadable: the shard is empty, is no tar, breaks off, or has more files than any shard;
            what came before has been yielded.
    """
    if not len(data):
        raise ShardUnreadable(f"{tar} is empty (0 bytes)")
    position = start = members = 0
    long_name = ""
    while (header := data[position : position + BLOCK]) != END_BLOCK:
        name, size, kind = _plain_file(header) or _any_header(header, position, tar=tar)
        begin, position = position + BLOCK, position + BLOCK + -(-size // BLOCK) * BLOCK
        if begin + size > len(data):
            raise ShardUnreadable(
                f"{tar} breaks off inside {long_name or name}: "
                f"{begin + size:,} bytes wanted, {len(data):,} found"
            )
        if kind in LONG_NAME_TYPES:
            if size > MAX_LONG_NAME_BYTES:
                raise ShardUnreadable(f"{tar} has a name of {size:,} bytes, at most {MAX_LONG_NAME_BYTES:,}")
            long_name = _long_name(kind, data[begin : begin + size]) or long_name
            continue
        if kind in tarfile.REGULAR_TYPES:
            if (members := members + 1) > MAX_MEMBERS:
                raise ShardUnreadable(f"{tar} has more than {MAX_MEMBERS:,} files")
            yield Member(long_name or name, start, begin, size)
        long_name, start = "", position


def split_name(name: str) -> tuple[str, str]:
    """Key and lower-case extension of a member, as WebDataset splits them: at the base name's first dot.

    Both are "" of what it passes over: names that begin with a dot, as macOS's ``._0.jpg``, or have none, and
    folders of its own.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not (stem and dot) or (name.startswith("__") and WEBDATASETS_OWN.match(name)):
        return "", ""
    return f"{folder}{slash}{stem}", extension.lower()


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


def _plain_file(header: bytes) -> tuple[str, int, bytes] | None:
    """Name, size and type of a plain file with a valid header; None where tarfile must judge.

    Adler's lower half is the sum of the bytes modulo 65,521, which 256 of them cannot reach.
    """
    if len(header) < BLOCK:
        return None
    name, size_octal, checksum, kind, prefix = HEADER.unpack(header)
    total = (adler32(header[:HALF], 0) & ADLER_SUM) + (adler32(header[HALF:], 0) & ADLER_SUM)
    total += CHECKSUM_BLANK - (adler32(checksum, 0) & ADLER_SUM)
    try:
        size = int(size_octal.partition(b"\0")[0], 8)
        if kind != tarfile.REGTYPE or size < 0 or int(checksum.partition(b"\0")[0], 8) != total:
            return None
    except ValueError:  # a size in base 256, or rubbish
        return None
    path = name.partition(b"\0")[0].decode("utf-8", NAME_ERRORS)
    if prefix[0]:
        path = prefix.partition(b"\0")[0].decode("utf-8", NAME_ERRORS) + "/" + path
    return path, size, kind


def _any_header(header: bytes, position: int, *, tar: str) -> tuple[str, int, bytes]:
    """Name, size and type as tarfile reads them.

    Raises:
        ShardUnreadable: it refuses, or the size is negative.
    """
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", NAME_ERRORS)
    except tarfile.HeaderError as error:
        what = "is no tar" if position == 0 else f"has no valid header at byte {position:,}"
        raise ShardUnreadable(f"{tar} {what}: {error}") from error
    if info.size < 0:  # base-256 sizes have a sign: the walk would go backwards, for ever
        raise ShardUnreadable(f"{tar} has a member of {info.size} bytes at byte {position:,}")
    return info.name, info.size, info.type


def _long_name(kind: bytes, data: bytes) -> str:
    """The name that a GNU or PAX header gives to the member after it, or ""."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", NAME_ERRORS)
    if kind != tarfile.XHDTYPE:
        return ""
    paths = [value.decode("utf-8", NAME_ERRORS) for name, value in _pax_records(data) if name == b"path"]
    return paths[-1] if paths else ""


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while match := PAX_RECORD.match(data, position):
        position += int(match[1])
        if position <= match.end():  # shorter than its own beginning: no record
            return
        yield match[2], data[match.end() : position - 1]
