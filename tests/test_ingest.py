"""Ingest from a server on this machine that is as bad as the web: every row ends as a pair or a reason."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import polars
import pytest
from aiohttp import web
from PIL import Image

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.hashes import bits_apart, perceptual_hash
from roclip_sanitize.images import decode_image, encode_jpeg
from roclip_sanitize.ingest import IngestSettings, ingest_urls
from roclip_sanitize.ingest.fetching import FetchSettings
from roclip_sanitize.ingest.tables import Columns, url_tables
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import read_json, sha256_of, write_json
from roclip_sanitize.shards import Shard
from roclip_sanitize.verification import verify_folder
from tests.commands import Roclip

HERE = LocalExecutor()
HEADER = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)  # of a PNG of 30 GB
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\r" + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + b"\0\0\x10\0IDAT"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scene(number: int, side: int = 96) -> bytes:
    """A picture of large shapes, as JPEG."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return encode_jpeg(np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)))


class Server:
    """Pictures under /N.jpg, and everything that can go wrong; counts how often each path was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.swapped: set[int] = set()
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/{name:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await asyncio.Event().wait()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.asked.append(name)
        if name.removesuffix(".jpg").isdigit():
            number = int(name.removesuffix(".jpg"))
            return web.Response(body=scene(number + 1000 * (number in self.swapped)))
        answer: Answer = getattr(self, f"_{name}")
        return await answer(request)

    async def _smaller(self, _: web.Request) -> web.Response:
        out = io.BytesIO()
        Image.open(io.BytesIO(scene(7))).resize((80, 80)).save(out, "JPEG", quality=60)
        return web.Response(body=out.getvalue())

    async def _packed(self, _: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(scene(8)), headers={"Content-Encoding": "gzip"})

    async def _packed_bomb(self, _: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(3_000_000)), headers={"Content-Encoding": "gzip"})

    async def _bomb(self, _: web.Request) -> web.Response:
        return web.Response(body=BOMB)

    async def _moved(self, _: web.Request) -> web.Response:
        raise web.HTTPFound("/9.jpg")

    async def _loop(self, _: web.Request) -> web.Response:
        raise web.HTTPFound("/loop")

    async def _file(self, _: web.Request) -> web.Response:
        raise web.HTTPFound("file:///etc/passwd")

    async def _busy(self, _: web.Request) -> web.Response:
        if self.asked.count("busy") == 1:
            raise web.HTTPServiceUnavailable
        return web.Response(body=scene(10))

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text="<html>parked</html>", content_type="image/jpeg")

    async def _cut(self, _: web.Request) -> web.Response:
        return web.Response(body=scene(11)[:-400])

    async def _optout(self, _: web.Request) -> web.Response:
        return web.Response(body=scene(12), headers={"X-Robots-Tag": "noindex-not, NoAI"})

    async def _for_others(self, _: web.Request) -> web.Response:
        return web.Response(body=scene(13), headers={"X-Robots-Tag": "otherbot: noai"})

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(4000):
            await answer.write(bytes(1 << 16))
        return answer

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(40):
            await answer.write(b"\xff")
            await asyncio.sleep(0.1)
        return answer


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def fresh(server: Server) -> None:
    server.asked.clear()
    server.swapped.clear()


def a_list(path: Path, urls: list[str], **columns: list[str]) -> Path:
    captions = [f"thing {number}" for number in range(len(urls))]
    polars.DataFrame({"URL": urls, "TEXT": captions, **columns}).write_parquet(path)
    return path


def settings(table: Path, columns: Columns | None = None, **how: object) -> IngestSettings:
    fetching = {"allow_private": True, "timeout": 1.0, "max_bytes": 1_000_000, "retries": 1, **how}
    return IngestSettings(
        tables=(table,),
        columns=columns or Columns(),
        image_size=64,
        rows_per_shard=8,
        fetching=FetchSettings(**fetching),  # type: ignore[arg-type]
        threads=2,
    )


def failures(out: Path) -> dict[str, str]:
    table = polars.concat([polars.read_parquet(path) for path in sorted((out / "failures").iterdir())])
    return {url.rpartition("/")[2]: reason for url, reason in zip(table["url"], table["reason"], strict=True)}


BAD = {
    "packed_bomb": "too_large",
    "bomb": "image_too_large",
    "loop": "too_many_redirects",
    "file": "bad_url",
    "page": "image_undecodable",
    "cut": "image_undecodable",
    "optout": "opted_out",
    "endless": "too_large",
    "slow": "timeout",
    "nothing?x": "http_500",
}
GOOD = ("3.jpg", "smaller", "packed", "moved", "busy", "for_others")


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tally]:
    """One list with everything in it."""
    folder = tmp_path_factory.mktemp("ingest")
    urls = [f"{server.root}/{name}" for name in (*GOOD, *BAD)] + ["ftp://127.0.0.1/a", "", "http://["]
    table = a_list(folder / "list.parquet", urls)
    tally = ingest_urls(settings(table), out=folder / "out", executor=HERE)
    return folder / "out", tally


def test_every_row_is_a_pair_or_has_a_reason(run: tuple[Path, Tally]) -> None:
    out, tally = run
    found = failures(out)
    assert {name: found[name] for name in BAD} == BAD
    assert tally.failed["bad_url"] == 4
    assert (tally.seen, tally.kept) == (len(GOOD) + len(BAD) + 3, len(GOOD))


def test_the_shards_are_img2datasets(run: tuple[Path, Tally]) -> None:
    out, _ = run
    import webdataset

    pairs = list(webdataset.WebDataset([str(out / "00000.tar")], shardshuffle=False))
    assert [pair["__key__"] for pair in pairs] == [f"00000{place}" for place in range(6)]
    told = json.loads(pairs[0]["json"])
    assert told["url"].endswith("/3.jpg")
    assert told["caption"] == pairs[0]["txt"].decode() == "thing 0"
    assert (told["width"], told["original_width"]) == (64, 96)
    assert told["phash"] == perceptual_hash(decode_image(scene(3), enough=64))
    with Shard(out / "00000.tar") as shard:
        assert len(list(shard.pairs())) == 6
    beside = polars.read_parquet(out / "00000.parquet")
    assert beside["status"].to_list() == ["success"] * 6 + ["failed_to_download"] * 2
    stats = json.loads((out / "00000_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["failed_to_download"]) == (8, 6, 2)
    assert any("sha256" in check.what for check in verify_folder(out))


def test_domains_add_up(run: tuple[Path, Tally]) -> None:
    out, tally = run
    domains = polars.read_parquet(out / "domains.parquet")
    assert domains["seen"].sum() == tally.seen
    assert domains.row(0)[:1] + domains.row(0)[2:3] == ("127.0.0.1", len(GOOD))


def test_only_what_may_pass_is_tried_again(server: Server, tmp_path: Path) -> None:
    table = a_list(tmp_path / "a.parquet", [f"{server.root}/{name}" for name in ("busy", "page", "optout")])
    ingest_urls(settings(table), out=tmp_path / "out", executor=HERE)
    assert sorted(server.asked) == ["busy", "busy", "optout", "page"]


def test_private_addresses_are_never_called(server: Server, tmp_path: Path) -> None:
    port = server.root.rpartition(":")[2]
    hosts = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::1]",
        "[fec0::1]",
        "①②⑦.0.0.1",
        "0x7f.1",
    ]
    table = a_list(tmp_path / "a.parquet", [f"http://{host}:{port}/3.jpg" for host in hosts])
    tally = ingest_urls(settings(table, allow_private=False), out=tmp_path / "out", executor=HERE)
    assert tally.failed["private_address"] == len(hosts)
    assert server.asked == []


def test_swapped_pictures_are_refused_and_encoded_again_ones_are_not(server: Server, tmp_path: Path) -> None:
    urls = [f"{server.root}/{name}" for name in ("1.jpg", "2.jpg", "7.jpg", "4.jpg")]
    first = settings(a_list(tmp_path / "a.parquet", urls))
    assert ingest_urls(first, out=tmp_path / "first", executor=HERE).kept == 4
    server.swapped.add(2)
    known = polars.read_parquet(tmp_path / "first/pairs/pairs_00000.parquet")
    moved = known.with_columns(url=known["url"].str.replace("7.jpg", "smaller"))
    moved.write_parquet(tmp_path / "again.parquet")
    held = Columns(sha256="sha256", phash="phash")
    tally = ingest_urls(settings(tmp_path / "again.parquet", held), out=tmp_path / "second", executor=HERE)
    assert failures(tmp_path / "second") == {"2.jpg": "hash_mismatch"}
    assert tally.kept == 3
    exact = Columns(sha256="sha256")
    ingest_urls(settings(tmp_path / "again.parquet", exact), out=tmp_path / "third", executor=HERE)
    assert failures(tmp_path / "third") == {"2.jpg": "hash_mismatch", "smaller": "hash_mismatch"}


def test_what_failed_is_a_list_for_another_try(server: Server, tmp_path: Path) -> None:
    table = a_list(tmp_path / "a.parquet", [f"{server.root}/{name}" for name in ("1.jpg", "busy")])
    ingest_urls(settings(table, retries=0), out=tmp_path / "out", executor=HERE)
    again = settings(tmp_path / "out/failures/failures_00000.parquet")
    assert ingest_urls(again, out=tmp_path / "again", executor=HERE).kept == 1


def test_what_was_refused_stays_so_when_it_is_tried_again(server: Server, tmp_path: Path) -> None:
    urls = [f"{server.root}/{name}" for name in ("busy", "2.jpg", "3.jpg")]
    hashes = {"sha256": [hashlib.sha256(scene(10)).hexdigest(), "0" * 64, "none"]}
    table = a_list(tmp_path / "a.parquet", urls, uid=["a" * 32, "b" * 32, "c" * 32], **hashes)
    listed = settings(table, Columns(sha256="sha256"), retries=0)
    ingest_urls(listed, out=tmp_path / "out", executor=HERE)
    refused = {"2.jpg": "hash_mismatch", "3.jpg": "bad_expected_hash"}
    assert failures(tmp_path / "out") == {"busy": "http_503", **refused}
    again = settings(tmp_path / "out/failures/failures_00000.parquet")
    ingest_urls(again, out=tmp_path / "again", executor=HERE)
    assert failures(tmp_path / "again") == refused
    assert polars.read_parquet(tmp_path / "again/pairs/*.parquet")["uid"].to_list() == ["a" * 32]


def contents(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): sha256_of(path) for path in out.rglob("*.*") if "done" not in path.parts
    }


def test_a_killed_run_goes_on_with_the_same_bytes(server: Server, tmp_path: Path) -> None:
    table = a_list(tmp_path / "a.parquet", [f"{server.root}/{number}.jpg" for number in range(20)])
    ingest_urls(settings(table), out=tmp_path / "whole", executor=HERE)
    ingest_urls(settings(table), out=tmp_path / "killed", executor=HERE)
    for name in ("complete.json", "domains.parquet", "done/00001.json", "00001.tar"):
        (tmp_path / "killed" / name).unlink()
    server.asked.clear()
    ingest_urls(settings(table), out=tmp_path / "killed", executor=HERE)
    assert sorted(server.asked) == sorted(f"{number}.jpg" for number in range(8, 16))
    found, wanted = contents(tmp_path / "killed"), contents(tmp_path / "whole")
    del found["complete.json"], wanted["complete.json"]  # which tells seconds
    assert found == wanted
    other = IngestSettings(tables=(table,), image_size=32, rows_per_shard=8)
    with pytest.raises(MismatchError, match="image_size"):
        ingest_urls(other, out=tmp_path / "whole", executor=HERE)


@pytest.mark.slow
def test_ray_actors_give_the_same_bytes(server: Server, tmp_path: Path) -> None:
    table = a_list(tmp_path / "a.parquet", [f"{server.root}/{number}.jpg" for number in range(20)])
    ingest_urls(settings(table), out=tmp_path / "local", executor=HERE)
    ingest_urls(settings(table), out=tmp_path / "ray", executor=open_executor("ray", workers=2))
    found, wanted = contents(tmp_path / "ray"), contents(tmp_path / "local")
    del found["complete.json"], wanted["complete.json"]
    assert found == wanted


def test_a_list_is_told_by_its_bytes(server: Server, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    for number in (1, 2):
        table.write_text(f"url,caption\n{server.root}/{number}.jpg,thing\n")
        if number == 1:
            ingest_urls(settings(table), out=tmp_path / "out", executor=HERE)
    with pytest.raises(MismatchError, match=r"tables was .*/a\.csv', '\w{64}'\]\], now"):
        ingest_urls(settings(table), out=tmp_path / "out", executor=HERE)
    told = read_json(tmp_path / "out" / "stage.json")
    told["settings"]["tables"] = [[str(table), table.stat().st_size]]  # as an earlier version told them
    write_json(tmp_path / "out" / "stage.json", told)
    server.asked.clear()
    assert ingest_urls(settings(table), out=tmp_path / "out", executor=HERE).kept == 1
    assert server.asked == []


def test_a_list_may_lie_behind_a_url(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path / "cache"))
    text = f"url,caption\n{server.root}/1.jpg,thing\n"
    fsspec.filesystem("memory").pipe_file("/lists/a.csv", text.encode())
    for _ in range(2):
        told = replace(settings(tmp_path), tables=tuple(url_tables("memory://lists/a.csv")))
        assert ingest_urls(told, out=tmp_path / "out", executor=HERE).kept == 1
    assert server.asked == ["1.jpg"]


def test_what_is_no_list_leaves_nothing_behind(tmp_path: Path) -> None:
    good = a_list(tmp_path / "a.parquet", ["http://127.0.0.1:9/1.jpg"])
    (tmp_path / "b.csv").write_text("name,size\nx,1\n")
    both = replace(settings(good), tables=(good, tmp_path / "b.csv"))
    with pytest.raises(ConfigError, match="no column of URLs"):
        ingest_urls(both, out=tmp_path / "out", executor=HERE)
    assert not (tmp_path / "out").exists()


def test_pictures_that_look_alike_have_near_hashes() -> None:
    once = perceptual_hash(decode_image(scene(1)))
    out = io.BytesIO()
    Image.open(io.BytesIO(scene(1))).resize((70, 70)).save(out, "JPEG", quality=50)
    assert bits_apart(once, perceptual_hash(decode_image(out.getvalue()))) <= 4
    assert bits_apart(once, perceptual_hash(decode_image(scene(2)))) > 10


# The command


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (
            ["http://127.0.0.1:1/1.jpg", "http://localhost:1/2.jpg"],
            "none of 2 URLs gave a picture: private_address 2; failures/ lists each one; "
            "--allow-private lets them lead to this machine and its network",
        ),
        (
            ["http://127.0.0.1:1/1.jpg", "no url"],
            "none of 2 URLs gave a picture: bad_url 1, private_address 1; failures/ lists each one",
        ),
    ],
)
def test_a_list_that_gives_nothing_at_all_ends_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], urls: list[str], message: str
) -> None:
    polars.DataFrame({"url": urls, "caption": ["one", "two"]}).write_csv(tmp_path / "list.csv")
    told = ("--executor", "local", "--urls", tmp_path / "list.csv", "--out", tmp_path / "out")
    for _ in range(2):  # done, and done already
        found = Roclip(capsys)("ingest", *told)
        assert found.code == 3
        assert found.lines[-1] == f"roclip: {message}"
