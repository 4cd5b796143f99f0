"""Published detectors: worked examples, a slow reference, the inversion at a reference that is too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest
from numpy.typing import NDArray

from roclip_sanitize.cli import call
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.keep_list import read_keep_list
from roclip_sanitize.scan.quality import auroc
from roclip_sanitize.scoring import ScoreSettings, score_pairs
from roclip_sanitize.scoring.band import Band
from roclip_sanitize.scoring.contract import Pairs
from roclip_sanitize.scoring.density import Density, local_dimension
from roclip_sanitize.scoring.mismatch import ClipScore, RematchRank, Risk
from roclip_sanitize.scoring.reference import drawn_rows
from roclip_sanitize.scoring.stage import DETECTORS
from roclip_sanitize.store import EmbeddingStore, metadata_file, vectors_file, write_parquet, write_vectors
from tests.corpora import pair_members, write_tar
from tests.squares import draw_square, uid_of

HERE = LocalExecutor()
PARTS, ROWS = 3, 40


def unit(vector_ND: NDArray[np.float64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)).astype(
        np.float32
    )
    return found


def pairs_of(image_MD: NDArray[np.float32], text_MD: NDArray[np.float32] | None = None) -> Pairs:
    own_M = np.arange(len(image_MD))
    return Pairs(image_MD=image_MD, text_MD=image_MD if text_MD is None else text_MD, own_M=own_M)


def on_a_circle(*degrees: float) -> NDArray[np.float32]:
    angle_M = np.radians(degrees)
    return np.stack([np.cos(angle_M), np.sin(angle_M)], axis=1).astype(np.float32)


def test_density_by_hand() -> None:
    near, far = 2 * np.sin(np.radians(5)), 2 * np.sin(np.radians(85))
    among = pairs_of(on_a_circle(0, 10, 20, 180))
    assert Density("kdistance", among, neighbours=1)(among) == pytest.approx(
        [near, near, near, 2 * np.sin(np.radians(80))], rel=1e-5
    )
    stranger = Pairs(image_MD=on_a_circle(190), text_MD=on_a_circle(190), own_M=np.array([-1]))
    first = Density("slof", pairs_of(on_a_circle(0, 10, 20)), neighbours=1)
    assert first(stranger) == pytest.approx([far / near], rel=1e-5)


def test_local_dimension_by_hand() -> None:
    assert local_dimension(np.array([[np.exp(-2), np.exp(-1), 1.0], [1, 1, 1]])) == pytest.approx(
        [1.0, 1000.0]
    )


def slow(measure: str, reference: NDArray[np.float64], own: int, point: NDArray[np.float64], k: int) -> float:
    """One pair's score, as the formulas stand there."""

    def nearest(point: NDArray[np.float64], own: int) -> list[tuple[float, int]]:
        return sorted(
            (float(np.linalg.norm(point - other)), j) for j, other in enumerate(reference) if j != own
        )[:k]

    def lid(distances: list[float]) -> float:
        return -1 / float(np.mean([np.log(r / distances[-1]) for r in distances]))

    mine = nearest(point, own)
    radius = mine[-1][0]
    theirs = [[r for r, _ in nearest(reference[j], j)] for _, j in mine]
    match measure:
        case "kdistance":
            return radius
        case "lid":
            return lid([r for r, _ in mine])
        case "slof":
            return float(np.mean([radius / each[-1] for each in theirs]))
    return float(np.mean([lid(each) * np.log(radius / each[-1]) for each in theirs]))


