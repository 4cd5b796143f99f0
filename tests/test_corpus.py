"""The corpus: same seed, same bytes; pictures that stay in their frame; captions like the web's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.captions import decode_caption
from roclip_sanitize.corpus.backdrops import BACKGROUND_SHARES, choose_backdrop
from roclip_sanitize.corpus.camera import encode_photo
from roclip_sanitize.corpus.dice import weighted
from roclip_sanitize.corpus.objects import FREQUENCIES, OBJECTS
from roclip_sanitize.corpus.pen import Ink, Pose
from roclip_sanitize.corpus.render import pair_uid, render_corpus, render_pair, render_pairs
from roclip_sanitize.corpus.scenes import (
    COUNT_SHARES,
    MAX_SIDE_PX,
    MAX_TURN,
    MIN_SIDE_PX,
    OVERSAMPLING,
    PLACE_SHARES,
    REACH,
    Scene,
    draw_inks,
    draw_scene,
    imagine,
    place_objects,
)
from roclip_sanitize.corpus.surfaces import COLOURS, TEXTURES, distance, texture
from roclip_sanitize.corpus.vocabulary import COLOUR_WORDS, SYNONYMS
from roclip_sanitize.corpus.wording import misspell, plural_of, with_article, write_caption
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import MakeWorker, Result, Task
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import decode_image
from roclip_sanitize.records import Tally
from roclip_sanitize.shards import Pair, Shard

MUG = Scene(
    label="mug",
    colour="red",
    texture="plain",
    count=1,
    background="white",
    place="centre",
    width=80,
    height=72,
)
SEEDS = st.integers(min_value=0, max_value=2**32)


class BackwardsExecutor(LocalExecutor):
    """Runs the tasks last one first, each with a worker of its own: a cluster's worst manners."""

    def map(self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]) -> Iterator[Result]:
        for task in reversed(list(tasks)):
            yield make_worker()(task)


def render(out: Path, *, seed: int = 7, split: str = "train", executor: LocalExecutor | None = None) -> Tally:
    return render_corpus(
        out, pairs=20, shards=3, seed=seed, split=split, executor=executor or LocalExecutor()
    )


def contents(out: Path) -> dict[str, bytes]:
    """Everything but the markers, which say how long it took."""
    return {
        path.name: path.read_bytes()
        for path in sorted(out.iterdir())
        if path.is_file() and "0000" in path.name
    }


def read(out: Path) -> list[Pair]:
    pairs = list[Pair]()
    for path in sorted(out.glob("*.tar")):
        with Shard(path) as shard:
            pairs += shard.pairs()
            assert not shard.failures
    return pairs


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(0)
    return [imagine(rng) for _ in range(4_000)]


@pytest.fixture(scope="module")
def captions(scenes: list[Scene]) -> list[str]:
    rng = np.random.default_rng(1)
    return [write_caption(scene, rng) for scene in scenes]


