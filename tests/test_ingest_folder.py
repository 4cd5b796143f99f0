"""Where shards are made: not over shards, or lists, that no ingest made."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from roclip_sanitize.runfiles import sha256_of
from tests.commands import Roclip
from tests.squares import write_squares


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


@pytest.fixture
def urls(tmp_path: Path) -> Path:
    """A list of two pictures that nobody serves."""
    table = tmp_path / "list.tsv"
    table.write_text("url\tcaption\nhttp://127.0.0.1:1/a.jpg\ta\nhttp://127.0.0.1:1/b.jpg\tb\n")
    return table


def ingest(urls: Path, out: object) -> tuple[object, ...]:
    return ("ingest", "--urls", urls, "--out", out, "--executor", "local")


def test_shards_that_somebody_has_are_left_alone(roclip: Roclip, urls: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    shard = write_squares(out / "00000.tar", pairs=4)
    before = {path: sha256_of(path) for path in out.iterdir()}
    said = roclip(*ingest(urls, out))
    refusal = f"roclip: {out} holds 00000.parquet, which no 'roclip ingest' made: choose another folder"
    assert (said.code, said.line) == (4, refusal)
    assert {path: sha256_of(path) for path in out.iterdir()} == before
    assert shard in before


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, 4) for name in ("00007.tar", "100000.tar", "00001_stats.json", "domains.parquet")),
        *((name, 3) for name in ("train.tar", "000000.tar", "0000.parquet", "notes.json")),
    ],
)
def test_only_names_that_may_be_written_are_in_the_way(
    roclip: Roclip, urls: Path, tmp_path: Path, name: str, code: int
) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    for _ in range(2):  # and what is done is done
        assert roclip(*ingest(urls, out)).code == code
    assert (out / name).read_bytes() == b"mine"


def test_an_ingest_that_was_killed_goes_on(roclip: Roclip, urls: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert roclip(*ingest(urls, out)).code == 3
    for name in ("complete.json", "done/00000.json"):
        (out / name).unlink()
    assert (out / "00000.tar").exists()
    assert roclip(*ingest(urls, out)).code == 3
    assert (out / "complete.json").exists()


def test_a_folder_behind_a_url_is_looked_into(
    roclip: Roclip, urls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.pipe_file("/taken/00000.tar", b"mine")
    said = roclip(*ingest(urls, "memory://taken"))
    assert said.code == 4
    assert said.line.startswith("roclip: memory://taken holds 00000.tar, which no")
    assert store.cat_file("/taken/00000.tar") == b"mine"