@pytest.mark.parametrize("measure", ["kdistance", "slof", "lid", "dao"])
def test_density_is_what_its_formula_says(measure: str) -> None:
    rng = np.random.default_rng(1)
    reference, others = unit(rng.normal(size=(60, 6))), unit(rng.normal(size=(9, 6)))
    asked = Pairs(
        image_MD=np.concatenate([others, reference[:5]]),
        text_MD=np.concatenate([others, reference[:5]]),
        own_M=np.array([-1] * 9 + [0, 1, 2, 3, 4]),
    )
    found = DETECTORS[measure](pairs_of(reference), neighbours=7)(asked)
    wanted = [
        slow(measure, reference.astype(float), int(own), point.astype(float), 7)
        for point, own in zip(asked.image_MD, asked.own_M, strict=True)
    ]
    assert found == pytest.approx(wanted, rel=1e-3)


def test_a_reference_that_is_too_large_turns_density_round() -> None:
    """Poisons are 1 % of the pool, in one place; k / R is three times that share of it, or a quarter."""
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(20, 32))
    clean = unit(modes[rng.integers(0, 20, 5_940)] + 0.7 * rng.normal(size=(5_940, 32)))
    poison = unit(rng.normal(size=(1, 32)) + 0.05 * rng.normal(size=(60, 32)))
    pool, is_poison = np.concatenate([clean, poison]), np.arange(6_000) >= 5_940

    def found(measure: str, rows: NDArray[np.int64]) -> float:
        own = np.full(6_000, -1)
        own[rows] = np.arange(len(rows))
        detector = DETECTORS[measure](pairs_of(pool[rows]), neighbours=16)
        score = detector(Pairs(image_MD=pool, text_MD=pool, own_M=own)).astype(float)
        return float(auroc(score[is_poison], score[~is_poison]))

    few = np.sort(rng.permutation(6_000)[:512])
    for measure, turned in (("kdistance", 0.2), ("slof", 0.5), ("dao", 0.5)):
        assert found(measure, few) > 0.97
        assert found(measure, np.arange(6_000)) < turned


def test_the_band_by_hand() -> None:
    band = Band(most_poisons=0.01, rarest_kind=0.1)
    assert (band.lowest, band.highest) == pytest.approx((0.03, 0.06))
    assert (band.neighbours(4_096), band.neighbours(100), band.neighbours(2)) == (123, 3, 1)
    assert band.warning(4_096) == ""
    none = Band(most_poisons=0.01, rarest_kind=0.02)
    assert none.warning(4_096) == (
        "density has no setting for poisons of up to 1.00% beside kinds of picture as rare as 2.00%: "
        "with 123 of 4,096 as near it suspects these, too"
    )


def test_within_the_band_many_poisons_are_found_that_a_fixed_number_of_neighbours_misses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(6, 32))
    clean = unit(modes[rng.integers(0, 6, 2_850)] + 0.7 * rng.normal(size=(2_850, 32)))
    poison = unit(rng.normal(size=(1, 32)) + 0.05 * rng.normal(size=(150, 32)))  # 5 %
    pool = pairs_of(np.concatenate([clean, poison]))
    few, band = ScoreSettings(store=tmp_path), ScoreSettings(store=tmp_path, most_poisons=0.05)
    assert (few.near, band.near) == (16, 615)
    found = [
        float(auroc(score[2_850:], score[:2_850]))
        for told in (few, band)
        if len(score := Density("slof", pool, neighbours=min(told.near, 450))(pool).astype(float))
    ]
    assert found[0] < 0.7
    assert found[1] > 0.99
    store_of(tmp_path / "store")
    told = {"store": str(tmp_path / "store"), "out": str(tmp_path / "out"), "executor": "local"}
    call("score", **told, reference=50, most_poisons=0.1, rarest_kind=0.2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="most_poisons is 2, wanted a share"):
        ScoreSettings(store=tmp_path, most_poisons=2)


def test_mismatch_by_hand() -> None:
    image, text = on_a_circle(0, 90, 180), on_a_circle(0, 60, 350)
    among = pairs_of(image, text)
    assert ClipScore(among, neighbours=1)(among) == pytest.approx(
        1 - np.cos(np.radians([0, 30, 170])), abs=1e-6
    )
    # The picture at 180 is nearer to the caption at 60; the caption at 350 is nearer to those at 0 and 90.
    assert RematchRank(among, neighbours=1)(among) == pytest.approx([0, 0, 2 / 3])


