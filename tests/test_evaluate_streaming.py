"""Evaluation part by part: the same numbers wherever and however it runs, and what else it writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation import encoding
from roclip_sanitize.evaluation.evaluate import MeasureWorker, evaluate_arms
from roclip_sanitize.evaluation.results import find, read_results
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.split import Split
from roclip_sanitize.evaluation.test_sets import ShardSet, TestPart
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder, read_json
from tests.corpora import pair_members, write_tar
from tests.squares import COLOURS, write_square_shards, write_squares

HERE = LocalExecutor()
MODEL = "roclip-vit-64"
WRITTEN = ("results.json", "curves.json", "split.json", "clip_benchmark.json")


def pretend_training(folder: Path, *, seed: int) -> Path:
    """Random weights where a training would have left its own."""
    from roclip_sanitize.encoder import new_clip, save_clip  # slow to import

    stage = StageFolder.create(folder, stage="train", settings={"seed": seed})
    save_clip(folder / "model", new_clip(MODEL, seed=seed), name=MODEL, fit="squash")
    stage.finish({"samples": 0})
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> EvaluateSettings:
    """Three test shards, two random models, and labelled pairs for a probe."""
    folder = tmp_path_factory.mktemp("world")
    return EvaluateSettings(
        arms={name: pretend_training(folder / name, seed=seed) for seed, name in enumerate(("one", "two"))},
        test_shards=write_square_shards(folder / "test", shards=3, pairs=20, first=500),
        label="colour",
        probe_shards=write_square_shards(folder / "train", shards=2, pairs=40),
    )


@pytest.fixture(scope="module")
def measured(world: EvaluateSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured")
    evaluate_arms(world, out=out, executor=HERE)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_says_the_same(
    world: EvaluateSettings, measured: Path, tmp_path: Path, workers: int
) -> None:
    evaluate_arms(world, out=tmp_path, executor=open_executor("ray", workers=workers))
    for name in WRITTEN:
        assert (tmp_path / name).read_bytes() == (measured / name).read_bytes(), name


@pytest.mark.slow
def test_what_was_encoded_is_gone_once_it_is_measured(measured: Path) -> None:
    assert not (measured / "parts").exists()


def test_weights_measured_by_a_worker_that_was_lost_are_left_alone(tmp_path: Path) -> None:
    folder = StageFolder.create(tmp_path, stage="evaluate", settings={})
    folder.commit("one", files=[], facts={})
    settings = EvaluateSettings(arms={"one": tmp_path}, test_shards=(tmp_path / "t.tar",), label="kind")
    split = Split(dataset="wds", classes=("shoe", "hat"), curve=[], probe=[])
    weights = encoding.Weights(name="one", arm="one", folder=tmp_path, final=True, samples=0)
    MeasureWorker(settings, split, tmp_path)(weights)  # there are no parts left to read
    assert not (tmp_path / "records").exists()


def test_no_test_picture_draws_what_a_poison_drew(tmp_path: Path) -> None:
    settings = EvaluateSettings(arms={"one": tmp_path}, test_shards=(tmp_path / "t.tar",), label="kind")
    worker = encoding.EncodeWorker(settings, ("shoe", "hat"), tmp_path)
    streams = [
        worker._rng(TestPart(name="00003", what=tmp_path), 17),
        np.random.default_rng([settings.seed, 3, 17]),  # attacks/planting.py, of the same seed
        np.random.default_rng([settings.seed, 3, 17, int("f" * 16, 16)]),
    ]
    assert len({tuple(stream.integers(0, 1 << 30, 4)) for stream in streams}) == 3


@pytest.mark.slow
def test_parts_are_resumed(
    world: EvaluateSettings, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, asked = encoding.EncodeWorker.__call__, list[str]()

    def dies_at_the_third(self: encoding.EncodeWorker, task: encoding.EncodeTask) -> None:
        asked.append(task.part.name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        whole(self, task)

    monkeypatch.setattr(encoding.EncodeWorker, "__call__", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate_arms(world, out=tmp_path, executor=HERE)
    evaluate_arms(world, out=tmp_path, executor=HERE)
    assert len(asked) == 3 + 3  # of five parts, two of them the probe's, two were done
    assert (tmp_path / "results.json").read_bytes() == (measured / "results.json").read_bytes()


@pytest.mark.slow
def test_the_probe_learns_colours_from_a_model_that_never_learnt(measured: Path) -> None:
    found = find(read_results(measured / "results.json"), arm="one", metric="linear_probe_top1")
    assert found is not None
    assert found.n == 60
    assert found.value > 0.5  # four colours: guessing is right in a quarter


@pytest.mark.slow
def test_clip_benchmark_can_take_the_results_in(measured: Path) -> None:
    lines = read_json(measured / "clip_benchmark.json")
    tasks = ["zeroshot_classification", "linear_probe", "zeroshot_retrieval"]
    assert [(line["pretrained"], line["task"]) for line in lines] == [
        (arm, task) for arm in ("one", "two") for task in tasks
    ]
    for line in lines:
        assert set(line) == {"dataset", "model", "pretrained", "task", "metrics", "language"}
        assert (line["model"], line["language"]) == (MODEL, "en")
    zero_shot = find(read_results(measured / "results.json"), arm="one", metric="zero_shot_top1")
    assert zero_shot is not None
    assert lines[0]["metrics"]["acc1"] == pytest.approx(zero_shot.value, abs=1e-6)
    assert set(lines[0]["metrics"]) == {"acc1", "mean_per_class_recall"}  # four classes: no top-5
    assert set(lines[2]["metrics"]) == {
        f"{way}_retrieval_recall@{cutoff}" for way in ("text", "image") for cutoff in (1, 5, 10)
    }
    alone = [read_json(path) for path in (measured / "clip_benchmark").iterdir()]
    assert sorted(alone, key=str) == sorted(lines, key=str)


@pytest.mark.slow
def test_test_pictures_that_were_trained_on_are_counted(world: EvaluateSettings, tmp_path: Path) -> None:
    seen = write_squares(tmp_path / "test" / "00000.tar", first=36, pairs=8)  # 36 to 39 are in the store
    train = (write_squares(tmp_path / "train" / "00000.tar", first=0, pairs=40),)
    embed_shards(EmbedSettings(shards=train, encoder="plain"), out=tmp_path / "store", executor=HERE)
    settings = replace(
        world, test_shards=(seen,), probe_shards=(), store=tmp_path / "store", curves=False, near=0.9999
    )
    evaluate_arms(settings, out=tmp_path / "out", executor=HERE)
    split = read_json(tmp_path / "out" / "split.json")
    assert (split["pictures"], split["labelled"]) == (8, 8)
    assert (split["copies"]["hits"], split["copies"]["n"]) == (4, 8)
    assert (split["near_duplicates"]["hits"], split["near_duplicates"]["n"]) == (4, 8)
    loose = replace(settings, near=0.01)
    evaluate_arms(loose, out=tmp_path / "loose", executor=HERE)
    assert read_json(tmp_path / "loose" / "split.json")["near_duplicates"]["hits"] == 8


@pytest.mark.slow
def test_every_kind_of_goal_is_measured_with_its_control(world: EvaluateSettings, tmp_path: Path) -> None:
    poison = PoisonSettings(
        shards=world.probe_shards,
        test_shards=world.test_shards,
        label="colour",
        classes=len(COLOURS),
        attacks=(
            "multi_trigger:rate=8,triggers=checkerboard|yellow,targets=2,classes=red|green",
            "mmpoison:rate=6,asked=blue,shown=yellow",
            "text_trigger:rate=6,target=green",
        ),
    )
    poison_shards(poison, out=tmp_path / "poison", executor=HERE)
    settings = replace(world, ledger=tmp_path / "poison", probe_shards=(), arms={"one": world.arms["one"]})
    results = evaluate_arms(settings, out=tmp_path / "out", executor=HERE)
    trials = {(one.attack, one.metric): one.n for one in results if one.attack}
    each = len(world.test_shards) * 20 // len(COLOURS)
    pictures = {
        (f"multi_trigger{which}", metric): count * 3 * each
        for which, count in (("", 2), ("/checkerboard", 1), ("/yellow", 1))
        for metric in ("attack_success", "clean_target_rate", "true_class_accuracy")
    }
    captions = {
        (attack, prefix + metric): asked * each
        for attack, prefix, asked in (
            ("mmpoison", "", 1),
            ("mmpoison", "clean_", 2),
            ("text_trigger", "", 3),
            ("text_trigger", "clean_", 3),
        )
        for metric in ("hit_at_1", "hit_at_5", "hit_at_10", "min_rank")
    }
    assert trials == pictures | captions


@pytest.mark.slow
def test_a_chunk_is_no_boundary(
    world: EvaluateSettings, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "SHOWN_AT_ONCE", 7)
    evaluate_arms(world, out=tmp_path, executor=HERE)
    for ours, theirs in zip(
        read_results(tmp_path / "results.json"), read_results(measured / "results.json"), strict=True
    ):
        assert (ours.metric, ours.n) == (theirs.metric, theirs.n)
        assert ours.value == pytest.approx(theirs.value, abs=0.05)  # batches move cosines by their last bits


# Without a model


def test_broken_pictures_are_counted_and_the_others_read(tmp_path: Path) -> None:
    members = pair_members("a", 0) + pair_members("b", 1, image=b"no picture") + pair_members("c", 2)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shards = (write_tar(tmp_path / "deep" / "er" / "00000.tar", members),)
    test_set = ShardSet(shards, "kind")
    failed = Counter[str]()
    found = [(one.row, one.label, one.caption) for one in test_set.read(test_set.parts[0], failed)]
    assert found == [(0, "shoe", "item 0"), (1, "shoe", "item 2")]
    assert failed == {"image_undecodable": 1}
    assert test_set.survey(test_set.parts[0]).labels == {"shoe": 2, "hat": 1}
    assert test_set.name == "wds/deep/er"


def test_shards_without_pairs_are_refused(tmp_path: Path) -> None:
    settings = EvaluateSettings(
        arms={"one": pretend_stage(tmp_path / "one")},
        test_shards=(write_tar(tmp_path / "00000.tar", [("a.txt", b"alone")]),),
        label="kind",
    )
    with pytest.raises(DataError, match="no usable pair in the 1 test shards"):
        evaluate_arms(settings, out=tmp_path / "out", executor=HERE)


def pretend_stage(folder: Path) -> Path:
    StageFolder.create(folder, stage="train", settings={}).finish({"samples": 0})
    return folder


def test_parts_join_in_order(tmp_path: Path) -> None:
    for name, value in (("00010", 2), ("00009", 1), ("100000", 3)):
        file = tmp_path / "parts" / "one" / f"{name}.npz"
        encoding.write_arrays(file, {"label": np.array([value]), "failed": np.array(value)})
    found = encoding.read_parts(encoding.part_files(tmp_path, "one"))
    assert found["label"].tolist() == [1, 2, 3]
    assert found["failed"] == 6
