"""What a training is told, the order of its pairs, and tables by which it matches: without a model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.training.data import TrainingData, epoch_order
from roclip_sanitize.training.matches import MatchTable
from roclip_sanitize.training.settings import TrainSettings
from tests.trainings import (
    write_table,
)

if TYPE_CHECKING:
    pass


# Settings


def test_samples_decide_the_steps_and_else_epochs() -> None:
    told: dict[str, Any] = {"shards": (Path("x.tar"),), "batch_size": 64, "epochs": 3}
    assert TrainSettings(**told).steps(10) == 30
    assert TrainSettings(**told, samples=64 * 7 + 5).steps(10) == 7
    assert TrainSettings(**told, samples=1).steps(10) == 1


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "method",
            "magic",
            "method is 'magic', wanted one of clip, roclip, roclip_released, unimodal, safeclip, .*, par",
        ),
        ("pairing", "second", "pairing is 'second', wanted one of first, final, both"),
        ("augmentation", "wild", "augmentation is 'wild', wanted one of none, mild, strong"),
        ("epochs", 0, "epochs is 0, wanted 1 or more"),
        ("samples", -1, "samples is -1, wanted 0 or more"),
        ("batch_size", 1, "batch-size is 1, wanted 2 or more"),
        ("match_every", 0, "match-every is 0, wanted 1 or more"),
        ("lr", 0.0, r"lr is 0\.0, wanted more than 0"),
        ("match_from", 1.5, r"match-from is 1\.5, wanted a share from 0 to 1"),
        ("match_for", 4_000, r"match-for \(4000\) exceeds match-every"),
        ("doubtful", 1.1, r"doubtful is 1\.1, wanted a share from 0 to 1"),
        ("rewritten", -0.1, r"rewritten is -0\.1, wanted a share from 0 to 1"),
        ("augment_for", 2.0, r"augment-for is 2\.0, wanted a share from 0 to 1"),
        ("pool_size", 63, r"pool-size is 63, wanted 0 or at least batch-size \(64\)"),
        ("seed", -1, "seed is -1, wanted 0 or more"),
        ("keep_checkpoints", 0, "keep-checkpoints is 0, wanted 1 or more"),
        ("publish", "first", "publish is 'first', wanted one of last, best"),
        ("resident", "maybe", "resident is 'maybe', wanted one of auto, always, never"),
        ("publish", "best", "publish 'best' needs held-out pairs to tell it by: name some with --val-data"),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**{"shards": (Path("a.tar"),), setting: value})


@pytest.mark.parametrize(
    ("method", "told", "message"),
    [
        (
            "clip",
            {"pairs": Path("table")},
            "pairs is 'table', but method 'clip' does not read it: it is for rocl",
        ),
        ("clip", {"match_from": 0.2}, r"match-from is 0\.2, but method 'clip' does not read it"),
        (
            "consensus",
            {"pool_size": 640},
            "pool-size is 640, but .*: it is for roclip, roclip_released, unimodal",
        ),
        ("roclip", {"doubtful": 0.5}, r"doubtful is 0\.5, but method 'roclip' .*: it is for consensus"),
        ("roclip_released", {"pairing": "first"}, "pairing is 'first', but method 'roclip_released'"),
        ("clip", {"synonyms": Path("words")}, "synonyms is 'words', but .*: it is for augmentation 'paper'"),
        ("clip", {"gentle_rate": 0.5}, r"gentle-rate is 0\.5, but .* of the length that gentle-for names"),
        ("safeclip", {"gentle_rate": 0.5, "gentle_for": 0.0}, r"gentle-rate is 0\.5, but nothing reads it"),
        ("roclip", {"pairs": Path("table"), "pool_size": 640}, "pool-size is 640, but nothing reads it here"),
        (
            "roclip",
            {"match_by": "index", "exclude_copies": True},
            "exclude-copies is True, but nothing reads",
        ),
    ],
)
def test_what_a_method_does_not_read_is_refused(method: Any, told: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(shards=(Path("a.tar"),), method=method, **told)


def test_what_a_method_reads_is_taken() -> None:
    told: dict[str, Any] = {"shards": (Path("a.tar"),), "pool_size": 640}
    assert TrainSettings(**told, method="safeclip").pool_size == 640
    assert TrainSettings(**told, method="clip", warm_up_for=0.1).pool_size == 640, "a warm-up has a pool"
    assert TrainSettings(**told, method="safeclip", gentle_rate=0.5).gentle_rate == 0.5
    clip: dict[str, Any] = {"shards": told["shards"], "method": "clip"}
    assert TrainSettings(**clip, gentle_for=0.1, gentle_rate=0.5).gentle_rate == 0.5
    assert TrainSettings(**clip, augmentation="paper_mild", synonyms=Path("words")).synonyms


@pytest.mark.parametrize(
    "told",
    [
        {"checkpoint_seconds": 1.0},
        {"keep_checkpoints": 5},
        {"checkpoints": "s3://bucket/run"},
        {"ledger": Path("poisoned")},
        {"wandb": "a project"},
        {"resident": "never"},
    ],
)
def test_checkpoints_and_watchers_decide_no_result(told: dict[str, Any]) -> None:
    plain, other = (TrainSettings(shards=(Path("a.tar"),), **each) for each in ({}, told))
    assert plain.to_json() == other.to_json()


def test_held_out_pairs_tell_runs_apart_only_where_there_are_some() -> None:
    told: dict[str, Any] = {"shards": (Path("a.tar"),)}
    assert not {"val_shards", "publish"} & TrainSettings(**told).to_json().keys()
    named = TrainSettings(**told, val_shards=(Path("b.tar"),), publish="best").to_json()
    assert (named["val_shards"], named["publish"]) == (["b.tar"], "best")


# Order and tables


@pytest.mark.parametrize(
    ("failed", "message"),
    [
        (
            {"no_caption": 2, "image_too_large": 3},
            "none of the 10 pairs in a.tar and 1 more is usable: image_too_large 6, no_caption 4",
        ),
        ({}, "no pair in a.tar and 1 more: wanted pictures with captions"),
    ],
)
def test_shards_without_a_usable_pair_are_named(tmp_path: Path, failed: dict[str, int], message: str) -> None:
    shards = [["a.tar", 1, 2], ["b.tar", 3, 4]]
    folder = StageFolder.create(tmp_path, stage="cache", settings={"shards": shards})
    tally = Tally(seen=sum(failed.values()), failed=Counter(failed))
    for name in ("00000", "00001"):
        folder.commit(name, files=[], facts={"rows": 0, "tally": tally.to_json()})
    folder.finish({})
    with pytest.raises(DataError, match=f"^{message}$"):
        TrainingData(tmp_path)


def test_every_epoch_visits_all_rows_in_an_order_of_its_own() -> None:
    orders = [epoch_order(50, seed=1, epoch=epoch).tolist() for epoch in range(3)]
    assert [sorted(order) for order in orders] == [list(range(50))] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert epoch_order(50, seed=1, epoch=1).tolist() == orders[1]
    assert epoch_order(50, seed=2, epoch=1).tolist() != orders[1]


class CachedUids:
    """As much of a cache as a table needs."""

    def __init__(self, *uids: str) -> None:
        self._uids, self.rows = list(uids), len(uids)

    def uids(self) -> list[str]:
        return self._uids


def load_table(path: Path, *uids: str) -> MatchTable:
    return MatchTable.load(path, cast("TrainingData", CachedUids(*uids)))


def test_a_table_is_looked_up_by_uid(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "c", "b"), ("b", "a", "a"), ("c", "b", "a")])
    found = load_table(tmp_path, "c", "b", "a")  # rows 0, 1 and 2
    assert found.caption_row_N.tolist() == [1, 2, 0]
    assert found.image_row_N is not None
    assert found.image_row_N.tolist() == [2, 2, 1]
    rewritten = [
        (images.tolist(), captions.tolist()) for images, captions in found.rewritten(np.array([0, 2]))
    ]
    assert rewritten == [([0, 2], [1, 0]), ([2, 1], [0, 2])]


def test_a_pair_without_a_cached_partner_stays_as_it_is(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "gone", "b"), ("elsewhere", "a", "a"), ("b", "", "")])
    found = load_table(tmp_path, "a", "b", "not in the table")
    assert found.caption_row_N.tolist() == [0, 1, 2]
    assert found.image_row_N is not None
    assert found.image_row_N.tolist() == [1, 1, 2]


def test_pairs_of_one_uid_are_told_apart_by_their_turn(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "c", ""), ("b", "a", ""), ("a", "b", ""), ("c", "a", ""), ("a", "a", "")])
    found = load_table(tmp_path, "a", "b", "a", "c", "a", "a")  # the last of them the table does not know
    assert found.caption_row_N.tolist() == [3, 0, 1, 0, 0, 5]
    only = load_table(tmp_path, "a", "a")
    assert only.caption_row_N.tolist() == [0, 1], "b and c, whose captions they had, are not trained on"


def test_a_pair_is_no_partner_of_its_own(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "a", ""), ("a", "a", "")])
    assert load_table(tmp_path, "a", "a").caption_row_N.tolist() == [1, 0]


def test_the_final_version_has_one_rewriting(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "b", ""), ("b", "a", "")])
    found = load_table(tmp_path, "a", "b")
    assert found.image_row_N is None
    assert found.method == "final"
    assert len(list(found.rewritten(np.array([0, 1])))) == 1


def test_a_table_says_what_it_was_made_for(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "b", ""), ("b", "a", "")])
    found = load_table(tmp_path, "a", "b")
    found.require("final")
    with pytest.raises(
        ConfigError, match="pairing is 'both', but the table of pairs was made with method 'f"
    ):
        found.require("both")


def test_a_table_of_other_pairs_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path, [("a", "b", "")])
    with pytest.raises(MismatchError, match="shares no pair with the shards"):
        load_table(tmp_path, "x", "y")


@pytest.mark.parametrize(
    "told",
    [{"method": "safeclip", "augment_for": 0.9}, {"method": "clip", "warm_up_for": 0.5, "augment_for": 0.4}],
)
def test_augmentation_lasts_as_long_as_two_views_are_compared(told: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"augment-for is 0\.., but unimodal steps, .* are still to come then"
    ):
        TrainSettings(shards=(Path("a.tar"),), **told)
