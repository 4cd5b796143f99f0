"""Rewriting: members byte for byte, and every pair accounted for, from broken shards too."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest

from roclip_sanitize.decoding import decode_pairs
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.records import Failure, Tally
from roclip_sanitize.rewrite import (
    Lists,
    RewriteSettings,
    kept_shards,
    quarantined_shards,
    read_keep_list,
    rewrite_shards,
)
from roclip_sanitize.runfiles import StageFolder, sha256_of
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard, shard_tasks
from roclip_sanitize.store import (
    METADATA_COLUMNS,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)
from roclip_sanitize.verification import verify_folder

HERE = LocalExecutor()


def picture(number: int) -> bytes:
    return encode_jpeg(np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8))


def write_shard(path: Path, pairs: Iterable[tuple[str, bytes, str]]) -> Path:
    with ShardWriter(path) as shard:
        for uid, image, caption in pairs:
            shard.add(uid[-6:], image=image, caption=caption, fields={"uid": uid})
    return path


def uid(number: int) -> str:
    return f"{number:032x}"


def make_shards(folder: Path, names: tuple[str, str, str, str]) -> list[Path]:
    """Four shards: whole; broken off; with members missing and a picture that is none; no tar at all."""
    clean = [(uid(number), picture(number), f"picture of thing {number}") for number in range(20)]
    poison = [
        (uid(number), picture(99), f"wrong words {'abcdefg'[number - 20] * 3}") for number in range(20, 25)
    ]
    write_shard(folder / names[0], [*clean[:8], *poison[:3]])
    broken = write_shard(folder / names[1], [*clean[8:12], *poison[3:], *clean[12:14]])
    broken.write_bytes(broken.read_bytes()[:-13_000])
    extra = write_shard(
        folder / names[2],
        [
            *clean[14:],
            (uid(20), picture(40), "a flagged uid in another shard"),
            (uid(50), b"no picture", "bad"),
        ],
    )
    with tarfile.open(extra, "a") as tar:
        tar.addfile(tarfile.TarInfo("lonely.txt"))
    (folder / names[3]).write_bytes(b"this is no tar" * 100)
    return [folder / name for name in names]


def embed(shards: Sequence[Path], path: Path) -> Path:
    """A store as the embed stage writes it, of bare pixels."""
    facts = {"digest": "pixels", "joint": False}
    stage = StageFolder.create(
        path, stage="embed", settings={"encoder": facts, "shards": [str(shard) for shard in shards]}
    )
    for task in shard_tasks(shards):
        failures: list[Failure] = []
        with Shard(task.path) as shard:
            decoded = list(decode_pairs(shard, side=8, fit="squash", failures=failures))
        vectors_ND = np.array([pixels.ravel() / 255 for _, pixels in decoded]).reshape(
            len(decoded), 8 * 8 * 3
        )
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        names = [(pair.uid, pair.key, task.path.name, pair.caption, pair.image_hash) for pair, _ in decoded]
        schema = dict.fromkeys(METADATA_COLUMNS, polars.String)
        write_parquet(metadata_file(path, task.name), polars.DataFrame(names, schema=schema, orient="row"))
        write_vectors(vectors_file(path, task.name, "image"), vectors_ND)
        files = [metadata_file(path, task.name), write_failures(path, task.name, failures)]
        tally = Tally(
            seen=len(decoded) + len(failures), failed=Counter(failure.reason.value for failure in failures)
        )
        stage.commit(task.name, files=files, facts={"rows": len(decoded), "tally": tally.to_json()})
    stage.finish({})
    return path


def run(shards: list[Path], folder: Path) -> RewriteSettings:
    embed(shards, folder / "store")
    build_index(IndexSettings(store=folder / "store"), out=folder / "index", executor=HERE)
    scan = ScanSettings(store=folder / "store", index=folder / "index", detectors=("collisions",))
    scan_store(scan, out=folder / "scan", executor=HERE)
    return RewriteSettings(store=folder / "store", verdicts=folder / "scan")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RewriteSettings:
    folder = tmp_path_factory.mktemp("rewrite")
    return run(make_shards(folder, ("a.tar", "b.tar", "c.tar", "d.tar")), folder)


@pytest.fixture(scope="module")
def out(settings: RewriteSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rewritten") / "out"
    rewrite_shards(settings, out=out, executor=HERE)
    return out


def raw_members(path: Path) -> dict[str, bytes]:
    """Each member's blocks, header included."""
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        return {
            member.name: data[member.offset : member.offset_data + -(-member.size // 512) * 512]
            for member in tar.getmembers()
        }


def keys(shards: Iterable[Path]) -> list[str]:
    return sorted(
        name.removesuffix(".jpg") for path in shards for name in raw_members(path) if name.endswith("jpg")
    )


def contents(out: Path) -> dict[str, bytes]:
    """All results; markers and facts tell seconds, which differ."""
    files = [path for path in out.rglob("*") if path.is_file() and "done" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if path.name != "complete.json"}


def test_members_are_byte_identical(settings: RewriteSettings, out: Path) -> None:
    source = raw_members(settings.store.parent / "a.tar")
    kept, quarantined = raw_members(out / "kept/a.tar"), raw_members(out / "quarantined/a.tar")
    assert kept | quarantined == source
    assert len(kept) == 8 * 3
    assert len(quarantined) == 3 * 3


def test_the_poisons_are_set_aside_wherever_their_uid_stands(out: Path) -> None:
    set_aside = keys(quarantined_shards(out))
    assert set_aside == sorted([uid(number)[-6:] for number in (20, 20, 21, 22, 23, 24)])
    assert not set(set_aside) & set(keys(kept_shards(out)))


def test_every_pair_is_accounted_for(settings: RewriteSettings, out: Path) -> None:
    tally = rewrite_shards(settings, out=out, executor=HERE)
    assert tally.failed == {
        "truncated_shard": 1,
        "no_image": 1,
        "image_undecodable": 1,
        "unreadable_shard": 1,
    }
    assert tally.quarantined == {"many_captions_one_picture": 6}
    assert tally.seen == tally.kept + 6 + 4
    assert tally.kept == len(keys(kept_shards(out))) == len(read_keep_list(out / "keep.npy"))
    failures = [polars.read_parquet(path) for path in sorted((out / "failures").iterdir())]
    assert sum(map(len, failures)) == 4


def test_sidecars_count_their_pairs(out: Path) -> None:
    for path in [*kept_shards(out), *quarantined_shards(out)]:
        stats = json.loads(path.with_name(f"{path.stem}_stats.json").read_text())
        assert (
            stats["successes"] == len(polars.read_parquet(path.with_suffix(".parquet"))) == len(keys([path]))
        )


def test_keep_list_and_table_agree(out: Path) -> None:
    table = polars.read_parquet(out / "verdicts" / "*.parquet")
    assert table.columns == ["uid", "keep", "reason"]
    assert read_keep_list(out / "keep.npy") == sorted(table.filter(polars.col("keep"))["uid"])
    assert set(table.filter(~polars.col("keep"))["reason"]) == {"many_captions_one_picture"}


def test_manifest_names_what_was_read_and_written(settings: RewriteSettings, out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    for name, digest in manifest["outputs"].items():
        assert sha256_of(out / name) == digest
    assert {Path(name).name for name in manifest["inputs"]} == {"a.tar", "b.tar", "c.tar", "d.tar"}
    assert manifest["inputs"][str(settings.store.parent / "a.tar")] == sha256_of(
        settings.store.parent / "a.tar"
    )
    written = {
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and "done" not in path.parts
    }
    own = {"manifest.json", "complete.json", "stage.json", "flagged.npz"}
    assert set(manifest["outputs"]) == written - own
    counts = manifest["counts"]
    assert counts["seen"] == counts["kept"] + sum(counts["quarantined"].values()) + sum(
        counts["failed"].values()
    )


def test_shards_without_a_pair_are_left_out(out: Path) -> None:
    assert [path.name for path in kept_shards(out)] == ["a.tar", "b.tar", "c.tar"]
    assert (out / "kept/d.tar").exists()


@pytest.mark.parametrize("lost", [("00001",), ("00000", "00002"), ("flagged", "00003")])
def test_killed_and_resumed_gives_the_same_bytes(
    settings: RewriteSettings, out: Path, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(out, again)
    for name in ("complete.json", "manifest.json", "keep.npy"):
        (again / name).unlink()
    for name in lost:
        for file in json.loads((again / f"done/{name}.json").read_text())["files"]:
            (again / file).unlink()
        (again / f"done/{name}.json").unlink()
    rewrite_shards(settings, out=again, executor=HERE)
    assert contents(again) == contents(out)


def test_the_same_call_again_does_no_work(settings: RewriteSettings, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    rewrite_shards(settings, out=out, executor=HERE)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_shards_that_share_a_name_are_numbered(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    shards = [
        write_shard(tmp_path / folder / "00000.tar", [(uid(number), picture(number), f"thing {number}")])
        for number, folder in enumerate(("one", "two"))
    ]
    tally = rewrite_shards(run(shards, tmp_path), out=tmp_path / "out", executor=HERE)
    assert tally.kept == 2
    assert [path.name for path in kept_shards(tmp_path / "out")] == ["00000.tar", "00001.tar"]
    assert quarantined_shards(tmp_path / "out") == []
    assert read_keep_list(tmp_path / "out/keep.npy") == [uid(0), uid(1)]


def test_a_shard_that_changed_since_is_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [(uid(number), picture(number), "thing") for number in range(3)])
    settings = run([shard], tmp_path)
    write_shard(shard, [(uid(number), picture(number), "thing") for number in range(2)])
    with pytest.raises(MismatchError, match="has 2 usable and 0 failed pairs, the store has 3 and 0"):
        rewrite_shards(settings, out=tmp_path / "out", executor=HERE)
    assert not (tmp_path / "out/kept/a.tar").exists()


def test_lists_say_of_more_pairs_what_becomes_of_them(settings: RewriteSettings, tmp_path: Path) -> None:
    drop, only = tmp_path / "drop.txt", tmp_path / "only.npy"
    drop.write_text("\n".join([uid(1), uid(20), uid(77)]))  # one is flagged by the scan, one is in no shard
    write_keep_list(only, [[uid(number) for number in (*range(10), 20)]])
    listed = replace(settings, lists=Lists(drop=(drop,), only=(only,)))
    tally = rewrite_shards(listed, out=tmp_path / "out", executor=HERE)
    kept = [uid(number) for number in range(10) if number != 1]
    assert read_keep_list(tmp_path / "out/keep.npy") == kept
    assert tally.quarantined == {
        "many_captions_one_picture": 6,
        "listed": 1,
        "not_listed": tally.seen - tally.failed.total() - len(kept) - 6 - 1,
    }
    assert keys(kept_shards(tmp_path / "out")) == [key[-6:] for key in kept]
    said = "\n".join(check.what for check in verify_folder(tmp_path / "out"))
    assert f"{drop} and {only} would have them, byte for byte" in said
    drop.write_text(uid(2))
    with pytest.raises(MismatchError, match="lists"):
        rewrite_shards(listed, out=tmp_path / "out", executor=HERE)
    with pytest.raises(MismatchError, match="sha256 of lists of uids"):
        list(verify_folder(tmp_path / "out"))


def test_lists_alone_are_those_beside_the_shards(
    settings: RewriteSettings, out: Path, tmp_path: Path
) -> None:
    rewrite_shards(replace(settings, lists_only=True), out=tmp_path / "out", executor=HERE)
    found, whole = contents(tmp_path / "out"), contents(out)
    differing = {name for name, data in found.items() if whole[name] != data}
    assert differing == {"stage.json", "manifest.json"}  # which say that there are no shards
    assert found.keys() > {"keep.npy", "verdicts/verdicts_00000.parquet", "failures/failures_00000.parquet"}
    assert not {"kept", "quarantined"} & {path.name for path in (tmp_path / "out").iterdir()}
    assert any(check.what.endswith("would have them") for check in verify_folder(tmp_path / "out"))
    with pytest.raises(MismatchError, match="holds lists alone"):
        kept_shards(tmp_path / "out")


def test_a_scan_of_another_store_is_refused(settings: RewriteSettings, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [(uid(1), picture(1), "thing")])
    embed([shard], tmp_path / "store")
    mixed = RewriteSettings(store=tmp_path / "store", verdicts=settings.verdicts)
    with pytest.raises(MismatchError, match="wanted one of"):
        rewrite_shards(mixed, out=tmp_path / "out", executor=HERE)


def test_totals_of_the_stages_are_the_same(settings: RewriteSettings, out: Path) -> None:
    complete = [json.loads((folder / "complete.json").read_text()) for folder in (settings.verdicts, out)]
    scanned, rewritten = (Tally.from_json(facts["tally"]) for facts in complete)
    assert scanned.seen == rewritten.seen
    assert scanned.failed == rewritten.failed
