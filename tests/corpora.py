"""Tiny shards for tests: well-formed ones by the package's writer, any others member by member."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.records import Failure
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard

Members = list[tuple[str, bytes]]
LABELS = ("shoe", "hat")
FORMATS = pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])


def picture(number: int, side: int = 16) -> bytes:
    """A square JPEG, noise of its own."""
    return encode_jpeg(np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8))


def uid(number: int) -> str:
    """A uid that shows its number."""
    return f"{number:032x}"


def write_shard(path: Path, numbers: Iterable[int]) -> Path:
    """Good pairs, by the package's own writer."""
    with ShardWriter(path) as writer:
        for number in numbers:
            label = LABELS[number % len(LABELS)]
            fields = {"uid": uid(number), "kind": label, "width": 16, "height": 16}
            writer.add(
                f"{number:06d}", image=picture(number), caption=f"a {label}, item {number}", fields=fields
            )
    return path


def pair_members(
    key: str,
    number: int,
    *,
    image: bytes | None = None,
    caption: bytes | None = None,
    fields: bytes | Mapping[str, Any] | None = None,
) -> Members:
    """The three members of one pair, a good one where nothing else is asked for."""
    fields = {"uid": uid(number), "kind": LABELS[number % len(LABELS)]} if fields is None else fields
    return [
        (f"{key}.jpg", picture(number) if image is None else image),
        (f"{key}.txt", f"item {number}".encode() if caption is None else caption),
        (f"{key}.json", fields if isinstance(fields, bytes) else json.dumps(fields).encode()),
    ]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], *, kind: int = tarfile.PAX_FORMAT) -> Path:
    """Any members, as Python's tarfile writes them."""
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_header(name: str, size: int) -> bytes:
    """A header block with a valid checksum, whatever its size claims."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def forged_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    jpeg = bytearray(picture(0))
    frame = jpeg.index(b"\xff\xc0")  # marker, length, precision, height, width
    jpeg[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(jpeg)


def read_shard(path: Path) -> tuple[list[Pair], list[Failure]]:
    """Everything that a shard has to give."""
    with Shard(path) as shard:
        pairs = list(shard.pairs())
        return pairs, shard.failures


def blocks_of(paths: Sequence[Path]) -> dict[str, bytes]:
    """Every usable pair's raw tar blocks, by uid."""
    blocks = dict[str, bytes]()
    for path in paths:
        with Shard(path) as shard:
            blocks |= {pair.uid: shard.raw(pair.members) for pair in shard.pairs()}
    return blocks
