"""``roclip evaluate`` as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder, read_json
from tests.commands import Roclip
from tests.corpora import pair_members, write_tar
from tests.squares import write_squares
from tests.test_evaluate_streaming import pretend_training


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretend_training(tmp_path_factory.mktemp("trained") / "one", seed=0)


@pytest.mark.slow
def test_a_table_and_what_was_trained_on(roclip: Roclip, trained: Path, tmp_path: Path) -> None:
    shard = write_squares(tmp_path / "squares.tar", pairs=12)
    embed_shards(
        EmbedSettings(shards=(shard,), encoder="plain"), out=tmp_path / "store", executor=LocalExecutor()
    )
    told = (
        "--arm",
        str(trained),
        "--test-shards",
        str(shard),
        "--label",
        "colour",
        "--out",
        str(tmp_path / "out"),
    )
    found = roclip("evaluate", "--executor", "local", *told, "--store", str(tmp_path / "store"))
    assert found.code == 0, found.err
    lines = {" ".join(line.split()[:2]): line for line in found.out.splitlines()}
    assert "n 12)" in lines["one zero_shot_top1"]
    assert "100.00%" in lines["split copies"]
    assert "100.00%" in lines["split near_duplicates"]


@pytest.mark.slow
def test_a_public_data_set_and_json(roclip: Roclip, trained: Path, tmp_path: Path) -> None:
    for name, grey in (("dark_hat", 20), ("light_hat", 220)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            picture = np.full((20, 20, 3), grey + number, np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "dark_hat" / "broken.png").write_bytes(b"no picture")
    told = (
        "--arm",
        f"mine={trained}",
        "--dataset",
        f"folder:{tmp_path / 'data'}",
        "--out",
        str(tmp_path / "out"),
    )
    found = roclip("evaluate", "--executor", "local", *told, "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert {(one["arm"], one["metric"], one["n"]) for one in said["results"]} == {
        ("mine", "zero_shot_top1", 6),
        ("mine", "mean_per_class_recall", 6),
    }
    assert said["split"]["classes"] == ["dark hat", "light hat"]
    assert (said["split"]["dataset"], said["split"]["unusable"]) == ("folder", 1)
    (line,) = read_json(tmp_path / "out" / "clip_benchmark.json")
    assert (line["dataset"], line["task"]) == ("folder", "zeroshot_classification")
    Image.fromarray(np.full((20, 20, 3), 99, np.uint8)).save(tmp_path / "data" / "dark_hat" / "0.png")
    again = roclip("evaluate", "--executor", "local", *told)
    assert again.code == 4
    assert "was made of other pictures of the data set than are there now" in again.err


@pytest.mark.slow
def test_broken_pictures_are_said_to_be_left_out(roclip: Roclip, trained: Path, tmp_path: Path) -> None:
    members = pair_members("a", 0) + pair_members("b", 1, image=b"no picture") + pair_members("c", 3)
    shard = write_tar(tmp_path / "test.tar", members)
    found = roclip(
        "evaluate",
        "--executor",
        "local",
        *(
            "--arm",
            str(trained),
            "--test-shards",
            str(shard),
            "--label",
            "kind",
            "--out",
            str(tmp_path / "out"),
        ),
    )
    assert found.code == 0, found.err
    assert "1 test pictures could not be used" in found.err


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ((), "wanted either test shards or a public data set to measure on, found neither"),
        (("--dataset", "cifar10:nowhere"), "nowhere holds no CIFAR-10: cifar-10-batches-py expected there"),
        (("--dataset", "mnist:here"), "no public data set 'mnist'"),
    ],
)
def test_what_cannot_be_measured_on_is_one_line(
    roclip: Roclip, tmp_path: Path, told: tuple[str, ...], wanted: str
) -> None:
    folder = StageFolder.create(tmp_path / "one", stage="train", settings={})
    folder.finish({"samples": 0})
    found = roclip(
        "evaluate",
        "--executor",
        "local",
        "--arm",
        str(tmp_path / "one"),
        "--out",
        str(tmp_path / "out"),
        *told,
    )
    assert wanted in found.line


@pytest.mark.slow
def test_a_training_is_named_by_its_model_too(roclip: Roclip, trained: Path, tmp_path: Path) -> None:
    shard = write_squares(tmp_path / "squares.tar", pairs=12)
    arms = [f"--arm=a{number}={path}" for number, path in enumerate((trained, trained / "model"))]
    told = ("--test-shards", shard, "--label", "colour", "--no-curves", "--out", tmp_path / "out", "--json")
    found = roclip("evaluate", "--executor", "local", *arms, *told)
    assert found.code == 0, found.err
    by_arm = {
        arm: [one["value"] for one in json.loads(found.out)["results"] if one["arm"] == arm]
        for arm in ("a0", "a1")
    }
    assert by_arm["a0"] == by_arm["a1"] != []


def test_two_arms_of_one_name_are_refused(roclip: Roclip, tmp_path: Path) -> None:
    told = ("--test-shards", "a.tar", "--label", "colour", "--out", tmp_path / "out")
    for arms in (("a=x", "a=y"), ("runs/x", "more/x")):
        found = roclip("evaluate", *(f"--arm={arm}" for arm in arms), *told)
        assert found.code == 2
        assert "both named" in found.line
