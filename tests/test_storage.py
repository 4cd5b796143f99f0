"""Files on this disk and behind URLs: whole or not at all, brought here once for each version."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from roclip_sanitize import remote, storage
from roclip_sanitize.artefacts import map_array
from roclip_sanitize.cli import call
from roclip_sanitize.errors import DataError, StorageError
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import (
    append,
    atomic_file,
    changed_at,
    exists,
    folders_in,
    here,
    make_room,
    names_in,
    read_bytes,
    remove,
    remove_tree,
)
from tests.squares import write_square_shards, write_squares

SPECS = ["patch:rate=12", "targeted:targets=2,captions=6"]
STORE = fsspec.filesystem("memory")


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same is to be so on both."""
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    STORE.store.clear()
    del STORE.pseudo_dirs[1:]
    return tmp_path / "run" if request.param == "disk" else source_path("memory://bucket/run")


def test_what_was_written_is_read(folder: Path) -> None:
    with atomic_file(folder / "a" / "b.npy") as file:
        np.save(file, np.arange(5))
    assert map_array(folder / "a" / "b.npy").tolist() == [0, 1, 2, 3, 4]
    assert (names_in(folder), names_in(folder / "a"), names_in(folder / "no")) == (["a"], ["b.npy"], [])
    remove(folder / "a" / "b.npy")
    remove(folder / "a" / "b.npy")
    assert not exists(folder / "a" / "b.npy")
    with pytest.raises(DataError, match="does not exist"):
        map_array(folder / "a" / "b.npy")


def test_a_block_that_fails_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_file(folder / "a.txt") as file:
        file.write(bytes(1 // file.tell()))
    assert not exists(folder / "a.txt")
    assert not [path for path in storage.cache_folder().glob("**/*") if path.is_file()]


def test_what_was_replaced_is_read_anew(folder: Path) -> None:
    write_json(folder / "a.json", 1)
    assert read_json(folder / "a.json") == 1
    write_json(folder / "a.json", 2)
    assert read_json(folder / "a.json") == 2


def test_a_stage_is_done_by_its_markers(folder: Path) -> None:
    stage = StageFolder.create(folder, stage="embed", settings={"a": 1})
    with atomic_file(folder / "x.bin") as file:
        file.write(b"x")
    stage.commit("00000", files=[folder / "x.bin"], facts={"rows": 1})
    assert (stage.finished, [marker.name for marker in stage.markers()]) == (False, ["00000"])
    stage.finish({})
    StageFolder.open(folder, stage="embed").verify()


def test_lines_are_added_and_folders_told_and_removed(folder: Path) -> None:
    began = time.time() - 2  # file systems count in coarse steps
    write_json(folder / "v1.0" / "deep" / "a.json", 1)
    append(folder / "v1.0" / "log.jsonl", "two\n")
    append(folder / "v1.0" / "log.jsonl", "three\n")
    assert read_bytes(folder / "v1.0" / "log.jsonl").endswith(b"two\nthree\n")
    assert began < changed_at(folder / "v1.0" / "log.jsonl") < time.time() + 2
    assert (folders_in(folder), folders_in(folder / "v1.0"), folders_in(folder / "no")) == (
        ["v1.0"],
        ["deep"],
        [],
    )
    remove_tree(folder / "v1.0")
    remove_tree(folder / "v1.0")
    assert names_in(folder) == []
    with pytest.raises(FileNotFoundError):
        changed_at(folder / "v1.0" / "log.jsonl")


class HalfAnUpload(type(STORE)):  # type: ignore[misc]
    """A store that keeps half of what it is sent, so many times."""

    protocol = "half"
    failures = 0

    def put_file(self, lpath: str, rpath: str, **told: object) -> None:
        data = Path(lpath).read_bytes()
        half = type(self).failures > 0
        type(self).failures -= half
        self.pipe_file(rpath, data[: len(data) // 2] if half else data)


def test_half_an_upload_is_never_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    fsspec.register_implementation("half", HalfAnUpload, clobber=True)
    path = source_path("half://bucket/a.bin")
    HalfAnUpload.failures = remote.ATTEMPTS - 1
    with atomic_file(path) as file:
        file.write(b"whole")
    assert here(path).read_bytes() == b"whole"
    HalfAnUpload.failures = remote.ATTEMPTS
    with (
        pytest.raises(StorageError, match=r"half://bucket/b\.bin could not be written"),
        atomic_file(path.with_name("b.bin")) as file,
    ):
        file.write(b"whole")


def test_the_cache_makes_room_for_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path))
    monkeypatch.setenv("ROCLIP_CACHE_GB", "0.0000025")  # 2,500 bytes
    STORE.store.clear()
    paths = [source_path(f"memory://bucket/{number}") for number in range(4)]
    for age, path in enumerate(paths):
        with atomic_file(path) as file:
            file.write(bytes(1_000))
        os.utime(here(path), (age, age))
    os.utime(here(paths[0]))
    make_room()
    kept = {path.name for path in tmp_path.glob("*/*")}
    assert kept == {"0", "3"}
    assert here(paths[1]).read_bytes() == bytes(1_000)


def test_a_cache_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROCLIP_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    STORE.store.clear()
    path = source_path("memory://bucket/a.json")
    write_json(path, 1)
    (folder,) = tmp_path.iterdir()
    assert (folder.stat().st_mode & 0o777, read_json(path)) == (0o700, 1)
    folder.chmod(0o777)
    with pytest.raises(StorageError, match="is not this user's alone: name another folder in ROCLIP_CACHE"):
        read_json(path)


@pytest.mark.slow
def test_what_cleans_a_dataset_works_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path / "cache"))
    STORE.store.clear()
    write_square_shards(tmp_path, shards=3, pairs=80)
    run, shards = "memory://bucket/run", str(tmp_path / "{00000..00002}.tar")
    assert call("sanitize", shards=shards, out=f"{run}/clean", executor="local")["seen"] == 240
    store, index = f"{run}/clean/store", f"{run}/clean/index"
    call("index", store=store, modality="text", out=f"{run}/texts", executor="local")
    told: dict[str, Any] = {"store": store, "executor": "local"}
    assert call("match", index=index, out=f"{run}/matches", **told)["seen"] == 240
    both: dict[str, Any] = {"index_text": f"{run}/texts", "index_image": index}
    assert call("pair", **both, method="first", out=f"{run}/pairs", **told)["seen"] == 240
    checks = call("verify", folder=run)["checks"]
    assert {Path(check["where"]).name for check in checks} >= {"store", "index", "scan", "rewrite", "pairs"}
    assert exists(source_path(f"{run}/clean/run.toml"))


