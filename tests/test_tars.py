"""The header walk against Python's tarfile, which is its slow reference."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from roclip_sanitize.errors import ShardUnreadable
from roclip_sanitize.tars import BLOCK, Member, walk_members
from tests.corpora import tar_header

KINDS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]

stems = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1, max_size=40)
paths = st.lists(stems, min_size=1, max_size=6).map("/".join)
files = st.lists(st.tuples(paths, st.integers(0, 3 * BLOCK)), max_size=5)


def packed(contents: list[tuple[str, int]], kind: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, size in contents:
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(b"x" * size))
    return buffer.getvalue()


def walked(data: bytes) -> list[Member]:
    return list(walk_members(data, tar="x.tar"))


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@given(contents=files, kind=st.sampled_from(KINDS))
def test_the_walk_finds_what_tarfile_finds(contents: list[tuple[str, int]], kind: int) -> None:
    try:
        data = packed(contents, kind)
    except ValueError:  # ustar has no room for such a name
        reject()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive]
    assert [(member.name, member.offset, member.size) for member in walked(data)] == expected


@given(contents=files, kind=st.sampled_from(KINDS[1:]))
def test_members_lie_end_to_end(contents: list[tuple[str, int]], kind: int) -> None:
    """Hence a copy of all members' blocks is a copy of the tar, long-name headers included."""
    data = packed(contents, kind)
    end = 0
    for member in walked(data):
        assert member.start == end
        end = member.end
    assert data[end : end + 2 * BLOCK] == b"\0" * (2 * BLOCK)


@given(place=st.integers(0, 147) | st.integers(156, BLOCK - 1), change=st.integers(1, 255))
def test_a_header_with_any_byte_changed_is_refused(place: int, change: int) -> None:
    """The checksum's own field is left alone: it may be padded in more than one way."""
    header = bytearray(tar_header("a.jpg", 0))
    header[place] = (header[place] + change) % 256
    with pytest.raises(ShardUnreadable, match="bad checksum"):
        walked(bytes(header) + b"\0" * (2 * BLOCK))


def test_a_checksum_may_be_larger_than_sixteen_bits() -> None:
    header = bytearray(tar_header("", 0))
    header[0:100], header[345:500] = b"\xff" * 100, b"\xff" * 155
    data = with_checksum(header)
    assert int(data[148:154], 8) > 0xFFFF
    (member,) = walked(data + b"\0" * BLOCK)
    assert member.name == r"\xff" * 155 + "/" + r"\xff" * 100


def test_sizes_in_base_256_are_read() -> None:
    header = bytearray(tar_header("a.jpg", 0))
    header[124:136] = b"\x80" + (5).to_bytes(11, "big")
    (member,) = walked(with_checksum(header) + b"hello".ljust(BLOCK, b"\0") + b"\0" * BLOCK)
    assert (member.name, member.offset, member.size) == ("a.jpg", BLOCK, 5)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.jpg"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("a.jpg"))
    assert [member.name for member in walked(path.read_bytes())] == ["a.jpg"]
