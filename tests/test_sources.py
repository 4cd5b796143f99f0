"""Where shards lie must not matter: the same pairs from a path, a gzip, a URL, or a store that fails."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec import register_implementation
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from roclip_sanitize import remote, sources
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, ShardMissing, ShardUnreadable
from roclip_sanitize.executors import open_executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.records import FailureReason
from roclip_sanitize.remote import source_name
from roclip_sanitize.rewrite import RewriteSettings, kept_shards, rewrite_shards
from roclip_sanitize.runfiles import sha256_of
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.shards import Shard, expand_shards
from roclip_sanitize.sources import open_source, source_path, source_sha256, source_stem, source_version
from tests.corpora import blocks_of, read_shard, uid, write_shard


class Store(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files in memory under another protocol's name."""

    store: dict[str, Any] = {}  # noqa: RUF012  # as fsspec has it: one for all

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        name: str = super()._strip_protocol(path.replace(f"{cls.protocol}://", "memory://", 1))
        return name


class FlakyStore(Store):
    """Fails every third read, and counts what it is asked."""

    protocol = "flaky"
    reads = 0
    listings = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **told: Any) -> bytes:
        FlakyStore.reads += 1
        if FlakyStore.reads % 3 == 1:
            raise ConnectionResetError("connection reset by peer")
        data: bytes = super().cat_file(path, start=start, end=end, **told)
        return data

    def ls(self, path: str, detail: bool = True, **told: Any) -> Any:
        FlakyStore.listings += 1
        return super().ls(path, detail=detail, **told)


class DeadStore(Store):
    """Lists its files and hands none of them out."""

    protocol = "dead"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **told: Any) -> bytes:
        raise PermissionError("no such key") if path.startswith("/locked") else OSError("no route to host")


class GenerousStore(Store):
    """Sends the whole file whatever range it is asked for, as simple web servers do."""

    protocol = "generous"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **told: Any) -> bytes:
        data: bytes = super().cat_file(path, **told)
        return data


for kind in (FlakyStore, DeadStore, GenerousStore):
    register_implementation(kind.protocol, kind, clobber=True)


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    FlakyStore.reads = FlakyStore.listings = 0
    yield
    Store.store.clear()
    MemoryFileSystem.store.clear()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path / "0.tar", range(6))


def put(url: str, data: bytes) -> Path:
    """Lay a file into a store: the Path that stands for it."""
    system, name = url_to_fs(url)
    system.pipe_file(name, data)
    return source_path(url)


# Names


@pytest.mark.parametrize("url", ["s3://bucket/a/0.tar", "gs://bucket/0.tar.gz", "memory://0.tar"])
def test_a_url_survives_as_a_path(url: str) -> None:
    """Settings and markers keep paths as text, and read them back."""
    path = source_path(url)
    assert path.name == url.rpartition("/")[2]
    assert source_name(Path(str(path))) == url


def test_a_local_path_stays_what_it_is(tmp_path: Path) -> None:
    for name in ("a/0.tar", str(tmp_path / "0.tar"), "a:b/0.tar", "C:/0.tar"):
        assert source_path(name) == Path(name)
        assert source_name(Path(name)) == name
    assert source_path(f"file://{tmp_path}/0.tar") == tmp_path / "0.tar"
    assert source_path("~/0.tar") == Path.home() / "0.tar"


@pytest.mark.parametrize("url", ["s3://bucket//0.tar", "s3://bucket/./0.tar", "memory:///0.tar"])
def test_a_url_that_a_path_cannot_keep_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="has empty or dotted parts"):
        source_path(url)


@pytest.mark.parametrize("name", ["a/0.tar", "a/0.tgz", "a/0.tar.gz", "0"])
def test_a_stem_says_nothing_of_packing(name: str) -> None:
    assert source_stem(Path(name)) == "0"


# Which exist


def test_remote_shards_are_looked_up_in_one_listing(shard: Path) -> None:
    for number in range(20):
        put(f"flaky://bucket/{number:05d}.tar", shard.read_bytes())
    paths = expand_shards("flaky://bucket/{00000..00019}.tar")
    assert [path.name for path in paths] == [f"{number:05d}.tar" for number in range(20)]
    assert FlakyStore.listings == 1
    assert FlakyStore.reads == 0


