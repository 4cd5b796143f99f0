"""Consensus by scans: what is read of them, and a training that waits for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars
import pytest

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.matching import MATCH_SCHEMA, matches_file
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.scan.judging import table_file
from roclip_sanitize.store import write_parquet
from roclip_sanitize.training.judging import FIRST_LOOK, JUDGED_STAGE, SECOND_LOOK, JudgementMaker
from roclip_sanitize.training.refresh import FOLDER, is_made
from roclip_sanitize.training.scan_judge import ScanJudge, in_turns
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.train import train_clip
from roclip_sanitize.training.trust import NOBODY, WITNESSES
from tests.squares import write_square_shards
from tests.trainings import Killed, Watched, digest, settings_for

UIDS = ["a", "b", "c", "d", "e"]
SUSPICION = {"e": 0.1, "d": 0.2, "a": 0.9, "b": 0.4, "x": 0.5}  # c: its words are nobody else's


class Made:
    """Tables that are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = list[int]()

    def ask(self, window: int) -> None:
        self.asked.append(window)

    def get(self, window: int) -> Path:
        return self.folder


def write_part(path: Path, stage: str, file: Path, frame: polars.DataFrame) -> str:
    folder = StageFolder.create(path, stage=stage, settings={})
    write_parquet(file, frame)
    folder.commit("00000", files=[file], facts={})
    folder.finish({})
    return str(path)


@pytest.fixture
def judge(tmp_path: Path) -> ScanJudge:
    """Of five pairs; d and e are the trusted ones, d's picture is like everybody's."""
    scores = {"uid": [*SUSPICION, "c"], "cross_prediction": [*SUSPICION.values(), None]}
    scan, matches = tmp_path / "scan", tmp_path / "matches"
    alike = [("a", 1, "b"), ("a", 2, "d"), ("b", 1, "a"), ("b", 2, "e"), ("b", 3, "d"), ("c", 1, "a")]
    frame = polars.DataFrame([(*each, 0.5) for each in alike], schema=MATCH_SCHEMA, orient="row")
    facts = {
        "scan": write_part(scan, "scan", table_file(scan, "scores", "00000"), polars.DataFrame(scores)),
        "by_picture": write_part(matches, "match", matches_file(matches, "00000"), frame),
    }
    facts["by_caption"] = facts["by_picture"]
    StageFolder.create(tmp_path / "judged", stage=JUDGED_STAGE, settings={}).finish(facts)
    data = SimpleNamespace(rows=5, uids=lambda: UIDS, image_group_N=np.arange(5))
    judge = ScanJudge(cast("Any", data), Made(tmp_path / "judged"))
    judge.prepare(again=True, encode=lambda: pytest.fail("a scan does its own encoding"))
    return judge


def test_trust_is_a_place_among_the_pairs_that_a_scan_knows(judge: ScanJudge) -> None:
    trust_N = judge.second_look(np.zeros(5, np.float32))
    assert dict(zip(UIDS, trust_N.tolist(), strict=True)) == {"a": 0, "b": 0.25, "c": 0, "d": 0.5, "e": 0.75}


def test_witnesses_are_the_trusted_ones_among_the_most_alike(judge: ScanJudge) -> None:
    doubts = judge.doubts(judge.first_look(), share=0.3)
    a, b, c, d, e = range(5)
    assert doubts.row_F.tolist() == [a, b, c]
    assert doubts.by_picture_FK.tolist() == [[d] * 5, [e, d, e, d, e], [NOBODY] * 5]
    assert (judge.doubts(judge.first_look(), share=0.3, witnesses=False).by_caption_FK == NOBODY).all()


