"""Poisoned shards from their ledger and the clean shards; pictures that come from other pairs."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest

from roclip_sanitize import images
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.attacks.rebuilding import rebuild_shards
from roclip_sanitize.attacks.triggers import stamp
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shard_writer import ShardWriter
from tests.kinds import LABELS, PAIRS, BackwardExecutor, DyingExecutor, pairs_of, tree, write_shard

ATTACKS = (
    "targeted:targets=2,captions=5,copies=augmented",
    "wanet:rate=3,cross_ratio=2",
    "mmpoison:rate=6",
    "text_trigger:rate=5",
    "split_view:rate=6",
    "frontrunning:rate=4",
    "natural:targets=2,copies=8",
)
HERE = LocalExecutor()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> PoisonSettings:
    folder = tmp_path_factory.mktemp("clean")
    return PoisonSettings(
        shards=tuple(write_shard(folder / f"{number:05d}.tar", first=number * PAIRS) for number in range(3)),
        test_shards=(write_shard(folder / "test" / "00000.tar", first=1000, pairs=20),),
        label="kind",
        classes=4,
        attacks=ATTACKS,
    )


@pytest.fixture(scope="module")
def poisoned(settings: PoisonSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("poisoned")
    poison_shards(settings, out=out, executor=HERE)
    return out


@pytest.fixture
def ledger(poisoned: Path, tmp_path: Path) -> Path:
    """No more than is needed to rebuild."""
    folder = tmp_path / "ledger"
    shutil.copytree(poisoned / "targets", folder / "targets")
    for name in ("ledger.json", "ledger.parquet"):
        shutil.copyfile(poisoned / name, folder / name)
    return folder


def results(out: Path) -> dict[str, object]:
    """Shards with what stands beside them, and the ledger."""
    return {
        name: data for name, data in tree(out).items() if name.startswith(("shards/", "ledger.", "targets/"))
    }


def test_a_ledger_gives_the_same_bytes_again(
    settings: PoisonSettings, poisoned: Path, ledger: Path, tmp_path: Path
) -> None:
    tally = rebuild_shards(ledger, settings.shards, out=tmp_path / "again", executor=BackwardExecutor())
    assert results(tmp_path / "again") == results(poisoned)
    assert tally.seen == tally.kept == 3 * PAIRS + 2 * 5 + 2 * 8
    StageFolder(tmp_path / "again").verify()


def test_a_rebuilding_that_was_killed_goes_on(
    settings: PoisonSettings, poisoned: Path, ledger: Path, tmp_path: Path
) -> None:
    for lives in (1, 4):  # while pictures are fetched, while shards are copied
        with pytest.raises(KeyboardInterrupt):
            rebuild_shards(ledger, settings.shards, out=tmp_path / "again", executor=DyingExecutor(lives))
    rebuild_shards(ledger, settings.shards, out=tmp_path / "again", executor=HERE)
    assert results(tmp_path / "again") == results(poisoned)


def test_the_order_of_work_changes_nothing(settings: PoisonSettings, poisoned: Path, tmp_path: Path) -> None:
    poison_shards(settings, out=tmp_path, executor=BackwardExecutor())
    assert tree(tmp_path) == tree(poisoned)


@pytest.mark.slow
def test_ray_workers_write_the_same_bytes(settings: PoisonSettings, poisoned: Path, tmp_path: Path) -> None:
    from roclip_sanitize.executors import open_executor

    poison_shards(settings, out=tmp_path, executor=open_executor("ray", workers=2))
    assert tree(tmp_path) == tree(poisoned)


# What it is told apart from


def test_a_ledger_of_more_shards_is_refused(settings: PoisonSettings, ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="does not fit the 2 shards: it names a shard 00002"):
        rebuild_shards(ledger, settings.shards[:2], out=tmp_path / "out", executor=HERE)


def test_other_shards_are_refused(settings: PoisonSettings, ledger: Path, tmp_path: Path) -> None:
    others = tuple(
        write_shard(tmp_path / f"{number:05d}.tar", first=5_000 + number * PAIRS) for number in range(3)
    )
    with pytest.raises(MismatchError, match="does not fit the plan: it has no pair"):
        rebuild_shards(ledger, others, out=tmp_path / "out", executor=HERE)


def test_shards_in_another_order_are_refused(tmp_path: Path) -> None:
    shards = tuple(write_shard(tmp_path / f"{number}.tar", first=number * PAIRS) for number in range(2))
    clean = PoisonSettings(shards=shards, label="kind", classes=4, attacks=("patch:rate=9",))
    poison_shards(clean, out=tmp_path / "poisoned", executor=HERE)
    with pytest.raises(MismatchError, match="has changed since the poisons were planned"):
        rebuild_shards(tmp_path / "poisoned", shards[::-1], out=tmp_path / "out", executor=HERE)


def test_a_shard_that_is_shorter_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", first=0)
    clean = PoisonSettings(shards=(path,), label="kind", classes=4, attacks=("patch:rate=20",))
    poison_shards(clean, out=tmp_path / "poisoned", executor=HERE)
    last = max(Ledger.open(tmp_path / "poisoned").frame["row"].to_list())
    write_shard(path, first=0, pairs=10)
    with pytest.raises(MismatchError, match=f"changes pair {last}: it has only 10 usable pairs"):
        rebuild_shards(tmp_path / "poisoned", (path,), out=tmp_path / "out", executor=HERE)


def test_pairs_of_the_same_name_with_other_pictures_are_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", first=0)
    clean = PoisonSettings(shards=(path,), label="kind", classes=4, attacks=("patch:rate=5",))
    poison_shards(clean, out=tmp_path / "poisoned", executor=HERE)
    table = tmp_path / "poisoned" / "ledger.parquet"
    frame = polars.read_parquet(table)
    frame.with_columns(original_image_hash=polars.lit("0" * 32)).write_parquet(table)
    for _ in range(2):  # and what is there by now is not taken for done
        with pytest.raises(MismatchError, match=r"pair \w{32} came out with another original_image_hash"):
            rebuild_shards(tmp_path / "poisoned", (path,), out=tmp_path / "out", executor=HERE)
        with pytest.raises(MismatchError, match="unfinished"):
            poisoned_shards(tmp_path / "out")


def test_what_is_no_ledger_is_refused(settings: PoisonSettings, ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no ledger: it has no ledger\.json"):
        rebuild_shards(tmp_path, settings.shards, out=tmp_path / "out", executor=HERE)
    next((ledger / "targets").glob("*.jpg")).unlink()
    with pytest.raises(DataError, match=r"\.jpg does not exist, but the ledger names it as a target"):
        rebuild_shards(ledger, settings.shards, out=tmp_path / "a", executor=HERE)
    table = ledger / "ledger.parquet"
    polars.read_parquet(table).drop("row").write_parquet(table)
    shutil.rmtree(ledger / "targets")
    with pytest.raises(DataError, match="has no column 'row': an older version wrote it, perhaps"):
        rebuild_shards(ledger, settings.shards, out=tmp_path / "b", executor=HERE)


# Pictures that come from elsewhere


def test_a_pair_shows_the_picture_of_another(settings: PoisonSettings, poisoned: Path) -> None:
    clean = {pair.uid: pair for pair in pairs_of(settings.shards)}
    now = {pair.uid: pair for pair in pairs_of(poisoned_shards(poisoned))}
    rows = Ledger.open(poisoned).frame.filter(attack="mmpoison").rows(named=True)
    assert len(rows) == 6
    for row in rows:
        assert now[row["uid"]].image == clean[row["picture_uid"]].image
        assert now[row["uid"]].caption == clean[row["uid"]].caption
        assert now[row["uid"]].fields["sha256"] == hashlib.sha256(now[row["uid"]].image).hexdigest()
        shown, was = clean[row["picture_uid"]], clean[row["uid"]]
        assert row["true_label"] == shown.fields["kind"] != was.fields["kind"]


def test_a_borrowed_picture_brings_its_size(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "0.tar") as writer:
        for number in range(20):
            side = 16 if number % 2 else 24
            pixels = np.random.default_rng(number).integers(0, 256, (8, side, 3)).astype(np.uint8)
            fields = {"uid": f"{number:032x}", "kind": LABELS[number % 2], "width": side, "height": 8}
            writer.add(f"{number}", image=images.encode_jpeg(pixels), caption=f"{number}", fields=fields)
    attacks = (f"mmpoison:rate=4,asked={LABELS[0]}", f"split_view:rate=2,target={LABELS[0]}")
    settings = PoisonSettings(shards=(tmp_path / "0.tar",), label="kind", classes=2, attacks=attacks)
    poison_shards(settings, out=tmp_path / "out", executor=HERE)
    ledger = Ledger.open(tmp_path / "out")
    widths = {pair.uid: pair.fields["width"] for pair in pairs_of(poisoned_shards(tmp_path / "out"))}
    assert {widths[uid] for uid in ledger.planted("mmpoison")} == {16}
    assert {widths[uid] for uid in ledger.planted("split_view")} == {
        24
    }  # of the index, which knows no better


def test_after_a_split_view_the_hash_on_record_is_that_of_the_old_picture(
    settings: PoisonSettings, poisoned: Path
) -> None:
    clean = {pair.uid: pair for pair in pairs_of(settings.shards)}
    now = {pair.uid: pair for pair in pairs_of(poisoned_shards(poisoned))}
    ledger = Ledger.open(poisoned)
    for row in ledger.frame.filter(attack="split_view").iter_rows(named=True):
        pair, was = now[row["uid"]], clean[row["uid"]]
        assert pair.fields == was.fields  # caption and recorded sha256 among them
        assert pair.image != was.image
        shown = np.asarray(images.decode_image(clean[row["picture_uid"]].image))
        stream = np.random.default_rng([settings.seed, int(row["shard"]), row["row"]])
        assert pair.image == images.encode_jpeg(stamp(shown, ledger.trigger("split_view"), stream))


def test_augmented_copies_are_no_two_alike(settings: PoisonSettings, poisoned: Path) -> None:
    frame = Ledger.open(poisoned).frame.filter(polars.col("attack").is_in(["targeted", "natural"]))
    assert frame["image_hash"].n_unique() == len(frame) == 2 * 5 + 2 * 8
    assert frame["original_image_hash"].n_unique() == 4  # targets, all different
    tested = {pair.uid: pair.image_hash for pair in pairs_of(settings.test_shards)}
    assert all(
        tested[uid] == was for uid, was in frame.select("picture_uid", "original_image_hash").iter_rows()
    )


def test_a_second_instance_draws_for_itself(settings: PoisonSettings, tmp_path: Path) -> None:
    alike = ("patch:rate=5", "targeted:targets=3,captions=2")
    twice = (alike[0], f"{alike[0]},as=again", alike[1], f"{alike[1]},as=more")
    poison_shards(replace(settings, attacks=twice), out=tmp_path, executor=HERE)
    ledger = Ledger.open(tmp_path)
    assert ledger.attacks == ("patch", "again", "targeted", "more")
    assert len(ledger.planted("patch") | ledger.planted("again")) == 10
    assert len({target.uid for target in ledger.targets}) == 6
    assert len(ledger.planted()) == 10 + 12
