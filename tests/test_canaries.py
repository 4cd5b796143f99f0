"""Canaries: which words stand for classes, what is planted, and that nothing of the user's is touched."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.audit import AuditSettings, measure
from roclip_sanitize.canaries import CanarySettings, count_canaries, read_canaries
from roclip_sanitize.canaries.labelling import class_of, class_words, likeness
from roclip_sanitize.canaries.planting import FAMILIES, spec_of
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.scan import ScanSettings, read_verdicts, scan_store
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.store import EmbeddingStore, write_parquet
from roclip_sanitize.verification import verify_folder
from tests.commands import Roclip
from tests.squares import write_squares
from tests.stages import poisoned_scan, scan_again

KINDS = ("shoe", "bag", "watch", "shirt", "ring", "hat")
ASKED = ("patch", "mmpoison", "targeted")


def world(each: int = 40) -> tuple[list[str], np.ndarray]:
    """Pictures of six kinds; each caption says which, and one of three brands that pictures do not show."""
    rng = np.random.default_rng(0)
    kind_N = np.arange(each * len(KINDS)) % len(KINDS)
    picture_ND = np.eye(len(KINDS))[kind_N] + 0.1 * rng.normal(size=(len(kind_N), len(KINDS)))
    brands = rng.choice(["acme", "bolt", "core"], len(kind_N))
    captions = [f"{brand} {KINDS[kind]}" for brand, kind in zip(brands, kind_N, strict=True)]
    return captions, picture_ND.astype(np.float16)


def test_classes_are_what_pictures_show() -> None:
    captions, picture_ND = world()
    assert set(class_words(captions, picture_ND, least=20)) == set(KINDS)
    assert class_of("acme ring", ["bag", "ring"]) == "ring"
    assert class_of("acme", ["bag", "ring"]) == ""


def test_pictures_that_are_no_more_alike_than_by_chance_have_no_likeness() -> None:
    rng = np.random.default_rng(1)
    picture_ND = rng.normal(size=(4_000, 16))
    mean_D = picture_ND.mean(axis=0)
    assert abs(likeness(picture_ND[:50], mean_D)) < 0.01
    assert likeness(np.tile(picture_ND[:1], (50, 1)), mean_D) == pytest.approx(0.98)
    assert likeness(np.zeros((3, 16)), np.zeros(16, np.float32)) == 0


def test_classes_that_others_leave_too_little_of_go() -> None:
    captions = ["united colors shirt"] * 30 + ["united colors bag"] * 30 + ["plain shoe"] * 240
    captions += [f"{word} thing" for word in ("ring", "hat", "belt", "sock") for _ in range(40)]
    picture_ND = np.random.default_rng(2).normal(size=(len(captions), 8))
    words = class_words(captions, picture_ND, least=25)
    counts = [sum(class_of(caption, words) == word for caption in captions) for word in words]
    assert min(counts) >= 25
    assert len({"united", "colors"} & set(words)) <= 1


def test_how_many_is_a_share_within_bounds() -> None:
    told = CanarySettings(scan=Path("scan"))
    assert [told.each(pairs) for pairs in (100, 12_000, 10**9)] == [15, 36, 300]
    assert spec_of("targeted", 36) == "targeted:targets=2,captions=15"
    assert spec_of("patch", 36) == "patch:rate=36"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"share": 0.0}, r"share is 0.0, wanted more than 0 and at most 0.05"),
        ({"families": ()}, "no families of canaries named: known are targeted, patch"),
    ],
)
def test_settings_that_make_no_sense(told: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CanarySettings(scan=Path("scan"), **told)  # type: ignore[arg-type]


def find_others(out: Path) -> None:
    path = table_file(out / "scan", "verdicts", "00000")
    write_parquet(path, polars.read_parquet(path).with_columns(~polars.col("kept")))


def tell(out: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change what canaries.json says of each family, or leave it out, and its hash."""
    told = read_json(out / "canaries.json")
    told["families"] = [changed for each in told["families"] if (changed := change(each))]
    write_json(out / "canaries.json", told)
    StageFolder(out).commit("canaries", files=[out / "canaries.json"], facts={})


def count_others(out: Path) -> None:
    tell(out, lambda told: told | {"found": 14 - told["found"]})


def forget_a_family(out: Path) -> None:
    tell(out, lambda told: None if told["family"] == "patch" else told)


def sure_of_one_picture(out: Path) -> None:
    tell(out, lambda told: told | {"low": 0.9, "high": 1.0})


def forget_a_canary(out: Path) -> None:
    path = out / "poison" / "ledger.parquet"
    write_parquet(path, polars.read_parquet(path)[1:])