def test_pairs_of_one_uid_are_told_apart_by_their_turn(tmp_path: Path) -> None:
    scan, matches = StageFolder(tmp_path / "scan"), StageFolder(tmp_path / "matches")
    suspicions = [{"a": 0.1, "b": 0.2, "c": 0.9}, {"a": 0.8, "d": 0.3}, {"a": 0.7, "b": 0.4}]
    alike = [[("a", 1, "c"), ("b", 1, "a"), ("c", 1, "d")], [("a", 1, "b"), ("d", 1, "b")], [("a", 1, "d")]]
    for part, (scores, near) in enumerate(zip(suspicions, alike, strict=True)):
        name = f"{part:05d}"
        columns = {"uid": [*scores], "cross_prediction": [*scores.values()]}
        frame = polars.DataFrame([(*each, 0.5) for each in near], schema=MATCH_SCHEMA, orient="row")
        for folder, stage, file, table in (
            (scan, "scan", table_file(scan.path, "scores", name), polars.DataFrame(columns)),
            (matches, "match", matches_file(matches.path, name), frame),
        ):
            write_parquet(file, table)
            StageFolder.create(folder.path, stage=stage, settings={}).commit(name, files=[file], facts={})
    scan.finish({})
    matches.finish({})
    facts = {"scan": str(scan.path)} | dict.fromkeys(("by_picture", "by_caption"), str(matches.path))
    StageFolder.create(tmp_path / "judged", stage=JUDGED_STAGE, settings={}).finish(facts)
    uids = [uid for scores in suspicions for uid in scores]
    data = SimpleNamespace(rows=7, uids=lambda: uids, image_group_N=np.arange(7))
    judge = ScanJudge(cast("Any", data), Made(tmp_path / "judged"))
    judge.prepare(again=True, encode=lambda: pytest.fail("a scan does its own encoding"))
    trust_N = judge.first_look()
    assert np.argsort(-trust_N).tolist() == [0, 1, 4, 6, 5, 3, 2]
    doubts = judge.doubts(trust_N, share=0.42)
    assert doubts.row_F.tolist() == [2, 3, 5]
    assert doubts.by_picture_FK[:, 0].tolist() == [4, 1, 4]


def test_more_witnesses_than_wanted_are_never_shown() -> None:
    place_M, witness_M = np.repeat([0, 2], [WITNESSES, 2]), np.arange(WITNESSES + 2)
    table_FK = in_turns(place_M, witness_M, many=3)
    assert table_FK.tolist() == [[0, 1, 2, 3, 4], [NOBODY] * 5, [5, 6, 5, 6, 5]]
    assert in_turns(place_M[:0], witness_M[:0], many=1).tolist() == [[NOBODY] * 5]


def test_only_consensus_is_judged() -> None:
    with pytest.raises(ConfigError, match="judge-by 'scan' goes with method 'consensus', not 'clip'"):
        TrainSettings(shards=(Path("a.tar"),), method="clip", judge_by="scan")


@pytest.mark.slow
def test_a_training_that_is_killed_while_it_is_judged_ends_as_another(
    tmp_path: Path,
) -> None:
    shards = write_square_shards(tmp_path / "squares", shards=2, pairs=64)
    told = settings_for(shards, method="consensus", judge_by="scan", augmentation="none")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_clip(told, out=whole, executor=LocalExecutor(), cache=tmp_path / "cache")
    assert not (whole / FOLDER).exists(), "scans go with the end of the training"

    with pytest.raises(Killed):  # where the model's own vectors are made
        train_clip(told, out=killed, executor=Watched(1), cache=tmp_path / "cache")
    assert is_made(killed, FIRST_LOOK)
    assert not is_made(killed, SECOND_LOOK)
    train_clip(told, out=killed, executor=LocalExecutor(), cache=tmp_path / "cache")
    assert digest(killed) == digest(whole)


@pytest.mark.slow
def test_fewer_pairs_than_directions_are_judged(tmp_path: Path) -> None:
    shards = write_square_shards(tmp_path / "squares", shards=2, pairs=20)
    JudgementMaker(out=tmp_path / "out", shards=shards, executor=LocalExecutor())(FIRST_LOOK)
    assert is_made(tmp_path / "out", FIRST_LOOK)
    index = tmp_path / "out" / FOLDER / "plain" / "index_image"
    assert read_json(index / "stage.json")["settings"]["transform"] == "pca39"
