"""The benchmark of detectors: its arithmetic by hand, and one copy from planting to table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest

from benchmarks.detection import (
    Copy,
    copy_folder,
    measured,
    publish,
    rate_for,
    recall_at,
    scored,
    with_published,
)
from benchmarks.sweep.cells import SCAN_DEFAULTS, Corpus
from benchmarks.sweep.settings import AttackRow
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.runfiles import StageFolder, write_json
from roclip_sanitize.scan import detection_quality

COPY = Copy(
    corpus=Corpus(shards=(Path("0.tar"),), test_shards=(), label="object", classes=1),
    attack="patch",
    specs=("patch:rate=1",),
    share=0.01,
    seed=0,
    scan={},
    young_clips=1,
)


def test_recall_at_a_price() -> None:
    # Of ten clean pairs, one may be lost: poisons have to exceed the second highest, 8.
    good = np.arange(10.0)
    assert recall_at(np.array([8.0, 8.5, 9.0, 20.0]), good, 0.1) == 0.75
    assert recall_at(np.array([8.0, 8.5, 9.0, 20.0]), good, 0.0) == 0.25
    assert recall_at(np.full(3, 5.0), np.full(10, 5.0), 0.05) == 0  # ties are not above


@pytest.mark.parametrize(
    ("spec", "share", "rate"),
    [
        ("patch:rate={rate}", 0.01, 120),
        ("patch:rate={rate}", 0.00001, 1),
        ("targeted:captions={rate}", 0.01, 8),  # for each of sixteen targets
        ("natural:targets=8,copies={rate}", 0.01, 15),
        ("adaptive_patch:rate={rate},cover_rate={rate}", 0.01, 120),
    ],
)
def test_shares_are_counted_in_poisons(spec: str, share: float, rate: int) -> None:
    row = AttackRow(name="attack", specs=(spec,), rates=(1,))
    assert rate_for(row, share, pairs=12_000) == rate


def test_covers_count_for_nothing() -> None:
    scores = polars.DataFrame(
        {
            "uid": ["poison", "cover", "clean", "other"],
            "cross_prediction": [0.9, 1.0, 0.1, None],
            "cross_prediction_percentile": [75.0, 100.0, 25.0, None],
            "agreement": [None] * 4,
            "agreement_percentile": [None] * 4,
            "captions_of_picture": [1, 1, 1, 2],
        },
        schema_overrides={"agreement": polars.Float32, "agreement_percentile": polars.Float32},
    )
    verdicts = polars.DataFrame({"uid": scores["uid"], "kept": [False, False, True, False]})
    assert scored(scores) == ["cross_prediction", "captions_of_picture"]
    own, counted = measured(scores, verdicts, poisons=frozenset({"poison"}), covers=frozenset({"cover"}))
    assert (own["auroc"], own["recall_at_5"], own["found"], own["clean_lost"]) == (1, 1, 1, 0.5)
    assert (counted["auroc"], counted["poisons"]) == (0.25, 1)


def test_published_detectors_are_measured_beside_the_scan() -> None:
    scores = polars.DataFrame({"uid": ["a", "b", "c"], "captions_of_picture": [1, 1, 2]})
    verdicts = polars.DataFrame({"uid": scores["uid"], "kept": [True, True, False]})
    parts = [
        polars.DataFrame({"uid": uids, "key": uids, "shard": uids, "slof": slof})
        for uids, slof in ((["a", "b"], [1.5, 0.5]), (["c"], [1.0]))
    ]
    together = with_published(scores, parts)
    assert together.columns == ["uid", "captions_of_picture", "slof"]
    counted, published = measured(together, verdicts, poisons=frozenset({"a"}), published=("slof",))
    assert (counted["score"], published["score"], published["auroc"]) == ("captions_of_picture", "slof", 1)
    with pytest.raises(MismatchError, match="3 rows of scores are not the scan's 3"):
        with_published(scores, parts[::-1])


def test_pairs_without_a_score_rank_as_in_the_quality_of_a_scan() -> None:
    scores = polars.DataFrame(
        {"uid": list("abcd"), "cross_prediction": [None, 0.4, 0.6, 0.45]},
        schema_overrides={"uid": polars.String},
    )
    verdicts = polars.DataFrame({"uid": scores["uid"], "kept": [True] * 4})
    (own,) = measured(scores, verdicts, poisons=frozenset({"a"}))
    (same, *_) = detection_quality(scores, verdicts, {"a": "patch"})
    assert own["auroc"] == same.value == pytest.approx(2 / 3)


def test_shares_that_come_to_as_many_poisons_are_one_copy_with_a_row_each(tmp_path: Path) -> None:
    copies = [replace(COPY, share=share) for share in (0.0001, 0.0002)]
    assert copies[0].name == copies[1].name
    folder = StageFolder.create(copy_folder(tmp_path, COPY), stage="detection", settings=COPY.to_json())
    numbers = {"recall_at_2": 0.5, "recall_at_5": 0.5, "recall_at_10": 1.0, "found": 1.0, "clean_lost": 0.0}
    row = {"attack": "patch", "seed": 0, "score": "kin", "auroc": 0.5, "poisons": 1, **numbers}
    write_json(folder.path / "quality.json", [row])
    folder.finish({"rows": 1})
    assert publish(copies, tmp_path)["share"].to_list() == [0.0001, 0.0002]
    told = (tmp_path / "detection.md").read_text("utf-8")
    assert told.count("| patch | 1 | 1 | 0.500 (0.500) | 1.000 | 0.0000 |") == 2


def test_a_copy_is_of_its_attack_and_scan_with_all_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert replace(COPY, specs=("patch:share=0.2,rate=1",)).name == COPY.name, "said in other words"
    assert replace(COPY, scan={"budget": SCAN_DEFAULTS["budget"]}).name == COPY.name
    names = {COPY.name, replace(COPY, specs=("patch:rate=2",)).name, replace(COPY, young_clips=2).name}
    monkeypatch.setitem(SCAN_DEFAULTS, "budget", 0.123)  # as in a later version
    assert len(names | {COPY.name}) == 4


def test_where_no_copy_could_be_measured_there_is_nothing_to_publish(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has nothing to publish: none of 1 copies could be measured"):
        publish([COPY], tmp_path)


def test_a_copy_asks_for_known_detectors_and_keeps_its_name_without_them() -> None:
    judged = replace(COPY, published=("dao_released",))
    assert "published" not in COPY.to_json()
    assert judged.to_json()["published"] == ["dao_released"]
    assert COPY.name != judged.name
    with pytest.raises(ConfigError, match="give --young-clips"):
        replace(judged, young_clips=0)
    with pytest.raises(ConfigError, match="no detector 'daoo'"):
        replace(COPY, published=("daoo",))
