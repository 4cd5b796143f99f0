"""Poisoning shards that are not what they should be: what is lost, and what is not."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.planting import fresh_keys
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.records import FailureReason, is_uid
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import read_failures
from tests.kinds import (
    LABELS,
    DyingExecutor,
    pairs_of,
    picture,
    write_shard,
)


def patch_all(shards: tuple[Path, ...], pairs: int) -> PoisonSettings:
    """Patch this many pairs, all on hats."""
    return PoisonSettings(shards=shards, label="kind", attacks=(f"patch:rate={pairs},target=hat",), classes=4)


def member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def test_broken_pairs_are_copied_and_fail_again(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(8):
            fields = {"uid": f"{number:032x}", "kind": LABELS[number % 4]}
            member(archive, f"{number}.jpg", picture(number))
            if number != 2:
                member(archive, f"{number}.txt", b"" if number == 5 else f"a {LABELS[number % 4]}".encode())
            member(archive, f"{number}.json", b"{" if number == 6 else json.dumps(fields).encode())
    tally = poison_shards(patch_all((path,), 2), out=tmp_path / "out", executor=LocalExecutor())
    (copy,) = poisoned_shards(tmp_path / "out")
    with Shard(path) as before, Shard(copy) as after:
        assert [pair.uid for pair in after.pairs()] == [pair.uid for pair in before.pairs()]
        assert [(f.key, f.reason) for f in after.failures] == [(f.key, f.reason) for f in before.failures]
    assert copy.name == "odd.tar"
    assert (tally.seen, tally.kept) == (8, 5)
    assert tally.failed == {"no_caption": 1, "empty_caption": 1, "bad_json": 1}
    assert read_failures(tmp_path / "out", "00000")["key"].to_list() == ["2", "5", "6"]


def test_an_unreadable_shard_and_a_cut_one_cost_only_themselves(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", first=0, pairs=8)
    cut = write_shard(tmp_path / "cut.tar", first=8, pairs=8)
    with Shard(cut) as shard:
        break_off = list(shard.pairs())[5].members[1].offset
    cut.write_bytes(cut.read_bytes()[: break_off + 3])
    empty = tmp_path / "empty.tar"
    empty.write_bytes(b"")
    tally = poison_shards(patch_all((whole, cut, empty), 4), out=tmp_path / "out", executor=LocalExecutor())
    assert tally.failed == {FailureReason.TRUNCATED_SHARD: 1, FailureReason.UNREADABLE_SHARD: 1}
    assert tally.kept == 13
    assert [len(pairs_of([path])) for path in poisoned_shards(tmp_path / "out")] == [8, 5, 0]


def test_a_picture_that_cannot_be_stamped_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with ShardWriter(path) as writer:
        for number in range(8):
            image, kind = b"no picture" if number == 2 else picture(number), LABELS[number % 4]
            writer.add(f"{number}", image=image, caption=f"a {kind}", fields={"kind": kind})
    tally = poison_shards(patch_all((path,), 6), out=tmp_path / "out", executor=LocalExecutor())
    assert tally.failed == {FailureReason.IMAGE_UNDECODABLE: 1}
    assert (tally.seen, tally.kept, len(Ledger.open(tmp_path / "out").planted())) == (8, 7, 5)
    assert pairs_of(poisoned_shards(tmp_path / "out"))[2].image == b"no picture"


def test_a_pair_named_by_its_content_gets_a_new_name_with_it(tmp_path: Path) -> None:
    """Else the ledger would accuse the clean copies of the same pair."""
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as archive:
        for number, kind in enumerate(["shoe", "shoe", "hat"]):
            member(archive, f"{number}.jpg", picture(0))
            member(archive, f"{number}.txt", kind.encode())
            member(archive, f"{number}.json", json.dumps({"kind": kind}).encode())
    poison_shards(patch_all((path,), 1), out=tmp_path / "out", executor=LocalExecutor())
    bad = Ledger.open(tmp_path / "out").planted()
    pairs = pairs_of(poisoned_shards(tmp_path / "out"))
    assert [pair.caption for pair in pairs if pair.uid in bad] == ["hat"]
    assert len(pairs) == 3
    assert all(is_uid(uid) for uid in bad)


def test_labels_that_are_numbers_stay_numbers(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("test", 100)):
        with ShardWriter(tmp_path / f"{name}.tar") as writer:
            for number in range(first, first + 12):
                writer.add(f"{number}", image=picture(number), caption="x", fields={"kind": number % 2})
    settings = PoisonSettings(
        shards=(tmp_path / "train.tar",),
        test_shards=(tmp_path / "test.tar",),
        label="kind",
        attacks=("targeted:targets=2,captions=3",),
    )
    poison_shards(settings, out=tmp_path / "out", executor=LocalExecutor())
    pairs = pairs_of(poisoned_shards(tmp_path / "out"))
    assert {type(pair.fields["kind"]) for pair in pairs} == {int}


def test_a_shard_that_changed_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "00000.tar", first=0, pairs=12)
    with pytest.raises(KeyboardInterrupt):
        poison_shards(patch_all((path,), 3), out=tmp_path / "out", executor=DyingExecutor(1))
    write_shard(path, first=500, pairs=12)
    with pytest.raises(MismatchError, match="has changed since the poisons were planned"):
        poison_shards(patch_all((path,), 3), out=tmp_path / "out", executor=LocalExecutor())


def test_shards_of_one_name_are_numbered(tmp_path: Path) -> None:
    paths = tuple(write_shard(tmp_path / name / "x.tar", first=i * 8, pairs=8) for i, name in enumerate("ab"))
    poison_shards(patch_all(paths, 2), out=tmp_path / "out", executor=LocalExecutor())
    assert [path.name for path in poisoned_shards(tmp_path / "out")] == ["00000.tar", "00001.tar"]


def test_originals_are_never_overwritten(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "shards" / "00000.tar", first=0, pairs=8)
    with pytest.raises(ConfigError, match="would be overwritten"):
        poison_shards(patch_all((path,), 2), out=tmp_path, executor=LocalExecutor())


@pytest.mark.parametrize(
    ("keys", "fresh"),
    [
        pytest.param(["0007", "0011"], ["0012", "0013"], id="as wide as the shard's"),
        pytest.param(["98", "99"], ["100", "101"], id="wider where it must be"),
        pytest.param(["cat", "dog"], ["000000000", "000000001"], id="no numbers"),
        pytest.param(["b/3", "4", "٥"], ["5", "6"], id="only plain digits count"),
    ],
)
def test_new_keys_continue_the_highest_number(keys: list[str], fresh: list[str]) -> None:
    stream = fresh_keys(keys)
    assert [next(stream), next(stream)] == fresh
