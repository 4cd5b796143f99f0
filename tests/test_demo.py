"""The closed loop: when it proves nothing, what it prints, and what a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.demo import Demo, DemoSettings
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.evaluation.results import Result, read_results
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.outcome import (
    ARMS,
    SANITISED,
    UNDEFENDED,
    UNDEFENDED_AUGMENTED,
    results_table,
    why_void,
)
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.shard_writer import ShardWriter
from tests.squares import draw_square, uid_of, write_square_shards, write_squares


def share(hits: int, *, arm: str, attack: str | None = None, metric: str = "attack_success") -> Result:
    """A record of 100 trials."""
    return Result.of_share(hits, 100, arm=arm, attack=attack, metric=metric, seed=0)


class TestWhyVoid:
    def test_a_control_at_80_percent_proves_something(self) -> None:
        taken = [share(80, arm=UNDEFENDED, attack="patch"), share(95, arm=UNDEFENDED, attack="targeted")]
        assert why_void(taken) is None

    def test_a_control_below_it_does_not(self) -> None:
        why = why_void(
            [share(79, arm=UNDEFENDED, attack="patch"), share(95, arm=UNDEFENDED, attack="targeted")]
        )
        assert why == "on undefended CLIP patch took 79%, less than the 80% that a control needs"

    def test_every_attack_that_did_not_take_is_named(self) -> None:
        weak = [
            share(hits, arm=UNDEFENDED, attack=attack) for hits, attack in ((1, "patch"), (2, "targeted"))
        ]
        assert "patch took 1% and targeted took 2%" in str(why_void(weak))

    def test_only_the_undefended_arm_is_a_control(self) -> None:
        good = [share(90, arm=UNDEFENDED, attack="patch")]
        good += [share(3, arm=arm, attack="patch") for arm in (UNDEFENDED_AUGMENTED, SANITISED)]
        assert why_void(good) is None

    def test_other_metrics_are_no_control(self) -> None:
        assert why_void([share(4, arm=UNDEFENDED, attack="patch", metric="clean_target_rate")]) is None

    def test_an_attack_with_several_triggers_is_judged_as_a_whole(self) -> None:
        one_weak = [
            share(90, arm=UNDEFENDED, attack="multi"),
            share(10, arm=UNDEFENDED, attack="multi/wanet"),
        ]
        assert why_void(one_weak) is None


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"seed": -1}, "seed is -1, wanted 0 or more"),
        ({"epochs": -1}, "epochs is -1, wanted 0 or more"),
        ({"label": "kind"}, "label go with --shards"),
        ({"test_shards": "t.tar"}, "test-shards and label go with --shards"),
        ({"shards": "s.tar"}, r"shards need test-shards \(held-out pairs\) and label"),
        ({"shards": "s.tar", "label": "kind"}, "shards need test-shards"),
    ],
)
def test_settings_that_make_no_sense(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DemoSettings(**told)


def test_the_table_has_a_line_per_arm_and_a_column_per_attack() -> None:
    results = [share(50, arm=UNDEFENDED, metric="zero_shot_top1")]
    results += [share(94, arm=UNDEFENDED, attack="patch"), share(2, arm=SANITISED, attack="patch")]
    results += [share(3, arm=SANITISED, attack="patch", metric="clean_target_rate")]
    head, *lines = results_table(results).splitlines()
    assert [title in head for title in ("zero-shot", "R@1", "patch success", "(clean rate)")] == [True] * 4
    assert [line.split() for line in lines] == [
        ["undefended", "50.0%", "-", "94.0%", "-"],
        ["undefended_augmented", "-", "-", "-", "-"],
        ["sanitised_consensus", "-", "-", "2.0%", "3.0%"],
    ]
    assert len({len(line) for line in (head, *lines)}) == 1


def write_halves(path: Path, *, first: int, pairs: int) -> Path:
    """Squares of two kinds, so that few of them have thirty captions of each."""
    with ShardWriter(path) as writer:
        for number in range(first, first + pairs):
            kind = ("plain", "fancy")[number % 2]
            fields = {"uid": uid_of(number), "kind": kind}
            picture = encode_jpeg(draw_square(number))
            writer.add(
                f"{number:06d}", image=picture, caption=f"a {kind} square, no. {number}", fields=fields
            )
    return path


@pytest.mark.slow
def test_fewer_pairs_than_directions_will_do(tmp_path: Path) -> None:
    settings = DemoSettings(
        shards=str(write_halves(tmp_path / "train.tar", first=0, pairs=70)),
        test_shards=str(write_halves(tmp_path / "test.tar", first=1_000, pairs=32)),
        label="kind",
    )
    Demo(settings, run=tmp_path / "run", executor=LocalExecutor()).prepare()
    kept = StageFolder(tmp_path / "run" / "rewrite").facts["tally"]["kept"]
    told = read_json(tmp_path / "run" / "kept_index_image" / "stage.json")["settings"]
    assert told["transform"] == f"pca{kept - 1}"
    assert kept <= 70
    assert (tmp_path / "run" / "pairs" / "complete.json").exists()


@pytest.mark.slow
class TestRunFolder:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A whole loop on squares, too short for anything to be learnt."""
        folder = tmp_path_factory.mktemp("demo")
        write_square_shards(folder / "train", shards=2, pairs=80)
        write_squares(folder / "test.tar", first=1_000, pairs=32)
        settings = DemoSettings(
            shards=str(folder / "train" / "{00000..00001}.tar"),
            test_shards=str(folder / "test.tar"),
            label="colour",
            epochs=1,
            train={"model": "roclip-vit-64", "batch_size": 32},
        )
        Demo(settings, run=folder / "run", executor=LocalExecutor())()
        return folder / "run"

    def test_all_that_a_run_leaves_is_there(self, run: Path) -> None:
        files = (
            "results.json",
            "curves.json",
            "manifest.json",
            "gallery.json",
            "report.html",
            "pairs/complete.json",
        )
        assert [name for name in files if not (run / name).is_file()] == []
        weights = [run / "arms" / arm / "model" / "weights.safetensors" for arm in ARMS]
        assert all(path.is_file() for path in weights)

    def test_every_arm_and_the_scan_have_results(self, run: Path) -> None:
        results = read_results(run / "results.json")
        assert set(ARMS) | {"scan"} <= {result.arm for result in results}
        for arm in ARMS:
            mine = {(result.attack, result.metric) for result in results if result.arm == arm}
            assert {
                ("targeted", "attack_success"),
                ("patch", "clean_target_rate"),
                (None, "retrieval_r1"),
            } <= mine
        scan = {result.metric for result in results if result.arm.startswith("scan")}
        assert {"poison_recall", "clean_lost", "auroc"} <= scan

    def test_the_manifest_says_what_ran(self, run: Path) -> None:
        manifest = read_json(run / "manifest.json")
        stages = [stage["name"] for stage in manifest["stages"]]
        assert stages == [
            *("poison", "embed", "embed textures", "index", "scan", "rewrite", "pair"),
            *("train", "evaluate", "report"),
        ]
        assert all(stage["seconds"] >= 0 for stage in manifest["stages"])
        assert manifest["executor"] == {"name": "local", "workers": 1}
        assert "took" in manifest["void"]  # one epoch on squares: no attack can have taken

    def test_how_new_the_test_pictures_are_is_said(self, run: Path) -> None:
        """Squares all look alike to a thumbnail, but none of them is there twice; 16 are targets."""
        said = read_json(run / "manifest.json")["test_set"]
        split = read_json(run / "evaluate" / "split.json")
        assert said == {
            "pictures": 32,
            "compared": 16,
            "copies": 0,
            "near_duplicates": split["near_duplicates"]["hits"],
            "near_from_cosine": 0.999,
        }
        assert "near_duplicates" in (run / "report.html").read_text("utf-8")

    def test_nothing_disappears(self, run: Path) -> None:
        stages = {stage["name"]: stage for stage in read_json(run / "manifest.json")["stages"]}
        for stage in (stages["poison"], stages["scan"], stages["rewrite"]):
            tally = stage["tally"]
            lost = sum(tally["quarantined"].values()) + sum(tally["failed"].values())
            assert tally["seen"] == tally["kept"] + lost == 160 + 16 * 30
        trained = StageFolder(run / "arms" / SANITISED).facts["tally"]
        assert trained["seen"] == stages["rewrite"]["tally"]["kept"]
