"""Paths in settings are found from whatever directory a command runs in, and after a run was moved."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from roclip_sanitize.audit import AuditSettings, write_audit
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.scan.one_pair import find_pair
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.verification import verify_folder
from roclip_sanitize.whereabouts import told_file, told_files, told_folder
from tests.test_rewrite import HERE, embed, make_shards, uid

NAMES = ("a.tar", "b.tar", "c.tar", "d.tar")


def made(path: Path, holds: str = "", *, stage: str = "embed") -> str:
    """A finished folder. Returns its content."""
    folder = StageFolder.create(path, stage=stage, settings={})
    (path / "file").write_text(holds)
    folder.commit("00000", files=[path / "file"], facts={})
    folder.finish({})
    return folder.content


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with a store in it, seen from a folder beside it."""
    made(tmp_path / "base/store")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "base"


def test_a_folder_is_beside_the_one_that_names_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for by in (base / "scan", base / "inner/scan", Path("../base/scan")):
        assert told_folder(by, "store", stage="embed") == base / "store"
    assert told_folder(base / "scan", "base/store", stage="embed") == base / "store"
    assert told_folder(base / "inner/scan", "../../base/store", stage="embed").resolve() == base / "store"
    monkeypatch.chdir(base.parent)
    assert told_folder(base / "scan", "store", stage="embed") == Path("base/store")
    monkeypatch.chdir(base)
    assert told_folder(base / "scan", "store", stage="embed") == Path("store"), "as it was told"


def test_the_nearest_that_holds_what_it_held_is_taken(base: Path) -> None:
    outer, here = made(base.parent / "store", "outer"), made(Path("store"), "here")
    inner = StageFolder(base / "store").content
    assert len({outer, here, inner}) == 3
    found = {
        content: told_folder(base / "scan", "store", stage="embed", content=content)
        for content in (outer, here, inner, "", "?")
    }
    assert found == {
        outer: base.parent / "store",
        here: Path("store"),
        inner: base / "store",
        "": base / "store",
        "?": base / "store",
    }
    shutil.rmtree(base / "store")
    made(base / "store", stage="index")
    assert told_folder(base / "scan", "store", stage="embed") == base.parent / "store"


def test_what_is_nowhere_or_absolute_or_a_url_stays_as_it_is(base: Path) -> None:
    for told in ("gone", str(base / "gone"), "s3:/bucket/store"):
        assert told_folder(base / "scan", told, stage="embed") == Path(told)
        assert told_file(base / "scan", told, sha256="") == Path(told)
        assert told_files(base / "scan", [Path(told)]) == [Path(told)]
    assert told_folder(Path("s3:/bucket/scan"), "store", stage="embed") == Path("store")
    (base / "store/stage.json").write_text("[]")
    assert told_folder(base / "scan", "store", stage="embed") == Path("store")


def test_of_several_files_the_one_with_the_bytes_is_taken(base: Path) -> None:
    for path in (base / "drop.txt", Path("drop.txt")):
        path.write_text(str(path))
    sha256 = hashlib.sha256(b"drop.txt").hexdigest()
    assert told_file(base / "out", "drop.txt", sha256=sha256) == Path("drop.txt")
    assert told_file(base / "out", "drop.txt", sha256="?") == base / "drop.txt"


def test_files_told_together_lie_together(base: Path) -> None:
    told = [Path("/x/0.tar"), Path("1.tar"), Path("2.tar")]
    (base / "1.tar").touch()
    assert told_files(base / "store", told) == [told[0], base / "1.tar", base / "2.tar"]
    Path("1.tar").touch()
    assert told_files(base / "store", told) == told


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """store/ … audit/ told by relative names, seen from a folder beside it that has a store, too."""
    base = tmp_path / "base"
    base.mkdir()
    monkeypatch.chdir(base)
    make_shards(Path(), NAMES)
    store, index, scan = Path("store"), Path("index"), Path("scan")
    embed([Path(name) for name in NAMES], store)
    build_index(IndexSettings(store=store), out=index, executor=HERE)
    scan_store(ScanSettings(store=store, index=index, detectors=("collisions",)), out=scan, executor=HERE)
    rewrite_shards(RewriteSettings(store=store, verdicts=scan), out=Path("rewrite"), executor=HERE)
    write_audit(AuditSettings(scan=scan, rewritten=Path("rewrite")), out=Path("audit"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    embed([Path("../base/a.tar")], store)
    return base


def test_a_run_verifies_from_anywhere_and_when_moved(run: Path) -> None:
    said = [check.what for check in verify_folder(run)]
    assert f"its store, {run / 'store'}, has not changed since" in said
    assert not any("was not compared" in line for line in said)
    assert any("byte for byte" in line for line in said)
    moved = run.rename(run.with_name("moved"))
    again = [check.what for check in verify_folder(moved)]
    assert again == [line.replace(str(run), str(moved)) for line in said]


def test_a_run_is_gone_on_with_from_anywhere(run: Path) -> None:
    store, scan = Path("../base/store"), Path("../base/scan")
    assert EmbeddingStore.open(store).shards == [str(run / name) for name in NAMES]
    rewrite_shards(RewriteSettings(store=store, verdicts=scan), out=Path("out"), executor=HERE)
    for name in ("keep.npy", "kept/a.tar", "quarantined/c.tar"):
        assert (Path("out") / name).read_bytes() == (run / "rewrite" / name).read_bytes()
    assert find_pair(scan, uid(3)).caption == "picture of thing 3"
    write_audit(AuditSettings(scan=scan, rewritten=run / "rewrite"), out=Path("audit"))
    told, wanted = (read_json(folder / "audit/audit.json") for folder in (Path(), run))
    assert told["pairs"] == wanted["pairs"]
    index = Path("../base/index")
    scan_store(
        ScanSettings(store=store, index=index, detectors=("collisions",)), out=Path("scan"), executor=HERE
    )
