"""Known-bad pictures: lists in every form, the same bytes and the same looks, the stage and its list."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from roclip_sanitize.cli import call
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.hashes import bits_apart, encoded_hash
from roclip_sanitize.known_bad import Hit, KnownBad, read_known_bad
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.scan.keep_list import read_keep_list
from roclip_sanitize.screen import ScreenSettings
from roclip_sanitize.shard_writer import ShardWriter


def photo(seed: int, *, quality: int = 95, side: int = 96) -> bytes:
    """A picture with shapes of its own."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
    out = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_shard(path: Path, pictures: dict[str, bytes]) -> None:
    with ShardWriter(path) as writer:
        for key, image in pictures.items():
            writer.add(key, image=image, caption=f"picture {key}", fields={})


def test_a_picture_is_known_by_its_bytes_or_its_looks() -> None:
    bad, again, other = photo(1), photo(1, quality=60, side=64), photo(2)
    sha256, phash = hashlib.sha256(bad).hexdigest(), encoded_hash(bad)
    by_bytes = KnownBad([("sha256", sha256)], tolerance=10)
    assert by_bytes.find(bad, None) == Hit(kind="sha256", listed=sha256)
    assert by_bytes.find(again, encoded_hash(again)) is None
    by_looks = KnownBad([("phash", phash), ("phash", "0" * 16)], tolerance=10)
    assert by_looks.counts == {"phash": 2}
    apart = bits_apart(phash, encoded_hash(again))
    assert by_looks.find(again, encoded_hash(again)) == Hit(kind="phash", listed=phash, bits=apart)
    assert by_looks.find(other, encoded_hash(other)) is None


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
    st.integers(0, 2**64 - 1),
    st.integers(0, 31),
)
def test_the_nearest_phash_decides(listed: list[int], asked: int, tolerance: int) -> None:
    known = KnownBad([("phash", f"{one:016x}") for one in listed], tolerance=tolerance)
    nearest = min((one ^ asked).bit_count() for one in listed)
    hit = known.find(b"", f"{asked:016x}")
    assert (hit is not None) == (nearest <= tolerance)
    assert hit is None or bits_apart(hit.listed, f"{asked:016x}") == hit.bits == nearest


def test_lists_may_be_text_or_tables(tmp_path: Path) -> None:
    text, table = tmp_path / "list.txt", tmp_path / "list.parquet"
    text.write_text(f"\ufeff{'A' * 64},seen twice\r\n# of 2026\n\n{'b' * 32}\n{'c' * 16}\n")
    polars.DataFrame({"phash": ["d" * 16, None], "note": ["x", "y"]}).write_parquet(table)
    assert read_known_bad([text, table], tolerance=0).counts == {"sha256": 1, "md5": 1, "phash": 2}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.txt", b"abc\n", r"list.txt, line 1: 'abc' is no hash, wanted hex digits: 64 of a sha256, 32"),
        ("list.txt", b"#\n" + b"z" * 64 + b"\n", "line 2: 'zzzz"),
        ("list.txt", b"\xff" * 9_000, "line 1"),
        ("list.parquet", {"md5": ["e" * 31]}, "row 0: 'e{31}' is no md5 of 32 hex digits"),
        ("list.parquet", {"hash": ["e"]}, "has the columns hash, wanted some of sha256, md5, phash"),
    ],
)
def test_what_is_no_list_is_refused(
    tmp_path: Path, name: str, content: bytes | dict[str, list[str]], words: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        polars.DataFrame(content).write_parquet(path)
    with pytest.raises(DataError, match=words):
        read_known_bad([path], tolerance=0)


def test_listed_pairs_are_told_and_listed(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.tar", {f"a{number}": photo(number) for number in range(4)})
    write_shard(
        tmp_path / "00001.tar", {"b0": photo(0, quality=50), "b1": b"\xff\xd8 nothing", "b2": photo(9)}
    )
    bad = tmp_path / "bad.txt"
    bad.write_text(f"{encoded_hash(photo(0))}\n{hashlib.md5(photo(2)).hexdigest()}\n")
    told = {
        "shards": str(tmp_path / "{00000..00001}.tar"),
        "known_bad": [str(bad)],
        "out": str(tmp_path / "out"),
        "executor": "local",
    }
    facts = call("screen", **told, max_failed=0.5)  # type: ignore[arg-type]
    assert (facts["seen"], facts["quarantined"], sum(facts["failed"].values())) == (7, {"known_bad": 3}, 1)
    table = polars.concat(
        [polars.read_parquet(path) for path in sorted((tmp_path / "out/screened").iterdir())]
    )
    known = dict(zip(table["key"], table["known"], strict=True))
    assert known == {"a0": "phash", "a1": None, "a2": "md5", "a3": None, "b0": "phash", "b2": None}
    assert read_keep_list(tmp_path / "out/listed.npy") == sorted(table.drop_nulls("known")["uid"])
    again = call("screen", **told, max_failed=0.5)  # type: ignore[arg-type]
    assert again["quarantined"] == {"known_bad": 3}
    bad.write_text("0" * 32 + "\n")
    with pytest.raises(MismatchError):
        call("screen", **told)  # type: ignore[arg-type]


def test_shards_that_were_written_anew_are_not_told_as_done(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(f"{hashlib.md5(photo(2)).hexdigest()}\n")
    told = {"known_bad": [str(tmp_path / "bad.txt")], "out": str(tmp_path / "out"), "executor": "local"}
    told["shards"] = str(tmp_path / "{00000..00001}.tar")
    for number in range(2):
        write_shard(tmp_path / f"{number:05d}.tar", {"a": photo(0), "b": photo(1)})
    assert call("screen", **told)["quarantined"] == {}  # type: ignore[arg-type]
    write_shard(tmp_path / "00001.tar", {"a": photo(0), "b": photo(2)})
    with pytest.raises(MismatchError, match=r"00001\.tar holds other pairs than when it was screened"):
        call("screen", **told)  # type: ignore[arg-type]
    marker = tmp_path / "out/done/00001.json"
    noted = read_json(marker)
    del noted["facts"]["content"]  # as an earlier version left it
    write_json(marker, noted)
    assert call("screen", **told)["quarantined"] == {}  # type: ignore[arg-type]


def test_what_cannot_be_screened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no list of known-bad pictures"):
        ScreenSettings(shards=(), known_bad=())
    with pytest.raises(ConfigError, match="tolerance is 32 bits, wanted 0 to 31"):
        ScreenSettings(shards=(), known_bad=(tmp_path,), tolerance=32)
    write_shard(tmp_path / "0.tar", {"a": photo(0)})
    empty = tmp_path / "empty.txt"
    empty.write_text("# none\n")
    with pytest.raises(ConfigError, match="no hash on"):
        call(
            "screen",
            shards=str(tmp_path / "0.tar"),
            known_bad=[str(empty)],
            out=str(tmp_path / "out"),
            executor="local",
        )
