"""An index of what its store no longer holds: whoever opens it is told so, and how to make it again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index, inspect_index, open_index
from roclip_sanitize.matching import MatchSettings, match_store
from roclip_sanitize.pairing import PairSettings, pair_store
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.verification import verify_folder
from tests.commands import Roclip
from tests.searching import Idle
from tests.stores import make_store

HERE = LocalExecutor()
Stage = Callable[[Path], object]
NAMES = ("index_image", "index_text")


def fill(path: Path, *, seed: int) -> EmbeddingStore:
    image_ND, text_ND = np.random.default_rng(seed).normal(size=(2, 60, 8))
    return make_store(path, image_ND, text_ND, [25, 35])


def indexing(root: Path, name: str) -> IndexSettings:
    return IndexSettings(
        store=root / "store",
        modality="text" if name == "index_text" else "image",
        kind="hnsw",
        nprobe=40,
        parts=2,
    )


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and indexes of its pictures and its captions."""
    root = tmp_path_factory.mktemp("indexed")
    fill(root / "store", seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in NAMES:
            build_index(indexing(Path(), name), out=Path(name), executor=HERE)
    return root


@pytest.fixture
def stale(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and the store replaced by one of as many pairs."""
    shutil.copytree(indexed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("store")
    fill(Path("store"), seed=1)
    return tmp_path


def scan(out: Path) -> object:
    told = ScanSettings(store=Path("store"), index=Path("index_image"), detectors=("agreement", "collisions"))
    return scan_store(told, out=out, executor=HERE)


def match(out: Path) -> object:
    told = MatchSettings(store=Path("store"), index=Path("index_image"))
    return match_store(told, out=out, executor=HERE)


def match_from_elsewhere(out: Path) -> object:
    """Only the store that answers was replaced."""
    fill(Path("other"), seed=2)
    told = MatchSettings(store=Path("other"), index=Path("index_image"), exclude=())
    return match_store(told, out=out, executor=HERE)


def pair(out: Path) -> object:
    told = PairSettings(
        store=Path("store"), index_text=Path("index_text"), index_image=Path("index_image"), method="first"
    )
    return pair_store(told, out=out, executor=HERE)


@pytest.mark.parametrize("stage", [scan, match, match_from_elsewhere, pair])
def test_whoever_opens_it_is_told(stale: Path, stage: Stage) -> None:
    found = StageFolder(Path("store")).content
    wanted = inspect_index(Path("index_image"))["store_content"]
    assert found != wanted
    with pytest.raises(MismatchError, match=f"^store holds {found}, wanted {wanted}, of which index_"):
        stage(Path("out"))


def test_verifying_it_says_so(indexed: Path, stale: Path) -> None:
    with pytest.raises(
        MismatchError, match=r"^store: content since index_image was made: found \w{16}, wanted"
    ):
        list(verify_folder(Path("index_image")))
    shutil.rmtree("store")
    said = [check.what for check in verify_folder(Path("index_image"))]
    assert said[-1] == "its store, store, is gone and was not compared"
    shutil.copytree(indexed / "store", "store")
    said = [check.what for check in verify_folder(Path("index_image"))]
    assert said[-1] == "its store, store, has not changed since"


def test_the_command_that_it_names_makes_it_again(stale: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roclip, before = Roclip(capsys), read_json(Path("index_image/stage.json"))
    asked = ("scan", "--store", "store", "--index", "index_image", "--out", "scan", "--executor", "local")
    refused = roclip(*asked, "--detectors", "agreement,collisions")
    assert refused.code == 4
    assert (named := re.search(r"remove that folder, and run 'roclip (index .*)'$", refused.line))
    shutil.rmtree("index_image")
    assert roclip(*shlex.split(named[1]), "--executor", "local").code == 0
    again = read_json(Path("index_image/stage.json"))
    assert again["settings"].pop("store_content") == StageFolder(Path("store")).content
    del before["settings"]["store_content"]
    assert again == before
    assert roclip(*asked, "--detectors", "agreement,collisions").code == 0


def test_the_same_index_command_says_so_too(stale: Path) -> None:
    with pytest.raises(MismatchError, match=r"store_content was '\w{16}', now '\w{16}'"):
        build_index(indexing(Path(), "index_image"), out=Path("index_image"), executor=HERE)


def test_without_its_store_it_cannot_be_opened(stale: Path) -> None:
    shutil.rmtree("store")
    with (
        pytest.raises(DataError, match="store is no folder made by 'roclip embed'"),
        open_index(Path("index_image"), HERE),
    ):
        pass


def test_an_index_from_before_it_was_noted_opens_and_goes_on(stale: Path) -> None:
    for name in ("stage.json", "complete.json"):
        told = read_json(Path("index_image") / name)
        del told.get("settings", told)["store_content"]
        write_json(Path("index_image") / name, told)
    facts = build_index(indexing(Path(), "index_image"), out=Path("index_image"), executor=Idle())
    assert "store_content" not in facts
    assert len(list(verify_folder(Path("index_image")))) == 1, "of its files alone"
    assert scan(Path("out"))


@pytest.mark.parametrize("stage", [match, pair])
def test_what_was_asked_of_earlier_contents_is_not_gone_on_with(
    indexed: Path, stale: Path, tmp_path: Path, stage: Stage
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(indexed)
        stage(tmp_path / "out")
        stage(tmp_path / "out")
    before = (tmp_path / "out" / "complete.json").read_bytes()
    for name in NAMES:
        shutil.rmtree(name)
        build_index(indexing(Path(), name), out=Path(name), executor=HERE)
    with pytest.raises(
        MismatchError, match=r"index_contents was \[.*store_content was '\w{16}', now '\w{16}'"
    ):
        stage(tmp_path / "out")
    told = read_json(tmp_path / "out" / "stage.json")
    del told["settings"]["index_contents"], told["settings"]["store_content"]  # as earlier versions left it
    write_json(tmp_path / "out" / "stage.json", told)
    stage(tmp_path / "out")
    assert read_json(tmp_path / "out" / "complete.json") == json.loads(before)