def test_risk_parts_two_heaps() -> None:
    rng = np.random.default_rng(0)
    degrees = np.concatenate([rng.normal(20, 4, 900), rng.normal(75, 4, 100)])
    image = on_a_circle(*np.zeros(1_000))
    reference = pairs_of(image, on_a_circle(*degrees))
    asked = pairs_of(image[:3], on_a_circle(15, 30, 75))
    assert Risk(reference, neighbours=1)(asked) == pytest.approx([0, 0, 1], abs=0.02)
    assert Risk(pairs_of(image), neighbours=1)(asked).tolist() == [0, 0, 0]


def store_of(
    path: Path, *, joint: bool = True, swapped: tuple[int, ...] = (), without: tuple[int, ...] = ()
) -> EmbeddingStore:
    """A store of random vectors, the second modality near the first. Some pictures may be others."""
    rng = np.random.default_rng(3)
    stage = StageFolder.create(
        path,
        stage="embed",
        settings={"encoder": {"digest": "x", "joint": joint}, "shards": [f"{n}.tar" for n in range(PARTS)]},
    )
    for part in range(PARTS):
        name, image = f"{part:05d}", rng.normal(size=(ROWS, 8))
        image[list(swapped)] *= -1
        kept = [row for row in range(ROWS) if row not in without]
        uids = [f"{part * ROWS + row:032x}" for row in range(ROWS)]
        columns = {
            "uid": uids,
            "key": uids,
            "shard": [f"{part}.tar"] * ROWS,
            "caption": uids,
            "image_hash": uids,
        }
        write_parquet(metadata_file(path, name), polars.DataFrame(columns)[kept])
        write_vectors(vectors_file(path, name, "image"), unit(image)[kept])
        write_vectors(vectors_file(path, name, "text"), unit(image + rng.normal(size=(ROWS, 8)))[kept])
        files = [metadata_file(path, name), *(vectors_file(path, name, each) for each in ("image", "text"))]
        stage.commit(name, files=files, facts={"rows": len(kept), "tally": {}})
    stage.finish({})
    return EmbeddingStore.open(path)