@pytest.mark.slow
def test_training_and_measuring_leave_in_a_store_what_they_leave_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCLIP_CACHE", str(tmp_path / "cache"))
    STORE.store.clear()
    write_square_shards(tmp_path, shards=2, pairs=48)
    write_squares(tmp_path / "test.tar", first=1_000, pairs=24)
    label: dict[str, Any] = {
        "label": "colour",
        "test_shards": str(tmp_path / "test.tar"),
        "executor": "local",
    }
    found = dict[str, dict[str, Any]]()
    for root in (str(tmp_path / "run"), "memory://bucket/run"):
        run = source_path(root)
        call("poison", shards=str(tmp_path / "{00000..00001}.tar"), attacks=SPECS, out=run / "bad", **label)
        told: dict[str, Any] = {"model": "roclip-vit-64", "batch_size": 32, "epochs": 2, "executor": "local"}
        told |= {"train_data": f"{root}/bad/shards/{{00000..00001}}.tar", "val_data": tmp_path / "test.tar"}
        call("train", out=run / "model", publish="best", **told)
        call("evaluate", arm=[f"a={root}/model"], ledger=run / "bad", out=run / "seen", **label)
        call("report", run=run / "seen")
        names = ["bad/shards/00000.tar", "bad/ledger.parquet", "model/model/weights.safetensors"]
        names += ["seen/results.json", "seen/curves.json", "model/best/model.json"]
        found[root] = {name: read_bytes(run / name) for name in names}
        log = [json.loads(line) for line in read_bytes(run / "model" / "log.jsonl").splitlines()]
        found[root]["log"] = {(line["step"], line.get("loss"), line.get("val_loss")) for line in log}
        assert len(log) == 3  # the last step, and two looks at held-out pairs
        assert [name[:10] for name in names_in(run / "model" / "tensorboard")] == ["events.out"]
        assert exists(run / "seen" / "report.html")
        assert not exists(run / "seen" / "parts")
        status = call("status", run=run)["stages"]
        assert {each["name"] for each in status} == {"bad", "bad/census", "model", "seen"}
        assert all(each["finished"] for each in status)
        assert {Path(each["where"]).name for each in call("verify", folder=run)["checks"]} >= {"bad"}
    assert found["memory://bucket/run"] == found[str(tmp_path / "run")]
    assert not (tmp_path / "memory:").exists()