def test_a_missing_remote_shard_is_named_as_it_was_given(shard: Path) -> None:
    put("memory://bucket/0.tar", shard.read_bytes())
    with pytest.raises(ShardMissing, match=r"memory://bucket/1\.tar and 1 more do not exist, of 3 named"):
        expand_shards("memory://bucket/{0..2}.tar")
    with pytest.raises(ShardMissing, match=r"memory://elsewhere/0\.tar does not exist$"):
        expand_shards("memory://elsewhere/0.tar")
    with (
        pytest.raises(ShardMissing, match=r"memory://bucket/1\.tar does not exist"),
        Shard(Path("memory:/bucket/1.tar")),
    ):
        pass


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nonsense://bucket cannot be read here: Protocol not known"):
        expand_shards("nonsense://bucket/0.tar")


def test_a_store_may_have_no_folders(shard: Path) -> None:
    path = put("memory://0.tar", shard.read_bytes())
    assert expand_shards("memory://0.tar") == [path]
    assert read_shard(path) == read_shard(shard)


def test_local_and_remote_shards_may_be_joined(shard: Path) -> None:
    remote = put("memory://bucket/1.tar", shard.read_bytes())
    assert expand_shards(f"{shard}::memory://bucket/1.tar") == [shard, remote]


# What is read


