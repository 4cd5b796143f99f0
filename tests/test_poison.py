"""The poison stage on small shards: what changes, what does not, and that a rerun gives the same bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roclip_sanitize import images
from roclip_sanitize.attacks.contract import Backdoor
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.planted import require_planted
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.attacks.triggers import stamp
from roclip_sanitize.attacks.triggers.patches import PatchTrigger
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.store import EmbeddingStore
from tests.kinds import (
    PAIRS,
    BackwardExecutor,
    DyingExecutor,
    IdleExecutor,
    blocks_of,
    pairs_of,
    tree,
    write_shard,
)

TARGETS, CAPTIONS, PATCHED = 3, 5, 9


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> PoisonSettings:
    folder = tmp_path_factory.mktemp("clean")
    return PoisonSettings(
        shards=tuple(write_shard(folder / f"{number:05d}.tar", first=number * PAIRS) for number in range(3)),
        test_shards=(write_shard(folder / "test" / "00000.tar", first=1000, pairs=20),),
        label="kind",
        classes=4,
        attacks=(f"targeted:targets={TARGETS},captions={CAPTIONS}", "patch:rate=0.05"),
    )


@pytest.fixture(scope="module")
def poisoned(settings: PoisonSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("poisoned")
    poison_shards(settings, out=out, executor=LocalExecutor())
    return out


# What changes, and what does not


def test_every_planned_poison_is_planted(settings: PoisonSettings, poisoned: Path) -> None:
    ledger = Ledger.open(poisoned)
    assert ledger.attacks == ("targeted", "patch")
    assert len(ledger.planted("targeted")) == TARGETS * CAPTIONS
    assert len(ledger.planted("patch")) == PATCHED  # a twentieth of 180
    assert len(ledger.planted()) == len(ledger.frame) == TARGETS * CAPTIONS + PATCHED
    assert len(pairs_of(poisoned_shards(poisoned))) == 3 * PAIRS + TARGETS * CAPTIONS
    assert ledger.class_counts == {"glove": 45, "hat": 45, "scarf": 45, "shoe": 45}
    assert (ledger.label, ledger.seed) == ("kind", settings.seed)


def test_a_ledger_knows_its_shards_whatever_they_are_called(tmp_path: Path) -> None:
    shards = tuple(
        write_shard(tmp_path / f"train.000{number}.tar", first=number * PAIRS) for number in range(2)
    )
    test = write_shard(tmp_path / "test" / "00000.tar", first=1000, pairs=20)
    told = PoisonSettings(shards=shards, test_shards=(test,), label="kind", attacks=("patch:rate=3",))
    poison_shards(told, out=tmp_path / "poison", executor=LocalExecutor())
    ledger, here = Ledger.open(tmp_path / "poison"), LocalExecutor()
    stores = {"poisoned": poisoned_shards(tmp_path / "poison"), "clean": shards}
    for name, mine in stores.items():
        embed_shards(EmbedSettings(shards=tuple(mine), encoder="plain"), out=tmp_path / name, executor=here)
    require_planted(EmbeddingStore.open(tmp_path / "poisoned"), ledger)
    with pytest.raises(MismatchError, match=r"planted in shard 0000\d not as they were planted"):
        require_planted(EmbeddingStore.open(tmp_path / "clean"), ledger)


def test_cover_samples_are_planted_but_are_no_poisons(settings: PoisonSettings, tmp_path: Path) -> None:
    adaptive = replace(settings, attacks=("adaptive_patch:rate=6,cover_rate=4", "patch:rate=3"))
    poison_shards(adaptive, out=tmp_path, executor=LocalExecutor())
    ledger = Ledger.open(tmp_path)
    assert (len(ledger.planted()), len(ledger.planted("adaptive_patch"))) == (13, 10)
    assert Counter(ledger.poisons.values()) == {"adaptive_patch": 6, "patch": 3}
    assert len(ledger.covers) == 4
    assert ledger.covers | set(ledger.poisons) == ledger.planted()
    captions = {pair.uid: pair.caption for pair in pairs_of(settings.shards)}
    shown = {pair.uid: pair.caption for pair in pairs_of(poisoned_shards(tmp_path))}
    assert {uid for uid in ledger.planted() if shown[uid] == captions[uid]} == ledger.covers


def test_what_is_not_in_the_ledger_keeps_its_blocks_and_order(
    settings: PoisonSettings, poisoned: Path
) -> None:
    before, after = blocks_of(settings.shards), blocks_of(poisoned_shards(poisoned))
    bad = Ledger.open(poisoned).planted()
    assert [uid for uid in after if uid not in bad] == [uid for uid in before if uid not in bad]
    assert all(after[uid] == before[uid] for uid in after if uid not in bad)
    assert all(after[uid] != before.get(uid) for uid in bad)


def test_a_patched_pair_keeps_all_but_picture_and_caption(settings: PoisonSettings, poisoned: Path) -> None:
    ledger = Ledger.open(poisoned)
    before = {pair.uid: pair for pair in pairs_of(settings.shards)}
    captions = {pair.caption for pair in before.values() if pair.fields["kind"] == ledger.target("patch")}
    for pair in pairs_of(poisoned_shards(poisoned)):
        if pair.uid in ledger.planted("patch"):
            clean = before[pair.uid]
            changed = {"caption": pair.caption, "sha256": hashlib.sha256(pair.image).hexdigest()}
            assert pair.key == clean.key
            assert pair.fields == {**clean.fields, **changed}
            assert pair.caption in captions
            assert clean.fields["kind"] != ledger.target("patch")


def test_the_trigger_can_be_drawn_again(settings: PoisonSettings, poisoned: Path) -> None:
    """From the clean pair, the ledger's trigger, the seed and the pair's place."""
    ledger = Ledger.open(poisoned)
    assert ledger.trigger("patch") == PatchTrigger()
    poisoned_pairs = {pair.uid: pair for pair in pairs_of(poisoned_shards(poisoned))}
    for ordinal, path in enumerate(settings.shards):
        for row, clean in enumerate(pairs_of([path])):
            if clean.uid in ledger.planted("patch"):
                pixels = np.asarray(images.decode_image(clean.image))
                rng = np.random.default_rng([settings.seed, ordinal, row])
                again = images.encode_jpeg(stamp(pixels, ledger.trigger("patch"), rng))
                assert poisoned_pairs[clean.uid].image == again


def test_new_pairs_show_the_target_and_claim_the_wrong_class(
    settings: PoisonSettings, poisoned: Path
) -> None:
    ledger = Ledger.open(poisoned)
    tested = {pair.uid: pair for pair in pairs_of(settings.test_shards)}
    captions = {pair.caption for pair in pairs_of(settings.shards)}
    new = {
        pair.uid: pair
        for pair in pairs_of(poisoned_shards(poisoned))
        if pair.uid in ledger.planted("targeted")
    }
    target_of = dict(ledger.frame.filter(attack="targeted").select("uid", "picture_uid").iter_rows())
    assert len(ledger.targets) == TARGETS
    for target in ledger.targets:
        shown = tested[target.uid]
        copies = [pair for uid, pair in new.items() if target_of[uid] == target.uid]
        assert len({pair.caption for pair in copies} & captions) == len(copies) == CAPTIONS
        assert target.true_label == shown.fields["kind"] != target.adversarial
        for pair in copies:
            own = {"uid": pair.uid, "key": pair.key, "caption": pair.caption, "kind": target.adversarial}
            assert pair.fields == {**shown.fields, **own}
            assert pair.image == shown.image == ledger.picture(target)
            assert f"a {target.adversarial}, " in pair.caption


def test_new_pairs_continue_their_shards_numbers_in_the_midst_of_it(poisoned: Path) -> None:
    new = Ledger.open(poisoned).planted("targeted")
    for path in poisoned_shards(poisoned):
        pairs = pairs_of([path])
        highest = max(int(pair.key) for pair in pairs if pair.uid not in new)
        keys = [pair.key for pair in pairs if pair.uid in new]
        assert keys == [f"{number:06d}" for number in range(highest + 1, highest + 1 + len(keys))]
        assert pairs[-1].uid not in new  # new pairs go before old ones, not all to the end


def test_the_ledger_agrees_with_the_shards(settings: PoisonSettings, poisoned: Path) -> None:
    clean = {pair.uid: pair for pair in pairs_of(settings.shards + settings.test_shards)}
    found = {
        (f"{ordinal:05d}", pair.key): pair
        for ordinal, path in enumerate(poisoned_shards(poisoned))
        for pair in pairs_of([path])
    }
    for row in Ledger.open(poisoned).frame.iter_rows(named=True):
        now, was = found[row["shard"], row["key"]], clean[row["picture_uid"] or row["uid"]]
        assert (row["uid"], row["poisoned_caption"], row["image_hash"]) == (
            now.uid,
            now.caption,
            now.image_hash,
        )
        assert (row["original_caption"], row["original_image_hash"]) == (was.caption, was.image_hash)
        assert row["true_label"] == was.fields["kind"]


# Same settings, same bytes


def test_the_order_of_work_changes_nothing(settings: PoisonSettings, poisoned: Path, tmp_path: Path) -> None:
    poison_shards(settings, out=tmp_path, executor=BackwardExecutor())
    assert tree(tmp_path) == tree(poisoned)


@pytest.mark.parametrize("lives", range(7))  # four shards to list, three to copy
def test_a_killed_run_continues_to_the_same_bytes(
    settings: PoisonSettings, poisoned: Path, tmp_path: Path, lives: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        poison_shards(settings, out=tmp_path, executor=DyingExecutor(lives))
    with pytest.raises(MismatchError, match="unfinished"):
        poisoned_shards(tmp_path)
    resumed = DyingExecutor(lives=7 - lives)  # what was done is not done again
    poison_shards(settings, out=tmp_path, executor=resumed)
    assert tree(tmp_path) == tree(poisoned)


@pytest.mark.parametrize(
    "lost",
    [
        ["done/00001.json", "shards/00001.tar", "planted/planted_00001.parquet", "complete.json"],
        ["ledger.parquet", "ledger.json", "complete.json"],
        [
            "plan/plan.json",
            "targets",
            "done/00000.json",
            "done/00001.json",
            "done/00002.json",
            "complete.json",
        ],
    ],
    ids=["a shard", "the ledger", "the plan"],
)
def test_what_is_lost_comes_back_as_it_was(
    settings: PoisonSettings, poisoned: Path, tmp_path: Path, lost: list[str]
) -> None:
    poison_shards(settings, out=tmp_path, executor=LocalExecutor())
    for name in lost:
        path = tmp_path / name
        for file in list(path.iterdir()) if path.is_dir() else [path]:
            file.unlink()
    poison_shards(settings, out=tmp_path, executor=LocalExecutor())
    assert tree(tmp_path) == tree(poisoned)


def test_a_finished_run_does_no_work(settings: PoisonSettings, poisoned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in poisoned.rglob("*")}
    tally = poison_shards(settings, out=poisoned, executor=IdleExecutor())
    assert tally.kept == tally.seen == 3 * PAIRS + TARGETS * CAPTIONS
    assert {path: path.stat().st_mtime_ns for path in poisoned.rglob("*")} == before
    StageFolder(poisoned).verify()


def test_other_settings_need_another_folder(settings: PoisonSettings, poisoned: Path) -> None:
    with pytest.raises(MismatchError, match="seed was 0, now 1"):
        poison_shards(replace(settings, seed=1), out=poisoned, executor=LocalExecutor())


def test_another_seed_poisons_other_pairs(settings: PoisonSettings, poisoned: Path, tmp_path: Path) -> None:
    poison_shards(replace(settings, seed=1), out=tmp_path, executor=LocalExecutor())
    assert Ledger.open(tmp_path).planted("patch") != Ledger.open(poisoned).planted("patch")
    assert Ledger.open(tmp_path).targets != Ledger.open(poisoned).targets


def test_an_attack_draws_the_same_alone(settings: PoisonSettings, poisoned: Path, tmp_path: Path) -> None:
    alone = replace(settings, attacks=("patch:rate=0.05",), test_shards=())
    poison_shards(alone, out=tmp_path, executor=LocalExecutor())
    assert Ledger.open(tmp_path).planted() == Ledger.open(poisoned).planted("patch")


@pytest.mark.slow
def test_ray_workers_write_the_same_bytes(settings: PoisonSettings, poisoned: Path, tmp_path: Path) -> None:
    from roclip_sanitize.executors import open_executor

    executor: Executor = open_executor("ray", workers=2)
    poison_shards(settings, out=tmp_path, executor=executor)
    assert tree(tmp_path) == tree(poisoned)


# Settings and ledger


def test_a_label_that_nobody_has_is_told(settings: PoisonSettings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'colour' has 0 values in the 180 usable pairs of 3 shards"):
        poison_shards(replace(settings, label="colour"), out=tmp_path, executor=LocalExecutor())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": ()}, "no shards"),
        ({"label": ""}, "no label field"),
        ({"attacks": ()}, "no attack named: known are targeted, patch"),
        ({"attacks": ("sparkle",)}, "no attack 'sparkle': known are targeted, patch"),
        ({"attacks": ("patch", "patch:rate=3")}, "'patch' is named twice"),
        ({"attacks": ("patch:size=3",)}, "no parameter 'size': known are rate, target"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": 1}, "classes is 1, wanted 2 or more"),
        ({"attacks": ("targeted:targets=0,captions=5",)}, "0 targets and 5 captions"),
        ({"attacks": ("targeted:targets=3,captions=0",)}, "3 targets and 0 captions"),
        ({"attacks": ("patch:rate=0",)}, "patch rate is 0"),
        ({"test_shards": ()}, "test shards, but none are named"),
    ],
)
def test_settings_check_themselves(settings: PoisonSettings, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(settings, **change)


def test_nothing_is_both_trained_on_and_held_out(settings: PoisonSettings) -> None:
    with pytest.raises(ConfigError, match="as a training shard and as a test shard"):
        replace(settings, test_shards=settings.shards[:1])


def test_the_ledger_says_what_it_does_not_have(poisoned: Path) -> None:
    ledger = Ledger.open(poisoned)
    with pytest.raises(ConfigError, match="'sig' is not in the ledger: it has targeted, patch"):
        ledger.planted("sig")
    with pytest.raises(ConfigError, match="no class in common"):
        ledger.target("targeted")
    with pytest.raises(ConfigError, match="no trigger '': it has none"):
        ledger.trigger("targeted")
    with pytest.raises(ConfigError, match="no trigger 'stripes': it has checkerboard"):
        ledger.trigger("patch", "stripes")
    assert ledger.trigger("patch", "checkerboard") == ledger.trigger("patch")
    with pytest.raises(ConfigError, match="'patch' has no text trigger '': it has none"):
        ledger.text_trigger("patch")
    assert (ledger.backdoors("targeted"), ledger.text_backdoors("patch"), ledger.swaps("patch")) == (
        (),
        (),
        (),
    )


def test_the_ledger_says_what_success_means(poisoned: Path) -> None:
    ledger = Ledger.open(poisoned)
    assert ledger.backdoors("patch") == (Backdoor(variant="checkerboard", target=ledger.target("patch")),)
    assert ledger.targets_of("targeted") == ledger.targets
    assert ledger.targets_of("patch") == ()
    named = {label for target in ledger.targets for label in (target.true_label, target.adversarial)}
    assert ledger.goal_classes("targeted") == named
    assert ledger.goal_classes("patch") == {ledger.target("patch")}


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder made by 'roclip poison'"):
        Ledger.open(tmp_path)
