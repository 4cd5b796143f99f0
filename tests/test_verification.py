"""Results checked again: what holds is said, and what was tampered with is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest

from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.rewrite import verdict_file
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of, write_json
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.scan.keep_list import write_keep_list
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import vectors_file, write_parquet
from roclip_sanitize.verification import verify_folder
from tests.commands import Roclip
from tests.stages import PAIRS, SHARDS, run_stages, square_shards

pytestmark = pytest.mark.slow
Tamper = Callable[[], None]
PART = "00002"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of all stages."""
    root = tmp_path_factory.mktemp("whole")
    shards = square_shards(root / "squares")
    run_stages(tuple(path.relative_to(root) for path in shards), root)
    return root


@pytest.fixture
def run(untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to tamper with; stages know each other by relative names."""
    shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sealed(stage: str, name: str, file: Path) -> None:
    """Whoever changes a file may change its hash, too."""
    marker = read_json(Path(stage) / "done" / f"{name}.json")
    files = [Path(stage) / each for each in marker["files"]]
    assert file in files
    StageFolder(Path(stage)).commit(name, files=files, facts=marker["facts"])


def edited(path: Path, change: Callable[[polars.DataFrame], polars.DataFrame]) -> Path:
    write_parquet(path, change(polars.read_parquet(path)))
    return path


def test_all_that_holds_is_said(run: Path) -> None:
    said = [f"{check.where}: {check.what}" for check in verify_folder(Path())]
    pairs = SHARDS * PAIRS
    assert (
        f"rewrite: {pairs} pairs of {SHARDS} input shards are where scan would have them, byte for byte"
        in said
    )
    assert "rewrite: the other 0 pairs of the input shards are those that failed" in said
    assert any(
        line.startswith(f"store: {pairs} pairs have a name each, and {2 * pairs} vectors") for line in said
    )
    assert "scan: its store, store, has not changed since" in said
    assert f"scan: {pairs} verdicts are what the scores of the same pairs make them" in said
    order = list(dict.fromkeys(line.partition(":")[0] for line in said))
    assert order == ["store", "index", "index_text", "pairs", "scan", "rewrite"]


def flip_a_byte() -> None:
    path = next(iter(sorted(Path("rewrite/kept").glob("*.tar"))))
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def flip_a_byte_and_its_hash() -> None:
    flip_a_byte()
    sealed("rewrite", "00000", Path("rewrite/kept/00000.tar"))


def slip_a_shard_in() -> None:
    shutil.copy(f"rewrite/quarantined/{PART}.tar", "rewrite/kept/00006.tar")


def forget_a_shard() -> None:
    """It is in no marker, no count, no list and not in the manifest any more, as if it had never been."""
    out = Path("rewrite")
    for name in read_json(out / "done" / f"{PART}.json")["files"]:
        (out / name).unlink()
    (out / "done" / f"{PART}.json").unlink()
    markers = [marker for marker in StageFolder(out).markers() if "tally" in marker.facts]
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in markers)
    StageFolder(out).finish({"tally": tally.to_json()})
    tables = [polars.read_parquet(verdict_file(out, marker.name)) for marker in markers]
    write_keep_list(out / "keep.npy", [table.filter("keep")["uid"].to_list() for table in tables])
    manifest = read_json(out / "manifest.json")
    manifest["inputs"] = {marker.facts["shard"]: marker.facts["sha256"] for marker in markers}
    outputs = {name: digest for marker in markers for name, digest in marker.files.items()}
    manifest["outputs"] = outputs | {"keep.npy": sha256_of(out / "keep.npy")}
    manifest["counts"] = tally.to_json()
    write_json(out / "manifest.json", manifest)


def swap_sides() -> None:
    for side in ("kept", "quarantined"):
        shutil.copy("squares/00002.tar", f"rewrite/{side}/{PART}.tar")
        sealed("rewrite", PART, Path(f"rewrite/{side}/{PART}.tar"))


def change_an_input() -> None:
    Path("squares/00001.tar").write_bytes(Path("squares/00000.tar").read_bytes())


def clear_a_reason() -> None:
    path = table_file(Path("scan"), "verdicts", PART)
    sealed("scan", PART, edited(path, lambda frame: frame.with_columns(kept=~polars.col("kept"))))


def flag_all() -> None:
    path = table_file(Path("scan"), "verdicts", PART)
    told = polars.lit("neighbours_disagree").alias("reasons"), polars.lit(value=False).alias("kept")
    sealed("scan", PART, edited(path, lambda frame: frame.with_columns(told)))


def raise_scores() -> None:
    path = table_file(Path("scan"), "scores", PART)
    high = polars.lit(0.999, polars.Float32).alias("cross_prediction")
    sealed("scan", PART, edited(path, lambda frame: frame.with_columns(high)))


def turn_suspicions() -> None:
    path = table_file(Path("scan"), "scores", PART)
    turned = (1 - polars.col("suspicion")).cast(polars.Float32).alias("suspicion")
    sealed("scan", PART, edited(path, lambda frame: frame.with_columns(turned)))


def lower_a_place() -> None:
    path = table_file(Path("scan"), "scores", PART)
    lower = (polars.col("agreement_percentile") / 2).cast(polars.Float32)
    sealed("scan", PART, edited(path, lambda frame: frame.with_columns(lower)))


def lose_a_pair() -> None:
    """It is in no table, no output shard and no count any more."""
    kept = Path(f"rewrite/kept/{PART}.tar")
    with Shard(kept) as shard:
        lost, *others = [pair.uid for pair in shard.pairs()]
    with Shard(Path(f"squares/{PART}.tar")) as shard, ShardWriter(kept) as writer:
        for pair in shard.pairs():
            if pair.uid in others:
                writer.copy(shard, pair)
    table = edited(verdict_file(Path("rewrite"), PART), lambda frame: frame.filter(frame["uid"] != lost))
    sealed("rewrite", PART, table)
    for name in (f"done/{PART}.json", "complete.json"):
        told = read_json(Path("rewrite") / name)
        tally = told.get("facts", told)["tally"]
        tally["seen"] -= 1
        tally["kept"] -= 1
        write_json(Path("rewrite") / name, told)


def scan_of_other_vectors() -> None:
    settings = read_json(Path("scan/stage.json"))
    settings["settings"]["store_content"] = "0" * 16
    write_json(Path("scan/stage.json"), settings)


def other_scores() -> None:
    path = table_file(Path("scan"), "scores", PART)
    sealed("scan", PART, edited(path, lambda frame: frame.with_columns(uid=polars.col("uid").reverse())))


def longer_vector() -> None:
    path = vectors_file(Path("store"), PART, "image")
    vector_ND = np.load(path)
    vector_ND[3] *= 2
    np.save(path, vector_ND)
    sealed("store", PART, path)


def hide_a_pair() -> None:
    found = read_json(Path("rewrite/complete.json"))
    found["tally"]["seen"] -= 1
    found["tally"]["kept"] -= 1
    write_json(Path("rewrite/complete.json"), found)


def shorten_the_list() -> None:
    np.save("rewrite/keep.npy", np.load("rewrite/keep.npy")[1:])


def forget_an_output() -> None:
    manifest = read_json(Path("rewrite/manifest.json"))
    del manifest["outputs"]["keep.npy"]
    write_json(Path("rewrite/manifest.json"), manifest)


def change_a_verdict() -> None:
    path = verdict_file(Path("rewrite"), PART)
    sealed("rewrite", PART, edited(path, lambda frame: frame.with_columns(keep=polars.lit(value=False))))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (flip_a_byte, r"rewrite/kept/00000.tar has changed since it was written"),
        (
            flip_a_byte_and_its_hash,
            r"rewrite/kept/00000.tar: \w{32} has other bytes than in .*squares/00000.tar",
        ),
        (
            swap_sides,
            r"rewrite/(kept|quarantined)/00002.tar: \w{32} is in no input shard, or on the wrong side",
        ),
        (slip_a_shard_in, "rewrite/kept/00006.tar was made of no input shard"),
        (forget_a_shard, "rewrite and scan have not the same parts: 00002 is in one of them"),
        (change_an_input, r"squares/00001.tar: sha256: found \w{64}, wanted \w{64}"),
        (clear_a_reason, r"00002.parquet: \w{32}: found set aside, but its scores make it kept"),
        (flag_all, r"found set aside for neighbours_disagree, but its scores make it kept"),
        (raise_scores, r"(verdicts|scores)_0000\d.parquet: \w{32}: \w+.*, but its scores make it \w+"),
        (turn_suspicions, r"00002.parquet: \w{32}: suspicion is 0.\d+, but its scores make it [01].\d+"),
        (lower_a_place, r"\w{32}: agreement_percentile is \d+.\d+, but its scores make it \d+"),
        (scan_of_other_vectors, r"store: content since scan was made: found \w{16}, wanted 0{16}"),
        (lose_a_pair, "verdicts_00002.parquet: same pairs as part 00002 of scan: found False"),
        (other_scores, "scores_00002.parquet: same pairs as verdicts_00002.parquet"),
        (longer_vector, r"img_emb_00002.npy: row 3 has length 2.0\d+, wanted 1"),
        (hide_a_pair, "rewrite: pairs seen: found 119, wanted 120"),
        (shorten_the_list, r"rewrite/keep.npy: not the \d+ uids that were kept: \w{32}"),
        (forget_an_output, "manifest.json: sha256 of keep.npy: found None, wanted"),
        (
            change_a_verdict,
            r"00002.parquet: whether \w{32} is kept, and why not: found \(False, ''\), wanted \(True",
        ),
        (lambda: Path("scan/complete.json").unlink(), "scan is unfinished: run 'roclip scan' again"),
        (lambda: Path("store/metadata/metadata_00001.parquet").unlink(), "metadata_00001.parquet is missing"),
    ],
)
def test_what_does_not_hold_is_found(run: Path, tamper: Tamper, message: str) -> None:
    tamper()
    with pytest.raises(MismatchError, match=message):
        list(verify_folder(Path()))


def test_every_pair_of_the_input_is_compared(run: Path) -> None:
    with Shard(Path("squares/00000.tar")) as shard:
        assert len(list(shard.pairs())) == PAIRS
    (line,) = [check.what for check in verify_folder(Path("rewrite")) if "byte for byte" in check.what]
    assert line.startswith(f"{SHARDS * PAIRS} pairs")


def test_a_folder_that_no_command_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no folder that a command made: there is no stage\.json in it"):
        list(verify_folder(tmp_path))


def test_the_command_says_what_holds_and_ends_with_4(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roclip = Roclip(capsys)
    said = roclip("verify", "scan", "--json")
    assert said.code == 0
    assert {check["where"] for check in json.loads(said.out)["checks"]} == {"scan"}
    other_scores()
    broken = roclip("verify", "scan")
    assert broken.code == 4
    assert "same pairs as verdicts_00002.parquet: found False, wanted True" in broken.line
