"""Captions that name a class label their pair; everything else of the pair stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.label_captions import CLASSES, CaptionLabeller, label_shards
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.local import LocalExecutor
from tests.corpora import pair_members, read_shard, write_shard, write_tar


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("A Candle on a desk", "candle"),
        ("vanilla ICE CREAM, melting", "ice cream"),
        ("candlelight over mountains", ""),
        ("(pizza)", "pizza"),
        ("nothing of the kind", ""),
    ],
)
def test_the_first_whole_word_counts(tmp_path: Path, caption: str, label: str) -> None:
    assert CaptionLabeller(tmp_path, CLASSES).class_of(caption) == label


def test_pairs_keep_what_they_are(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "0.tar", range(6))
    broken = write_tar(tmp_path / "1.tar", [*pair_members("a", 6), ("b.jpg", b"")])
    counts = label_shards(
        [whole, broken], classes=["Shoe", "hat"], out=tmp_path / "out", executor=LocalExecutor()
    )
    assert counts == {"Shoe": 3, "hat": 3, "": 1, "(failed)": 1}
    before, after = read_shard(whole)[0], read_shard(tmp_path / "out" / "shards" / "00000.tar")[0]
    assert [pair.fields["class"] for pair in after] == ["Shoe", "hat"] * 3
    assert [(pair.uid, pair.key, pair.caption, pair.image) for pair in after] == [
        (pair.uid, pair.key, pair.caption, pair.image) for pair in before
    ]


def test_one_class_is_no_choice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="classes are hat, wanted two names or more"):
        label_shards([], classes=["hat"], out=tmp_path, executor=LocalExecutor())