@pytest.mark.parametrize("protocol", ["memory", "flaky", "generous"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_remote_shard_holds_what_a_local_one_holds(shard: Path, protocol: str, pack: Any) -> None:
    remote = put(f"{protocol}://bucket/0.tar", pack(shard.read_bytes()))
    pairs, failures = read_shard(remote)
    assert (pairs, failures) == read_shard(shard)
    with Shard(shard) as local, Shard(remote) as other:
        assert [other.raw(pair.members) for pair in pairs] == [local.raw(pair.members) for pair in pairs]


@pytest.mark.parametrize("name", ["0.tgz", "0.tar.gz", "named_wrongly.tar"])
def test_a_packed_shard_is_known_by_its_first_bytes(shard: Path, tmp_path: Path, name: str) -> None:
    packed = tmp_path / "packed" / name
    packed.parent.mkdir()
    half = len(shard.read_bytes()) // 2  # gzip files may be joined, as pigz and others do
    packed.write_bytes(gzip.compress(shard.read_bytes()[:half]) + gzip.compress(shard.read_bytes()[half:]))
    assert read_shard(packed) == read_shard(shard)


@pytest.mark.parametrize("protocol", ["memory", "flaky", "generous"])
def test_slices_of_a_remote_shard_are_its_bytes(shard: Path, protocol: str) -> None:
    data = shard.read_bytes()
    with open_source(put(f"{protocol}://bucket/0.tar", data), whole=False) as opened:
        assert len(opened.data) == len(data)
        for start, end in [
            (0, 512),
            (600, 5_000),
            (4_000, 4_100),
            (3_999, 4_000),
            (-9, None),
            (7, 7),
            (9, 2),
        ]:
            assert opened.data[start:end] == data[start:end]
        assert opened.data[len(data) - 5 : len(data) + 5] == data[-5:]
        assert opened.data[len(data) + 5 : len(data) + 10] == b""


def test_a_few_pairs_cost_a_few_requests(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "WINDOW_BYTES", 4_000)  # a pair is some 3,000
    pairs, _ = read_shard(shard)
    with Shard(put("flaky://bucket/0.tar", shard.read_bytes()), whole=False) as remote:
        FlakyStore.reads = 0
        assert [remote.pair(pairs[number].members) for number in (4, 1)] == [pairs[4], pairs[1]]
    assert FlakyStore.reads == 3  # the first of which failed


def test_every_cut_of_a_packed_shard_is_survived(shard: Path, tmp_path: Path) -> None:
    """Wherever it breaks off: pairs before the break, and exactly one failure."""
    packed, path = gzip.compress(shard.read_bytes()), tmp_path / "cut.tgz"
    counts = []
    for cut in range(2, len(packed), 97):
        path.write_bytes(packed[:cut])
        pairs, failures = read_shard(path)
        assert [pair.uid for pair in pairs] == [uid(number) for number in range(len(pairs))]
        assert len(failures) == 1
        counts.append(len(pairs))
    assert counts == sorted(counts)
    assert counts[-1] > 0


def test_a_packed_shard_that_was_changed_is_one_failure(shard: Path, tmp_path: Path) -> None:
    path, packed = tmp_path / "x.tgz", bytearray(gzip.compress(shard.read_bytes()))
    packed[-6] ^= 1  # of the checksum at its end
    path.write_bytes(packed)
    pairs, (failure,) = read_shard(path)
    assert len(pairs) == 5  # the last one may lack members
    assert failure.reason == FailureReason.TRUNCATED_SHARD
    assert failure.detail.startswith("x.tgz cannot be unpacked to its end: CRC check failed")


def test_a_bomb_is_not_unpacked(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", 20_000)
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(shard.read_bytes() + b"\0" * 9_999_999))
    with open_source(path) as opened:
        assert len(opened.data) <= 20_000 + sources.BLOCK_BYTES
        assert opened.flaw == "x.tgz unpacks to more than 20,000 bytes"


def test_an_empty_remote_shard_is_an_empty_one() -> None:
    _, (failure,) = read_shard(put("memory://bucket/0.tar", b""))
    assert (failure.reason, failure.detail) == (FailureReason.UNREADABLE_SHARD, "0.tar is empty (0 bytes)")


def test_a_store_that_keeps_failing_is_no_bad_shard(shard: Path) -> None:
    """The stage stops and can be run again; nothing is listed as lost."""
    path = put("dead://bucket/0.tar", shard.read_bytes())
    with pytest.raises(
        ShardUnreadable, match=r"dead://bucket/0\.tar could not be read in 6 attempts: no route"
    ):
        read_shard(path)


def test_a_refusal_is_not_repeated(shard: Path) -> None:
    path = put("dead://locked/0.tar", shard.read_bytes())
    with pytest.raises(ShardUnreadable, match="may not be read: no such key"):
        read_shard(path)


def test_nothing_is_left_behind(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with open_source(put("memory://bucket/0.tgz", gzip.compress(shard.read_bytes()))) as opened:
        assert opened.data[:] == shard.read_bytes()
        assert not list(scratch.iterdir())  # unnamed even while it is open: a killed worker leaves none


# What else is asked of them


@pytest.mark.parametrize("protocol", ["memory", "flaky"])
def test_a_remote_file_has_a_hash_and_a_version(shard: Path, protocol: str) -> None:
    data = gzip.compress(shard.read_bytes())
    path = put(f"{protocol}://bucket/0.tgz", data)
    before = source_version(path)
    assert source_sha256(path) == hashlib.sha256(data).hexdigest()
    assert source_version(path) == before == json.loads(json.dumps(before))
    put(f"{protocol}://bucket/0.tgz", data + b"more")
    assert source_version(path) != before


def test_a_local_file_has_a_hash_and_a_version(shard: Path) -> None:
    before = source_version(shard)
    assert source_sha256(shard) == sha256_of(shard)
    shard.write_bytes(shard.read_bytes() + b"more")
    assert source_version(shard) != before
    with pytest.raises(ShardMissing, match=r"gone\.tar does not exist"):
        source_version(shard.with_name("gone.tar"))


def test_stages_take_shards_from_anywhere(tmp_path: Path) -> None:
    """Embedded, scanned and rewritten: the same pairs are kept as from plain files."""
    plain = [write_shard(tmp_path / f"{part}.tar", range(12 * part, 12 * part + 12)) for part in range(3)]
    anywhere = [
        plain[0],
        tmp_path / "1.tar.gz",
        put("flaky://bucket/2.tgz", gzip.compress(plain[2].read_bytes())),
    ]
    anywhere[1].write_bytes(gzip.compress(plain[1].read_bytes()))
    kept = [_sanitise(shards, tmp_path / f"run_{number}") for number, shards in enumerate((plain, anywhere))]
    assert [path.name for path in kept[1]] == ["0.tar", "1.tar", "2.tar"]
    assert blocks_of(kept[0]) == blocks_of(kept[1])


def _sanitise(shards: list[Path], run: Path) -> list[Path]:
    here = open_executor("local")
    embed_shards(EmbedSettings(shards=tuple(shards), encoder="plain"), out=run / "store", executor=here)
    build_index(IndexSettings(store=run / "store"), out=run / "index", executor=here)
    scan = ScanSettings(store=run / "store", index=run / "index", budget=0.1)
    scan_store(scan, out=run / "scan", executor=here)
    rewrite = RewriteSettings(store=run / "store", verdicts=run / "scan")
    rewrite_shards(rewrite, out=run / "rewrite", executor=here)
    return kept_shards(run / "rewrite")


@pytest.mark.parametrize("name", ["~nobody-is-called-so/0.tar", "~\0"])
def test_homes_of_nobody_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="names the home of nobody known here"):
        source_path(name)