def test_a_store_is_scored_part_by_part(tmp_path: Path) -> None:
    store_of(tmp_path / "store")
    told = ScoreSettings(
        store=tmp_path / "store",
        detectors=tuple(DETECTORS),
        reference=50,
        neighbours=5,
        worst=0.1,
        worst_by="dao",
    )
    assert score_pairs(told, out=tmp_path / "out", executor=HERE).seen == PARTS * ROWS
    table = polars.concat([polars.read_parquet(path) for path in sorted((tmp_path / "out/scores").iterdir())])
    assert table.columns == ["uid", "key", "shard", *DETECTORS]
    worst = table.sort("dao", descending=True)["uid"][: PARTS * ROWS // 10]
    assert read_keep_list(tmp_path / "out/worst.npy") == sorted(worst)
    (tmp_path / "out/complete.json").unlink()
    (tmp_path / "out/done/00001.json").unlink()
    before = (tmp_path / "out/scores/scores_00001.parquet").read_bytes()
    score_pairs(told, out=tmp_path / "out", executor=HERE)
    assert (tmp_path / "out/scores/scores_00001.parquet").read_bytes() == before


def test_pictures_that_are_others_than_they_were_are_listed(tmp_path: Path) -> None:
    store_of(tmp_path / "now", swapped=(4, 30))
    store_of(tmp_path / "before", without=(7,))
    told = {"store": str(tmp_path / "now"), "out": str(tmp_path / "out"), "executor": "local"}
    asked = {"expected": str(tmp_path / "before"), "detectors": "changed", "worst_above": 0.1}
    said = call("score", **told, **asked)  # type: ignore[arg-type]
    assert said["listed"] == 2 * PARTS
    table = polars.concat([polars.read_parquet(path) for path in sorted((tmp_path / "out/scores").iterdir())])
    score_N = table["changed"].to_list()
    assert [row for row, score in enumerate(score_N[:ROWS]) if score is None] == [7]
    assert [row for row, score in enumerate(score_N[:ROWS]) if score and score > 1] == [4, 30]
    assert read_keep_list(tmp_path / "out/worst.npy") == [
        f"{part * ROWS + row:032x}" for part in range(PARTS) for row in (4, 30)
    ]
    with pytest.raises(ConfigError, match="and --expected, the store to compare with, go together"):
        ScoreSettings(store=tmp_path, detectors=("changed",))
    with pytest.raises(ConfigError, match="wanted one of them"):
        ScoreSettings(store=tmp_path, worst=0.1, worst_above=0.5)


@pytest.mark.parametrize("named", [True, False], ids=["uids", "no_uids"])
def test_another_picture_is_found_whatever_names_the_pair(named: bool, tmp_path: Path) -> None:
    """Without uids of their own, pairs are named by their content, and another picture makes another pair."""
    shard = tmp_path / "00000.tar"
    for name, swapped in (("before", ()), ("now", (3, 4))):
        members = []
        for number in range(12):  # the first two are copies of each other
            drawn = draw_square(max(number, 1))
            image = encode_jpeg(255 - drawn if number in swapped else drawn)
            caption, fields = b"item %d" % max(number, 1), {"uid": uid_of(number)} if named else {}
            members += pair_members(f"{number:05d}", number, image=image, caption=caption, fields=fields)
        write_tar(shard, members)
        embed_shards(EmbedSettings(shards=(shard,), encoder="plain"), out=tmp_path / name, executor=HERE)
    told = ScoreSettings(
        store=tmp_path / "now", expected=tmp_path / "before", detectors=("changed",), worst_above=0.1
    )
    score_pairs(told, out=tmp_path / "out", executor=HERE)
    table = polars.read_parquet(tmp_path / "out/scores/scores_00000.parquet")
    assert table.filter(table["changed"] > 0.1)["key"].to_list() == ["00003", "00004"]
    assert not table["changed"].null_count()
    assert len(read_keep_list(tmp_path / "out/worst.npy")) == 2


def test_the_worst_are_of_those_with_a_score(tmp_path: Path) -> None:
    store_of(tmp_path / "now")
    store_of(tmp_path / "before", without=tuple(range(ROWS - 3)))
    told = ScoreSettings(
        store=tmp_path / "now", expected=tmp_path / "before", detectors=("changed",), worst=0.5
    )
    score_pairs(told, out=tmp_path / "out", executor=HERE)
    assert len(read_keep_list(tmp_path / "out/worst.npy")) == 3 * PARTS


def test_who_is_drawn_depends_on_names_and_seed(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store")
    first, again, other = (drawn_rows(store, count=20, seed=seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert len({*first.tolist()}) == 20
    assert drawn_rows(store, count=1_000, seed=0).tolist() == list(range(PARTS * ROWS))


def test_what_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    store_of(tmp_path / "plain", joint=False)
    with pytest.raises(MismatchError, match="two spaces are separate"):
        score_pairs(ScoreSettings(store=tmp_path / "plain"), out=tmp_path / "out", executor=HERE)
    with pytest.raises(ConfigError, match="no detector 'sloff': known are kdistance, slof"):
        call("score", store=str(tmp_path), out=str(tmp_path / "out"), detectors="sloff", executor="local")
    with pytest.raises(ConfigError, match="fewer than reference"):
        ScoreSettings(store=tmp_path, reference=16)
    with pytest.raises(ConfigError, match="worst-by is 'lid', wanted one of slof, clip_score"):
        ScoreSettings(store=tmp_path, worst=0.1, worst_by="lid")