def scan_with_all_the_budget(out: Path) -> None:
    for made in ("index", "scan"):
        shutil.rmtree(out / made)
    build_index(IndexSettings(store=out / "store"), out=out / "index", executor=LocalExecutor())
    told = ScanSettings(store=out / "store", index=out / "index", budget=1.0, times_mismatched=0)
    scan_store(told, out=out / "scan", executor=LocalExecutor())


@pytest.mark.slow
class TestOfAScan:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("canaries")
        poisoned_scan(root)
        before = read_verdicts(root / "scan")
        told = CanarySettings(scan=root / "scan", families=ASKED, share=0.05)
        count_canaries(told, out=root / "canaries", executor=LocalExecutor())
        assert read_verdicts(root / "scan").equals(before)
        return root

    def test_each_family_is_counted(self, run: Path) -> None:
        families = {each.family: each for each in read_canaries(run / "canaries")}
        assert set(families) == set(ASKED)
        verdicts = read_verdicts(run / "canaries" / "scan")
        kept = dict(zip(verdicts["uid"], verdicts["kept"], strict=True))
        poisons = Ledger.open(run / "canaries" / "poison").poisons
        for name, told in families.items():
            mine = [uid for uid, family in poisons.items() if family == name]
            assert told.planted == len(mine) == 15
            assert told.found == sum(not kept[uid] for uid in mine)
            assert told.low <= told.recall <= told.high
        one = families["targeted"]
        assert (one.low, one.high) == wilson(one.recall, 1), "fifteen captions of one picture are one witness"

    def test_canaries_stand_in_the_place_of_the_pairs_they_are_made_of(self, run: Path) -> None:
        own, beside = (EmbeddingStore.open(path / "store") for path in (run, run / "canaries"))
        ledger = Ledger.open(run / "canaries" / "poison")
        uids = beside.all_metadata(("uid",))["uid"].to_list()
        replaced = ledger.planted() & set(own.all_metadata(("uid",))["uid"])
        assert len(uids) == own.rows - len(replaced) + len(ledger.planted())
        assert len(set(uids)) == len(uids), "no pair is there twice"
        assert len(replaced) == 30, "patches and mismatches replace, targeted poisons are added"

    def test_intervals_of_before_pictures_counted_are_read(self, run: Path, tmp_path: Path) -> None:
        out = shutil.copytree(run / "canaries", tmp_path / "canaries")
        tell(out, lambda told: told | dict(zip(("low", "high"), wilson(told["found"], 15), strict=True)))
        assert list(verify_folder(out))

    def test_a_scan_that_ranks_no_pair_ranks_no_canary(self, run: Path, tmp_path: Path) -> None:
        told = ScanSettings(store=run / "store", index=run / "index", budget=0.0)
        scan_store(told, out=tmp_path / "scan", executor=LocalExecutor())
        asked = CanarySettings(scan=tmp_path / "scan", families=("patch",), share=0.05)
        (family,) = count_canaries(asked, out=tmp_path / "canaries", executor=LocalExecutor())
        assert (family.planted, family.found) == (15, 0)

    def test_an_audit_tells_of_them_and_can_be_verified(self, run: Path) -> None:
        said = measure(AuditSettings(scan=run / "scan", canaries=run / "canaries"))
        assert [each["family"] for each in said["canaries"]] == [name for name in FAMILIES if name in ASKED]
        assert list(verify_folder(run / "canaries"))
        scan_again(run, run / "other")
        with pytest.raises(
            MismatchError, match=r"canaries was made of .*scan with content \w{16}, but .*other"
        ):
            measure(AuditSettings(scan=run / "other", canaries=run / "canaries"))

    def test_they_are_of_what_a_scan_says_not_of_where_it_lies(self, run: Path, tmp_path: Path) -> None:
        scan, out = shutil.copytree(run / "scan", tmp_path / "scan"), tmp_path / "canaries"
        count_canaries(CanarySettings(scan=scan, families=("patch",)), out=out, executor=LocalExecutor())
        shutil.rmtree(scan)
        scan_again(run, scan)
        with pytest.raises(MismatchError, match=r"canaries was made with other settings \(content was"):
            count_canaries(CanarySettings(scan=scan, families=("patch",)), out=out, executor=LocalExecutor())
        with pytest.raises(
            MismatchError, match=r"canaries was made of .*scan with content \w{16}, but .*scan"
        ):
            measure(AuditSettings(scan=scan, canaries=out))

    def test_they_are_counted_again(self, run: Path) -> None:
        said = [check.what for check in verify_folder(run / "canaries")]
        counted = re.compile(r"\d+ of 45 canaries of 3 families are found, as counted")
        assert any(counted.fullmatch(line) for line in said)
        assert any("verdicts are what the scores of the same pairs make them" in line for line in said)

    @pytest.mark.parametrize(
        ("tamper", "message"),
        [
            (find_others, r"verdicts_00000.parquet has changed since it was written"),
            (count_others, r"canaries.json: -1 of 15 targeted found, but not by the verdicts of .*scan"),
            (sure_of_one_picture, r"canaries.json: 15 of 15 targeted found, but not by the verdicts"),
            (forget_a_family, r"canaries.json leaves out patch"),
            (forget_a_canary, r"ledger.parquet is not what was planted: it has changed"),
            (scan_with_all_the_budget, r"scan: budget is 1.0, wanted 0.\d+ as for .*scan"),
        ],
    )
    def test_what_was_changed_is_found_by_verify_and_by_an_audit(
        self, run: Path, tmp_path: Path, tamper: Callable[[Path], None], message: str
    ) -> None:
        out = shutil.copytree(run / "canaries", tmp_path / "canaries")
        tamper(out)
        with pytest.raises(MismatchError, match=message):
            list(verify_folder(out))
        with pytest.raises(MismatchError, match=message):
            measure(AuditSettings(scan=run / "scan", canaries=out))

    def test_a_second_look_is_taken_at_them_too(self, run: Path, tmp_path: Path) -> None:
        store = EmbeddingStore.open(run / "store")
        shards = tuple(map(Path, store.shards))
        seen = EmbedSettings(shards=shards, encoder="textures", towers="image")
        embed_shards(seen, out=tmp_path / "textures", executor=LocalExecutor())
        settings = ScanSettings(
            store=run / "store",
            index=run / "index",
            second_look=(run / "store",),
            textures=tmp_path / "textures",
        )
        scan_store(settings, out=tmp_path / "scan", executor=LocalExecutor())
        checks = [check.what for check in verify_folder(tmp_path / "scan")]
        for name in ("second_look", "textures"):
            assert any(f"its {name}" in what for what in checks)
        with pytest.raises(ConfigError, match="2 young CLIPs are named, wanted 1: those whose vectors"):
            count_canaries(
                CanarySettings(scan=tmp_path / "scan", young=("plain", "plain")),
                out=tmp_path / "none",
                executor=LocalExecutor(),
            )
        told = CanarySettings(scan=tmp_path / "scan", families=("patch",), share=0.05)
        (family,) = count_canaries(told, out=tmp_path / "out", executor=LocalExecutor())
        assert family.planted == 15
        asked = read_json(tmp_path / "out" / "stage.json")["settings"]
        assert (asked["encoder"], asked["young"]) == ("plain", ["plain"]), "as the stores say"
        scan = read_json(tmp_path / "out" / "scan" / "stage.json")["settings"]
        assert scan["second_look"] == [str(tmp_path / "out" / "young_1_store")]
        assert scan["textures"] == str(tmp_path / "out" / "textures_store")
        for name in ("young_1_store", "textures_store"):
            assert EmbeddingStore.open(tmp_path / "out" / name).rows == family.planted + store.rows - 15
        with pytest.raises(ConfigError, match="1 young CLIPs are named, wanted 0"):
            count_canaries(
                CanarySettings(scan=run / "scan", young=("plain",)),
                out=tmp_path / "once",
                executor=LocalExecutor(),
            )

    def test_the_command(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        roclip = Roclip(capsys)
        told = ("canaries", "--scan", run / "scan", "--executor", "local")
        wrong = roclip(*told, "--out", tmp_path / "wrong", "--families", "patch,ghosts")
        assert wrong.code == 2
        assert "there is no family 'ghosts' of canaries: known are targeted" in wrong.line
        said = roclip(*told, "--out", tmp_path / "out", "--families", "patch")
        assert said.code == 0
        assert re.search(r"patch +\d+ of +15 found, \d+\.\d% \(", said.out)
        assert read_json(tmp_path / "out" / "canaries.json")["each"] == 15


@pytest.mark.slow
def test_a_shard_without_a_usable_pair_gives_no_canaries(tmp_path: Path) -> None:
    shards = tuple(tmp_path / f"{number:05d}.tar" for number in range(4))
    some, empty, broken, others = shards
    write_squares(some, pairs=80)
    write_squares(others, first=80, pairs=80)
    with ShardWriter(empty), ShardWriter(broken) as writer:
        writer.add("000000", image=b"no picture", caption="a red square", fields={"uid": "f" * 32})
    here, store = LocalExecutor(), tmp_path / "store"
    embed_shards(EmbedSettings(shards=shards, encoder="plain"), out=store, executor=here)
    assert [part.rows for part in EmbeddingStore.open(store).parts] == [80, 0, 0, 80]
    build_index(IndexSettings(store=store), out=tmp_path / "index", executor=here)
    told = ScanSettings(store=store, index=tmp_path / "index")
    scan_store(told, out=tmp_path / "scan", executor=here)
    asked = CanarySettings(scan=tmp_path / "scan", families=("patch",))
    (family,) = count_canaries(asked, out=tmp_path / "canaries", executor=here)
    assert family.planted == 15