class TestRendering:
    def test_the_same_seed_gives_the_same_bytes_in_any_order(self, tmp_path: Path) -> None:
        render(tmp_path / "one")
        render(tmp_path / "other", executor=BackwardsExecutor())
        assert len(contents(tmp_path / "one")) == 9  # three shards: tar, parquet, counts
        assert contents(tmp_path / "one") == contents(tmp_path / "other")

    @pytest.mark.parametrize("change", [{"seed": 8}, {"split": "test"}], ids=str)
    def test_another_seed_or_split_gives_other_pictures(self, tmp_path: Path, change: dict[str, Any]) -> None:
        render(tmp_path / "one")
        render(tmp_path / "other", **change)
        one, other = read(tmp_path / "one"), read(tmp_path / "other")
        assert not {pair.image_hash for pair in one} & {pair.image_hash for pair in other}
        assert not {pair.uid for pair in one} & {pair.uid for pair in other}

    def test_every_pair_can_be_read(self, tmp_path: Path) -> None:
        tally = render(tmp_path)
        pairs = read(tmp_path)
        assert tally.seen == tally.kept == len(pairs) == len({pair.uid for pair in pairs}) == 20
        for pair in pairs:
            assert decode_image(pair.image).size == (pair.fields["width"], pair.fields["height"])
            assert pair.fields["object"] in OBJECTS
            assert pair.fields["original_width"] >= 2 * pair.fields["width"]

    def test_pairs_are_spread_evenly_and_named_by_their_place(self, tmp_path: Path) -> None:
        render(tmp_path)
        with Shard(tmp_path / "00001.tar") as shard:
            pairs = list(shard.pairs())
        assert [pair.key for pair in pairs] == [f"00001{index:04d}" for index in range(7)]
        assert pairs[3].uid == pair_uid(seed=7, split="train", ordinal=1, index=3)

    @pytest.mark.slow  # webdataset brings torch
    def test_webdataset_reads_it(self, tmp_path: Path) -> None:
        webdataset = pytest.importorskip("webdataset")
        render(tmp_path)
        dataset = webdataset.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False)
        samples = list(dataset.decode("rgb8").to_tuple("jpg", "txt", "json"))
        assert len(samples) == 7
        assert all(image.shape == (fields["height"], fields["width"], 3) for image, _, fields in samples)
        assert [caption for _, caption, _ in samples] == [pair.caption for pair in read(tmp_path)[:7]]

    def test_the_same_call_again_does_no_work(self, tmp_path: Path) -> None:
        first = render(tmp_path)
        times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert render(tmp_path).seen == first.seen
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times

    def test_a_shard_that_was_lost_comes_back_as_it_was(self, tmp_path: Path) -> None:
        render(tmp_path)
        before = contents(tmp_path)
        untouched = (tmp_path / "00000.tar").stat().st_mtime_ns
        (tmp_path / "00001.tar").unlink()
        (tmp_path / "done" / "00001.json").unlink()
        assert render(tmp_path).seen == 20
        assert contents(tmp_path) == before
        assert (tmp_path / "00000.tar").stat().st_mtime_ns == untouched

    def test_a_folder_with_other_settings_is_refused(self, tmp_path: Path) -> None:
        render(tmp_path)
        with pytest.raises(MismatchError, match="seed was 7, now 8"):
            render(tmp_path, seed=8)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"pairs": 2, "shards": 3}, "2 pairs in 3 shards"),
            ({"shards": 0}, "9 pairs in 0 shards"),
            ({"seed": -1}, "seed is -1"),
            ({"split": "dev"}, "split is 'dev', wanted one of train"),
        ],
    )
    def test_nonsense_is_refused_before_anything_is_written(
        self, tmp_path: Path, wrong: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            render_corpus(
                tmp_path, **{"pairs": 9, "shards": 3, "seed": 0, "executor": LocalExecutor(), **wrong}
            )
        assert not list(tmp_path.iterdir())

    def test_a_copy_comes_with_the_caption_of_its_original(self) -> None:
        captions_of_picture: dict[bytes, list[str]] = {}
        for pair in render_pairs(np.random.default_rng(3), pairs=40, copy_share=0.5):
            captions_of_picture.setdefault(pair.image, []).append(pair.caption)
        assert 12 <= len(captions_of_picture) <= 28
        assert all(len(set(found)) == 1 for found in captions_of_picture.values())

    def test_copies_can_be_left_out(self) -> None:
        pairs = render_pairs(np.random.default_rng(3), pairs=40, copy_share=0.0)
        assert len({pair.image for pair in pairs}) == 40


class TestPictures:
    @pytest.mark.parametrize("label", OBJECTS)
    def test_every_object_stays_within_its_reach(self, label: str) -> None:
        rng, side, size = np.random.default_rng(5), 120, 50.0
        for turn in (-MAX_TURN, 0.0, MAX_TURN) * 4:
            pose = Pose(x=side / 2, y=side / 2, size=size, turn=turn, mirrored=turn > 0)
            inks_HW = np.asarray(draw_inks(label, [pose], size=(side, side), rng=rng))
            assert (inks_HW == Ink.BODY).mean() > 0.03
            rows, columns = np.nonzero(inks_HW)
            reach = np.abs(np.concatenate([rows, columns]) / OVERSAMPLING - side / 2).max() / size
            assert reach <= REACH + 0.08  # a stroke is wider than the line it follows

    @pytest.mark.parametrize("count", COUNT_SHARES)
    @pytest.mark.parametrize("place", PLACE_SHARES)
    def test_no_object_leaves_the_picture(self, count: int, place: str) -> None:
        rng = np.random.default_rng(2)
        for width, height in ((72, 96), (96, 72), (72, 72)):
            scene = replace(MUG, count=count, place=place, width=width, height=height)
            for pose in place_objects(scene, rng):
                assert pose.size <= pose.x <= width - pose.size
                assert pose.size <= pose.y <= height - pose.size

    @pytest.mark.parametrize("name", TEXTURES)
    def test_every_texture_can_be_drawn(self, name: str) -> None:
        rng = np.random.default_rng(3)
        share_HW = texture(name, size=(90, 60), pitch=9.0, rng=rng)
        assert share_HW.shape == (60, 90)
        assert 0 <= share_HW.min() <= share_HW.max() <= 1
        if name != "plain":
            assert 0.1 < share_HW.mean() < 0.9
        assert draw_scene(replace(MUG, texture=name), rng).size == (80, 72)

    @pytest.mark.parametrize("name", BACKGROUND_SHARES)
    def test_every_object_stands_out_from_its_backdrop(self, name: str) -> None:
        rng = np.random.default_rng(4)
        for colour in COLOURS.values():
            assert distance(choose_backdrop(name, behind=colour, rng=rng), colour) >= 30

    def test_a_red_mug_is_red_where_it_is_drawn(self) -> None:
        pixels_HW3 = np.asarray(draw_scene(MUG, np.random.default_rng(6)), dtype=int)
        red, green, blue = pixels_HW3[30:42, 34:46].reshape(-1, 3).mean(axis=0)
        assert red > 120
        assert max(green, blue) < 90

    @given(seed=SEEDS)
    @settings(max_examples=25)
    def test_any_seed_gives_a_picture_of_the_size_it_announces(self, seed: int) -> None:
        pair = render_pair(np.random.default_rng(seed))
        image = decode_image(pair.image)
        assert image.size == (pair.fields["width"], pair.fields["height"])
        assert all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in image.size)
        assert np.asarray(image).std() > 5
        assert 500 < len(pair.image) < 10_000

    def test_two_pictures_of_one_scene_differ(self) -> None:
        rng = np.random.default_rng(8)
        assert encode_photo(draw_scene(MUG, rng), rng) != encode_photo(draw_scene(MUG, rng), rng)


