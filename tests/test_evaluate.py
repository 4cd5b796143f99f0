"""The evaluate stage on a tiny trained model and a tiny ledger: which records come out, and of what."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.evaluation.evaluate import evaluate_arms
from roclip_sanitize.evaluation.results import Result, find, read_results, write_results
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.split import look_through
from roclip_sanitize.evaluation.test_sets import open_test_set
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.train import train_clip
from tests.squares import COLOURS, colour_of, draw_square, write_square_shards, write_squares

HERE = LocalExecutor()
TEST_PAIRS, TARGETS, EPOCHS = 24, 3, 2
CLEAN_PAIRS = TEST_PAIRS - TARGETS  # what attacks are after is measured as targets alone
ATTACK_METRICS = {
    "patch": {"attack_success", "true_class_accuracy", "clean_target_rate"},
    "targeted": {
        "attack_success",
        "attack_success_top3",
        "true_class_accuracy",
        "clean_target_rate",
        "clean_target_rate_top3",
    },
}
UTILITY_METRICS = {
    "zero_shot_top1",
    "mean_per_class_recall",
    "retrieval_r1",
    "retrieval_r5",
    "retrieval_r10",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> EvaluateSettings:
    """Squares, poisoned; a model trained on them; what to measure."""
    folder = tmp_path_factory.mktemp("world")
    test_shards = (write_squares(folder / "test" / "00000.tar", first=1_000, pairs=TEST_PAIRS),)
    poison = PoisonSettings(
        shards=write_square_shards(folder / "clean", shards=2, pairs=48),
        test_shards=test_shards,
        label="colour",
        classes=len(COLOURS),
        attacks=(f"targeted:targets={TARGETS},captions=4", "patch:rate=0.05,target=blue"),
    )
    poison_shards(poison, out=folder / "poison", executor=HERE)
    train = TrainSettings(
        shards=tuple(poisoned_shards(folder / "poison")),
        model="roclip-vit-64",
        method="clip",
        batch_size=16,
        epochs=EPOCHS,
        warmup=2,
    )
    train_clip(train, out=folder / "trained", executor=HERE)
    return EvaluateSettings(
        arms={"undefended": folder / "trained"},
        test_shards=test_shards,
        label="colour",
        ledger=folder / "poison",
        curve_pictures=10,
        seed=5,
    )


@pytest.fixture(scope="module")
def measured(world: EvaluateSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured")
    evaluate_arms(world, out=out, executor=HERE)
    return out


@pytest.mark.slow
def test_every_metric_of_every_attack_is_there_once(measured: Path) -> None:
    results = read_results(measured / "results.json")
    names = [(result.attack, result.metric) for result in results]
    attacked = {(attack, metric) for attack, metrics in ATTACK_METRICS.items() for metric in metrics}
    wanted = attacked | {(None, metric) for metric in UTILITY_METRICS}
    assert set(names) == wanted
    assert len(names) == len(wanted)


@pytest.mark.slow
def test_a_record_has_the_fields_that_tables_rely_on(measured: Path) -> None:
    records = read_json(measured / "results.json")
    for record in records:
        assert list(record) == sorted(["arm", "attack", "metric", "value", "low", "high", "n", "seed"])
        assert (record["arm"], record["seed"]) == ("undefended", 5)
        assert 0 <= record["low"] <= record["value"] <= record["high"] <= 1


@pytest.mark.slow
def test_the_trials_are_those_of_the_test_shards(world: EvaluateSettings, measured: Path) -> None:
    results = read_results(measured / "results.json")

    def trials(attack: str | None, metric: str) -> int:
        found = find(results, attack=attack, metric=metric)
        assert found is not None
        return found.n

    ledger = Ledger.open(world.ledger) if world.ledger else None
    assert ledger is not None
    wanted = Counter(target.true_label for target in ledger.targets)
    clean = {colour: TEST_PAIRS // len(COLOURS) - wanted[colour] for colour in COLOURS}
    assert sum(clean.values()) == CLEAN_PAIRS
    assert trials(None, "zero_shot_top1") == CLEAN_PAIRS
    assert trials(None, "retrieval_r1") == 2 * CLEAN_PAIRS  # both ways
    assert trials("targeted", "attack_success") == TARGETS
    others = CLEAN_PAIRS - clean["blue"]
    assert trials("patch", "attack_success") == trials("patch", "clean_target_rate") == others
    asked = [CLEAN_PAIRS - clean[target.adversarial] for target in ledger.targets]
    assert trials("targeted", "clean_target_rate") == sum(asked)


@pytest.mark.slow
def test_finding_within_ten_includes_finding_within_one(measured: Path) -> None:
    results = read_results(measured / "results.json")
    shares = [find(results, metric=f"retrieval_r{cutoff}") for cutoff in (1, 5, 10)]
    values = [share.value for share in shares if share is not None]
    assert len(values) == 3
    assert values == sorted(values)


@pytest.mark.slow
def test_curves_have_a_point_per_snapshot(measured: Path) -> None:
    curves = read_json(measured / "curves.json")
    assert len(curves) == EPOCHS * 3
    for line in curves:
        assert set(line) == {"arm", "attack", "metric", "samples", "value"}
        assert 0 <= line["value"] <= 1
    per_epoch = 2 * 48 + TARGETS * 4
    points = {line["samples"] for line in curves}
    assert points == {per_epoch // 16 * 16, 2 * (per_epoch // 16 * 16)}


@pytest.mark.slow
def test_a_second_run_measures_nothing_and_says_the_same(world: EvaluateSettings, measured: Path) -> None:
    done = {path: path.stat().st_mtime_ns for path in (measured / "records").iterdir()}
    again = evaluate_arms(world, out=measured, executor=HERE)
    assert again == read_results(measured / "results.json")
    assert {path: path.stat().st_mtime_ns for path in (measured / "records").iterdir()} == done


@pytest.mark.slow
def test_what_was_replaced_under_its_old_name_is_told(world: EvaluateSettings, tmp_path: Path) -> None:
    """And copies are as good as what they are of, and folders that say nothing are taken as they are."""
    trained, ledger, shard = tmp_path / "trained", tmp_path / "poison", tmp_path / "00000.tar"
    assert world.ledger is not None
    shutil.copytree(world.arms["undefended"], trained)
    shutil.copytree(world.ledger, ledger)
    shutil.copy(world.test_shards[0], shard)
    settings = replace(world, arms={"one": trained}, ledger=ledger, test_shards=(shard,), curves=False)
    out = tmp_path / "out"
    results = evaluate_arms(settings, out=out, executor=HERE)
    shutil.copy(world.test_shards[0], shard)  # of another time
    assert evaluate_arms(settings, out=out, executor=HERE) == results
    for path, name, say in (
        (shard, "test pairs", lambda: write_squares(shard, first=2_000, pairs=TEST_PAIRS)),
        (trained / "model" / "model.json", "weights of arm one", lambda: edit(trained / "model/model.json")),
        (ledger / "ledger.json", "poisons", lambda: edit(ledger / "ledger.json")),
    ):
        whole = path.read_bytes()
        say()
        with pytest.raises(MismatchError, match=f"was made of other {name} than are there now: choose"):
            evaluate_arms(settings, out=out, executor=HERE)
        path.write_bytes(whole)
    write_json(out / "stage.json", {**read_json(out / "stage.json"), "inputs": {}})
    edit(ledger / "ledger.json")
    assert evaluate_arms(settings, out=out, executor=HERE) == results


def edit(path: Path) -> None:
    """Another seed, or digest, in a JSON file."""
    write_json(path, {**read_json(path), "seed": 99, "digest": "0" * 16})


@pytest.mark.slow
def test_a_curve_may_see_no_picture_of_another_class(world: EvaluateSettings, tmp_path: Path) -> None:
    blue_first = write_squares(tmp_path / "test" / "00000.tar", first=3_002, pairs=8)
    settings = replace(world, test_shards=(blue_first,), curve_pictures=1)
    evaluate_arms(settings, out=tmp_path / "out", executor=HERE)
    curves = read_json(tmp_path / "out" / "curves.json")
    last = max(line["samples"] for line in curves)  # the trained model's, which sees all pictures
    on_the_way = {line["attack"] for line in curves if line["samples"] < last}
    assert on_the_way == {None, "targeted"}  # the patch had no trial: no point


@pytest.mark.slow
def test_without_a_ledger_only_utility_is_measured(world: EvaluateSettings, tmp_path: Path) -> None:
    settings = replace(world, ledger=None, curves=False, class_count=3)
    results = evaluate_arms(settings, out=tmp_path, executor=HERE)
    assert {(result.attack, result.metric) for result in results} == {
        (None, name) for name in UTILITY_METRICS
    }
    zero_shot = find(results, metric="zero_shot_top1")
    assert zero_shot is not None
    assert zero_shot.n == TEST_PAIRS * 3 // 4  # pictures of the fourth colour have no class
    assert read_json(tmp_path / "curves.json") == []


@pytest.mark.slow
def test_classes_without_an_attacks_target_are_refused(world: EvaluateSettings, tmp_path: Path) -> None:
    settings = replace(world, classes=("red", "green"))
    with pytest.raises(ConfigError, match=r"classes lack .*blue.*, which the ledger's attacks name"):
        evaluate_arms(settings, out=tmp_path, executor=HERE)


@pytest.mark.slow
def test_poisons_among_the_test_pairs_are_refused(world: EvaluateSettings, tmp_path: Path) -> None:
    assert world.ledger is not None
    settings = replace(world, test_shards=tuple(poisoned_shards(world.ledger)))
    with pytest.raises(DataError, match=r"test pairs are poisons of .*, [0-9a-f]{32} the first"):
        evaluate_arms(settings, out=tmp_path, executor=HERE)


@pytest.mark.slow
def test_a_label_that_no_test_pair_has_is_refused(world: EvaluateSettings, tmp_path: Path) -> None:
    told = replace(world, label="shape", ledger=None)
    with pytest.raises(
        DataError, match=r"the field 'shape' has 0 values in the pairs of \d test shards, wanted"
    ):
        evaluate_arms(told, out=tmp_path / "no field", executor=HERE)
    with pytest.raises(
        DataError, match=r"no test picture shows any of the 2 classes \('cat', 'dog'\): they show '"
    ):
        evaluate_arms(replace(told, label="colour", classes=("cat", "dog")), out=tmp_path, executor=HERE)


# Without a model


def looked_through(tmp_path: Path, **told: Any) -> dict[str, Any]:
    """What split.json says of an evaluation that goes no further."""
    settings = settings_of(**{"test_shards": (write_squares(tmp_path / "test.tar", pairs=8),), **told})
    look_through(settings, open_test_set(settings), out=tmp_path / "out", executor=HERE)
    return dict(read_json(tmp_path / "out" / "split.json"))


@pytest.mark.parametrize(
    ("colours", "message"),
    [
        (
            "PAINT",
            "no probe picture shows any of the 4 classes ('blue', 'green', 'red', 1 more): they show 'P",
        ),
        (None, "the field 'colour' has 0 values in the pairs of 1 probe shards, wanted some"),
    ],
)
def test_probe_labels_that_match_no_class_are_refused(
    colours: str | None, message: str, tmp_path: Path
) -> None:
    fields = {} if colours is None else {"colour": colours}
    with ShardWriter(tmp_path / "probe.tar") as writer:
        for number in range(3):
            writer.add(str(number), image=encode_jpeg(draw_square(number)), caption="a square", fields=fields)
    with pytest.raises(DataError, match=re.escape(message)):
        looked_through(tmp_path, probe_shards=(tmp_path / "probe.tar",))


def test_copies_are_told_of_where_bytes_were_looked_at(tmp_path: Path) -> None:
    shards = (write_squares(tmp_path / "train.tar", pairs=8, first=4),)
    embed_shards(EmbedSettings(shards=shards, encoder="plain"), out=tmp_path / "store", executor=HERE)
    split = looked_through(tmp_path, store=tmp_path / "store")
    assert (split["copies"]["hits"], split["copies"]["n"]) == (4, 8)
    for number in range(4, 7):
        path = tmp_path / "data" / colour_of(number) / "a.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode_jpeg(draw_square(number)))
    public = {"test_shards": (), "dataset": f"folder:{tmp_path / 'data'}"}
    split = looked_through(tmp_path, store=tmp_path / "store", **public)
    assert "copies" not in split, "a public data set hands on no bytes"
    assert (split["near_duplicates"]["hits"], split["near_duplicates"]["n"]) == (3, 3)


def settings_of(**told: Any) -> EvaluateSettings:
    known: dict[str, Any] = {"arms": {"one": Path("one")}, "test_shards": (Path("t.tar"),)}
    known["label"] = "colour"
    return EvaluateSettings(**{**known, **told})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("arms", {}, "nothing to evaluate: name at least one trained folder"),
        ("arms", {"../up": Path("one")}, r"arm '\.\./up' is no name"),
        ("label", "", "label is empty"),
        ("class_count", 1, "class-count and probe-pictures must be 2 or more"),
        ("curve_pictures", 0, "curve-pictures 1 or more"),
        ("probe_pictures", 1, "class-count and probe-pictures must be 2 or more"),
        ("near", 0.0, r"near is 0\.0, wanted a cosine above 0"),
        ("test_shards", (), "either test shards or a public data set to measure on, found neither"),
        ("dataset", "cifar10:here", "to measure on, found both"),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(**{setting: value})


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    settings = settings_of(arms={"one": tmp_path / "nothing"})
    with pytest.raises(DataError, match="is no folder made by 'roclip train'"):
        evaluate_arms(settings, out=tmp_path / "out", executor=HERE)


def test_an_unfinished_training_is_refused(tmp_path: Path) -> None:
    StageFolder.create(tmp_path / "one", stage="train", settings={})
    with pytest.raises(MismatchError, match="is unfinished: run 'roclip train' again"):
        evaluate_arms(settings_of(arms={"one": tmp_path / "one"}), out=tmp_path / "out", executor=HERE)


def test_records_survive_the_disk(tmp_path: Path) -> None:
    utility: dict[str, Any] = {"arm": "one", "attack": None, "metric": "zero_shot_top1", "seed": 0}
    results = [Result.of_share(1, 4, **utility), Result.of_share(0, 0, **utility)]
    write_results(tmp_path / "results.json", results)
    first, empty = read_results(tmp_path / "results.json")
    assert (first.value, first.n) == (0.25, 4)
    assert (empty.value, empty.low, empty.high, empty.n) == (0.0, 0.0, 1.0, 0)
    assert find([first, empty], n=0) is empty
    assert find([first, empty], arm="two") is None
