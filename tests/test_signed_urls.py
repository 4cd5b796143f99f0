"""Shards behind URLs that are signed: read as long as they are, and what signs them is written nowhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars
import pytest

from roclip_sanitize import remote
from roclip_sanitize.cli import call
from roclip_sanitize.errors import ConfigError, ShardUnreadable
from roclip_sanitize.redaction import unsigned
from roclip_sanitize.remote import file_name
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.scan.uid_lists import read_uids
from roclip_sanitize.shards import expand_shards
from roclip_sanitize.sources import source_path, source_stem
from roclip_sanitize.store import EmbeddingStore
from tests.squares import uid_of, write_squares

LOCAL: dict[str, Any] = {"executor": "local"}


class Door(SimpleHTTPRequestHandler):
    """Lets in who is signed as the server wants it now."""

    def do_GET(self) -> None:
        self.let_in(super().do_GET)

    def do_HEAD(self) -> None:
        self.let_in(super().do_HEAD)

    def let_in(self, serve: Any) -> None:
        asked = parse_qs(urlsplit(self.path).query).get("X-Amz-Signature")
        if asked == [self.server.wanted]:  # type: ignore[attr-defined]
            serve()
        else:
            self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(remote, "_signed", {})
    for number in range(2):
        write_squares(tmp_path / "www" / f"train.{number}.tar", first=60 * number, pairs=60)
    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Door, directory=str(tmp_path / "www")))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def shards(server: ThreadingHTTPServer, signature: str) -> str:
    """Signed anew: the server knows no other signature from now on."""
    server.wanted = signature  # type: ignore[attr-defined]
    query = f"?X-Amz-Date=20260101&X-Amz-Signature={signature}"
    return f"http://127.0.0.1:{server.server_port}/train.{{0..1}}.tar{query}"


def test_nothing_is_written_of_what_signs_a_url(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    store, index, scan, out, screened = (
        tmp_path / name for name in ("store", "index", "scan", "out", "screened")
    )
    first = shards(server, "hunter.1")
    call("embed", shards=first, out=store, **LOCAL)
    call("index", store=store, out=index, **LOCAL)
    remote._signed.clear()  # as in another process
    guarded: dict[str, Any] = {"detectors": "collisions", "label": "colour"}
    with pytest.raises(ShardUnreadable, match=r"train\.0\.tar may not be read"):
        call("scan", store=store, index=index, out=tmp_path / "refused_scan", **guarded, **LOCAL)
    call("scan", store=store, index=index, out=scan, signed=first, **guarded, **LOCAL)
    assert EmbeddingStore.open(store).all_metadata(("shard",))["shard"].unique().sort().to_list() == [
        "train.0.tar",
        "train.1.tar",
    ]
    remote._signed.clear()  # as in another process
    with pytest.raises(ShardUnreadable, match=r"train\.0\.tar may not be read"):
        call("rewrite", store=store, verdicts=scan, out=tmp_path / "refused", **LOCAL)
    second = shards(server, "hunter.2")
    (tmp_path / "www" / "drop.txt").write_text(uid_of(7))
    (tmp_path / "www" / "bad.txt").write_text("0" * 64)
    listed, bad = (second.replace("train.{0..1}.tar", name) for name in ("drop.txt", "bad.txt"))
    call("screen", shards=second, known_bad=[bad], out=screened, **LOCAL)
    call("rewrite", store=store, verdicts=scan, out=out, signed=second, also_drop=[listed], **LOCAL)
    assert sorted(path.name for path in (out / "kept").glob("*.tar")) == ["train.0.tar", "train.1.tar"]
    remote._signed.clear()
    call("verify", folder=out, signed=f"{second}::{listed}")
    before = {path: path.stat().st_mtime_ns for path in store.glob("done/*.json")}
    third = shards(server, "hunter.3")
    call("embed", shards=third, out=store, **LOCAL)
    assert {path: path.stat().st_mtime_ns for path in store.glob("done/*.json")} == before
    for folder in (store, index, scan, out, screened):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in files if b"hunter" in path.read_bytes()]


def test_a_folder_that_was_begun_with_a_signature_goes_on(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    named = shards(server, "hunter.1")
    call("embed", shards=named, out=tmp_path / "store", **LOCAL)
    told = read_json(tmp_path / "store" / "stage.json")
    told["settings"]["shards"] = [str(path) for path in expand_shards(named)]  # as earlier versions did
    write_json(tmp_path / "store" / "stage.json", told)
    call("embed", shards=shards(server, "hunter.2"), out=tmp_path / "store", **LOCAL)


@pytest.mark.parametrize("kind", ["npy", "parquet", "txt"])
def test_a_list_behind_a_signature_is_what_its_name_says(
    server: ThreadingHTTPServer, tmp_path: Path, kind: str
) -> None:
    uids = [f"{number:032x}" for number in range(3)]
    write_keep_list(tmp_path / "www" / "list.npy", [uids])
    polars.DataFrame({"uid": uids}).write_parquet(tmp_path / "www" / "list.parquet")
    (tmp_path / "www" / "list.txt").write_text("\n".join(uids))
    signed = shards(server, "hunter.1").replace("train.{0..1}.tar", f"list.{kind}")
    assert [uid for batch in read_uids(source_path(signed)) for uid in batch] == uids


def test_one_shard_signed_twice_is_named_twice(server: ThreadingHTTPServer) -> None:
    named = shards(server, "hunter.1")
    with pytest.raises(ConfigError, match="names a shard twice"):
        expand_shards(f"{named}::{named}&again=1")


@pytest.mark.parametrize(
    ("url", "name", "stem", "bare"),
    [
        ("https://host/a.0.tar?sig=a%2Fb.c", "a.0.tar", "a.0", "https://host/a.0.tar"),
        ("https://host/a.tar.gz?X-Amz-Credential=me/x.y", "a.tar.gz", "a", "https://host/a.tar.gz"),
        ("https://host/a.tar?download=true", "a.tar", "a", "https://host/a.tar?download=true"),
        ("https://me:pass@host/a.tar", "a.tar", "a", "https://host/a.tar"),
        ("abfs://box@account.host/a.tar", "a.tar", "a", "abfs://box@account.host/a.tar"),
        ("what?sig=1.tar", "what?sig=1.tar", "what?sig=1", "what?sig=1.tar"),
    ],
)
def test_names_of_urls(url: str, name: str, stem: str, bare: str) -> None:
    path = source_path(url)
    assert (file_name(path), source_stem(path)) == (name, stem)
    assert unsigned(url) == bare
    assert unsigned([{"shards": f"{url}::{url}"}]) == [{"shards": f"{bare}::{bare}"}]
    assert unsigned({"lists": {url: "0" * 64}}) == {"lists": {bare: "0" * 64}}
    assert unsigned(str(path)) == str(source_path(bare))


def test_facts_of_a_stage_are_unsigned(tmp_path: Path) -> None:
    folder = StageFolder.create(tmp_path, stage="rewrite", settings={"shards": ["https:/host/0.tar?sig=x"]})
    assert folder.settings == {"shards": ["https:/host/0.tar"]}
    marker = folder.commit("00000", files=[], facts={"shard": "https:/host/0.tar?sig=x"})
    assert marker.facts == {"shard": "https:/host/0.tar"}
    assert folder.marker("00000") == marker