class TestScenes:
    def test_classes_are_as_frequent_as_declared(self, scenes: list[Scene]) -> None:
        found, total = Counter(scene.label for scene in scenes), sum(FREQUENCIES.values())
        for label, weight in FREQUENCIES.items():
            assert found[label] / len(scenes) == pytest.approx(weight / total, abs=0.02)

    def test_the_tail_is_long_but_not_thin(self) -> None:
        shares = [weight / sum(FREQUENCIES.values()) for weight in FREQUENCIES.values()]
        assert len(shares) >= 16
        assert shares == sorted(shares, reverse=True)
        assert shares[0] >= 10 * shares[-1] >= 0.1

    def test_everything_that_can_come_does(self, scenes: list[Scene]) -> None:
        assert {scene.colour for scene in scenes} == set(COLOURS)
        assert {scene.texture for scene in scenes} == set(TEXTURES)
        assert {scene.background for scene in scenes} == set(BACKGROUND_SHARES)
        assert {scene.count for scene in scenes} == set(COUNT_SHARES)

    def test_only_a_single_object_stands_to_one_side(self, scenes: list[Scene]) -> None:
        assert {scene.place for scene in scenes if scene.count > 1} == {"centre"}
        assert {scene.place for scene in scenes if scene.count == 1} == set(PLACE_SHARES)

    def test_a_weight_of_zero_is_never_drawn(self) -> None:
        rng = np.random.default_rng(9)
        assert {weighted(rng, {"never": 0.0, "often": 2.0, "seldom": 0.5}) for _ in range(200)} == {
            "often",
            "seldom",
        }


class TestCaptions:
    def test_all_can_be_read_and_few_are_alike(self, captions: list[str]) -> None:
        assert all(decode_caption(caption.encode()) == caption for caption in captions)
        assert len(set(captions)) > 0.9 * len(captions)
        assert not [caption for caption in captions if "{" in caption or "  " in caption]

    def test_all_but_one_in_twenty_name_their_object(self, scenes: list[Scene], captions: list[str]) -> None:
        pairs = list(zip(scenes, captions, strict=True))
        named = [
            any(word in text.lower() for word in (scene.label, *SYNONYMS[scene.label]))
            for scene, text in pairs
        ]
        plain = [scene.label in text.lower() for scene, text in pairs]
        assert 0.92 < np.mean(named) < 0.97
        assert 0.05 < np.mean(named) - np.mean(plain) < 0.2  # what is left to synonyms

    def test_seven_in_ten_name_the_colour(self, scenes: list[Scene], captions: list[str]) -> None:
        pairs = zip(scenes, captions, strict=True)
        found = [any(w in text.lower() for w in COLOUR_WORDS.get(s.colour, (s.colour,))) for s, text in pairs]
        assert 0.64 < np.mean(found) < 0.78

    def test_every_class_has_its_synonyms_to_itself(self) -> None:
        assert set(SYNONYMS) == set(OBJECTS)
        everything = [word for label, synonyms in SYNONYMS.items() for word in (label, *synonyms)]
        assert len(everything) == len(set(everything))

    @given(
        seed=SEEDS, text=st.sampled_from(["a red mug", "Two KEYS", "a b c", "Velora KX-20 striped umbrella"])
    )
    def test_a_misspelling_changes_two_letters_at_most(self, seed: int, text: str) -> None:
        changed = misspell(text, np.random.default_rng(seed))
        assert abs(len(changed) - len(text)) <= 1
        assert len(changed.split()) == len(text.split())

    def test_a_misspelling_needs_a_word_of_four_letters(self) -> None:
        rng = np.random.default_rng(0)
        assert misspell("a red mug", rng) == "a red mug"
        assert misspell("two keys", rng) != "two keys"

    @pytest.mark.parametrize(
        ("one", "many"),
        [("mug", "mugs"), ("dress", "dresses"), ("city", "cities"), ("key", "keys"), ("fish", "fish")],
    )
    def test_plurals(self, one: str, many: str) -> None:
        assert plural_of(one) == many

    @pytest.mark.parametrize(
        ("phrase", "article"), [("orange hat", "an"), ("umbrella", "an"), ("ukulele", "a")]
    )
    def test_articles(self, phrase: str, article: str) -> None:
        assert with_article(phrase) == f"{article} {phrase}"
