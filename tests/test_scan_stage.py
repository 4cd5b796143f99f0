"""The scan as a whole, on a small world in which every poison is planted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import ScanSettings, detection_quality, read_scores, read_verdicts, scan_store
from roclip_sanitize.store import EmbeddingStore
from tests.stores import make_store

DETECTORS = ("agreement", "collisions")  # test_scan_cross.py has a world for cross prediction
KINDS = ("shoe", "bag", "watch", "shirt")
CLEAN, PATCHED, TARGETED = range(48), range(48, 51), range(51, 57)
PICTURED = [row % 4 for row in CLEAN] + [0, 1, 3] + [1] * 6
SAID = [row % 4 for row in CLEAN] + [2, 2, 2] + [3] * 6


def make_world(path: Path, part_sizes: Sequence[int] = (20, 0, 30, 7)) -> ScanSettings:
    """Twelve clean pairs of each kind; three pictures called a watch; a bag that is six shirts."""
    rng = np.random.default_rng(5)
    image_ND = rng.normal(size=(len(KINDS), 16))[PICTURED] + 0.3 * rng.normal(size=(57, 16))
    image_ND[TARGETED] = image_ND[TARGETED.start]
    hashes = [f"{TARGETED.start if row in TARGETED else row:032x}" for row in range(57)]
    names = [letter + other for letter in "abcdefgh" for other in "stuvwxyz"]  # too rare to count as words
    captions = [f"{KINDS[kind]} {name}" for kind, name in zip(SAID, names, strict=False)]
    make_store(path / "store", image_ND, image_ND, part_sizes, captions=captions, image_hashes=hashes)
    build_index(IndexSettings(store=path / "store", parts=2), out=path / "index", executor=LocalExecutor())
    return ScanSettings(
        store=path / "store", index=path / "index", detectors=DETECTORS, neighbours=6, budget=0.08
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def scanned(world: ScanSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scan") / "out"
    scan_store(world, out=out, executor=LocalExecutor())
    return out


def uids(rows: Iterable[int]) -> list[str]:
    return [f"{row:032x}" for row in rows]


def contents(out: Path) -> dict[str, bytes]:
    """All results; markers and facts tell seconds, which differ."""
    files = [path for path in out.rglob("*") if path.is_file() and "done" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if path.name != "complete.json"}


def test_every_poison_is_found_and_no_clean_pair_lost(scanned: Path) -> None:
    ledger = dict.fromkeys(uids(PATCHED), "patch") | dict.fromkeys(uids(TARGETED), "targeted")
    found = detection_quality(read_scores(scanned), read_verdicts(scanned), ledger)
    values = {(one.metric, one.attack, one.detector): one.value for one in found}
    assert values["auroc", "patch", "agreement"] == values["auroc", "targeted", "captions_of_picture"] == 1.0
    assert values["poison_recall", "patch", None] == values["poison_recall", "targeted", None] == 1.0
    assert values["clean_lost", None, None] == 0.0


def test_tally_and_facts_add_up(world: ScanSettings, scanned: Path) -> None:
    facts = StageFolder.open(scanned, stage="scan").facts
    assert facts["tally"]["seen"] == EmbeddingStore.open(world.store).rows == 57
    assert facts["tally"]["quarantined"] == {"many_captions_one_picture": 6, "neighbours_disagree": 3}
    assert facts["tally"]["kept"] == 48
    assert facts["cut"]["suspicion"] > 0.5


def test_tables_follow_the_store_row_by_row(world: ScanSettings, scanned: Path) -> None:
    names = EmbeddingStore.open(world.store).all_metadata(["uid", "key", "shard"])
    assert read_scores(scanned).select("uid", "key", "shard").equals(names)
    assert read_verdicts(scanned)["uid"].to_list() == names["uid"].to_list()


def test_flagged_pairs_are_explained(scanned: Path) -> None:
    verdicts = read_verdicts(scanned)
    (patched,) = verdicts.filter(verdicts["uid"] == uids(PATCHED)[0]).to_dicts()
    assert patched["reasons"] == "neighbours_disagree"
    assert patched["sentence"] == (
        "none of the 6 pictures most like this one has a caption that shares a word with it; "
        "they say 'shoe' (6)"
    )
    assert len(patched["neighbours"].split(";")) == 4
    (targeted,) = verdicts.filter(verdicts["uid"] == uids(TARGETED)[0]).to_dicts()
    assert targeted["sentence"].startswith(
        "this picture, near-copies included, appears with 6 different captions"
    )
    kept = verdicts.filter(verdicts["kept"])
    assert set(kept["sentence"]) | set(kept["reasons"]) | set(kept["neighbours"]) == {""}


def test_percentiles_rank_the_scores(scanned: Path) -> None:
    scores = read_scores(scanned)
    ranked = scores.sort("agreement")["agreement_percentile"]
    assert ranked[0] == 0
    assert ranked.is_sorted()
    assert ranked[-1] < 100
    flagged = scores["neighbours"].is_not_null()
    assert flagged.to_list() == (~read_verdicts(scanned)["kept"]).to_list()


def test_the_split_into_parts_changes_nothing(scanned: Path, tmp_path: Path) -> None:
    other = make_world(tmp_path, part_sizes=(57,))
    scan_store(other, out=tmp_path / "out", executor=LocalExecutor())
    assert read_verdicts(tmp_path / "out").equals(read_verdicts(scanned))
    columns = ["uid", "agreement", "agreement_percentile", "captions_of_picture", "pictures_of_caption"]
    assert read_scores(tmp_path / "out").select(columns).equals(read_scores(scanned).select(columns))


class DyingExecutor(LocalExecutor):
    """Does so many tasks of its maps, and dies."""

    def __init__(self, tasks: int) -> None:
        self._left = tasks

    def map(self, make_worker: Callable[[], Callable[[Any], Any]], tasks: Iterable[Any]) -> Iterator[Any]:
        for result in super().map(make_worker, tasks):
            yield result
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 4, 6, 9, 11])
def test_killed_and_resumed_gives_the_same_bytes(
    world: ScanSettings, scanned: Path, tmp_path: Path, tasks: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        scan_store(world, out=tmp_path, executor=DyingExecutor(tasks))
    with pytest.raises(MismatchError, match="unfinished"):
        read_verdicts(tmp_path)
    scan_store(world, out=tmp_path, executor=LocalExecutor())
    assert contents(tmp_path) == contents(scanned)


def test_the_same_call_again_does_no_work(world: ScanSettings, scanned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in scanned.rglob("*")}
    tally = scan_store(world, out=scanned, executor=LocalExecutor())
    assert tally.kept == 48
    assert {path: path.stat().st_mtime_ns for path in scanned.rglob("*")} == before


def test_only_collisions(world: ScanSettings, tmp_path: Path) -> None:
    settings = ScanSettings(store=world.store, index=world.index, detectors=("collisions",))
    tally = scan_store(settings, out=tmp_path, executor=LocalExecutor())
    assert tally.quarantined == {"many_captions_one_picture": 6}
    assert read_scores(tmp_path)["agreement"].null_count() == 57


def test_only_agreement(world: ScanSettings, tmp_path: Path) -> None:
    settings = ScanSettings(
        store=world.store, index=world.index, detectors=("agreement",), neighbours=6, budget=9 / 57
    )
    tally = scan_store(settings, out=tmp_path, executor=LocalExecutor())
    assert tally.quarantined == {"neighbours_disagree": 9}
    assert read_scores(tmp_path)["captions_of_picture"].to_list() == [0] * 57
    flagged = read_verdicts(tmp_path).filter(~polars.col("kept"))["uid"].to_list()
    assert flagged == uids([*PATCHED, *TARGETED])


def test_other_settings_want_another_folder(world: ScanSettings, scanned: Path) -> None:
    other = replace(world, neighbours=7)
    with pytest.raises(MismatchError, match="neighbours was 6, now 7"):
        scan_store(other, out=scanned, executor=LocalExecutor())


def test_an_index_of_another_store_is_refused(world: ScanSettings, tmp_path: Path) -> None:
    other = make_world(tmp_path)
    mixed = ScanSettings(store=world.store, index=other.index)
    with pytest.raises(MismatchError, match="wanted image vectors of"):
        scan_store(mixed, out=tmp_path / "out", executor=LocalExecutor())


def test_a_sampled_index_is_refused(world: ScanSettings, tmp_path: Path) -> None:
    sampled = IndexSettings(store=world.store, pool=10)
    build_index(sampled, out=tmp_path / "index", executor=LocalExecutor())
    with pytest.raises(MismatchError, match="holds 10 rows of 57"):
        scan_store(
            ScanSettings(store=world.store, index=tmp_path / "index"),
            out=tmp_path / "out",
            executor=LocalExecutor(),
        )


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "detectors",
            ("magic",),
            "detectors are magic, wanted some of cross_prediction, traces, kin, agreement, repetition",
        ),
        ("detectors", (), "detectors are none"),
        ("neighbours", 0, "neighbours is 0"),
        ("budget", 1.1, r"budget is 1\.1"),
        ("captions_per_picture", 1, "captions_per_picture is 1"),
        ("near_copy_cosine", 0.0, r"near_copy_cosine is 0\.0"),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScanSettings(**{"store": Path("s"), "index": Path("i"), setting: value})
