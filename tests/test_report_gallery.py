"""The gallery of a run: successes and mistakes, each with its own words and pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars
import pytest

from roclip_sanitize.errors import DataError
from roclip_sanitize.images import decode_image, encode_jpeg
from roclip_sanitize.report import collect_gallery, load_report_data, render_page, write_report
from roclip_sanitize.report.data import ReportData
from roclip_sanitize.shard_writer import ShardWriter
from tests.example_run import (
    HOSTILE,
    attack_on,
    caption,
    example_run,
    kept,
    shards_of,
    true_caption,
    uid,
    write_scan,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text("utf-8")


def test_the_gallery_shows_successes_and_both_kinds_of_mistake(run: Path, page: str) -> None:
    gallery = load_report_data(run).gallery
    kinds = [item.kind for item in gallery]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"caught": 10, "lost": 4, "missed": 4}
    caught = [item for item in gallery if item.kind == "caught"]
    assert {item.attack for item in caught} == {"patch", "targeted"}
    assert {item.reasons[0] for item in caught} == {"neighbours_disagree", "many_captions_one_picture"}
    for mark in ("planted: patch", "planted: patch, missed", "clean pair, lost"):
        assert mark in page


def test_gallery_items_carry_their_own_words_and_pictures(run: Path) -> None:
    for item in load_report_data(run).gallery:
        number = next(number for number in range(200) if uid(number) == item.uid)
        assert item.caption == caption(number)
        assert item.attack == attack_on(number)
        assert (item.kind == "missed") == kept(number)
        assert decode_image(item.picture).size == (60, 80)  # small pictures are not blown up
        assert len(item.neighbours) == (0 if kept(number) else 4)
        assert all(neighbour.caption in {true_caption(other) for other in range(200)} | {HOSTILE}
                   for neighbour in item.neighbours)  # fmt: skip


def test_copies_of_one_picture_do_not_fill_the_gallery(run: Path) -> None:
    caught = [item for item in load_report_data(run).gallery if item.kind == "caught"]
    assert len({item.picture for item in caught}) == len(caught)


def test_a_cover_sample_is_no_mistake_whether_kept_or_lost(run: Path, tmp_path: Path) -> None:
    planted = polars.read_parquet(run / "ledger.parquet")
    planted.with_columns(cover=polars.col("attack") == "patch").write_parquet(tmp_path / "ledger.parquet")
    items = collect_gallery(run / "scan", shards_of(run), tmp_path)
    kinds = Counter((item.kind, item.attack) for item in items)
    assert kinds == {("caught", "targeted"): 10, ("lost", ""): 4, ("missed", "targeted"): 1}


def test_without_a_ledger_nobody_is_called_a_poison(run: Path) -> None:
    items = collect_gallery(run / "scan", shards_of(run))
    assert {(item.kind, item.attack) for item in items} == {("quarantined", "")}
    assert len(items) == 18


def test_a_picture_that_cannot_be_decoded_leaves_its_pair_in_the_gallery(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "00000.tar") as writer:
        writer.add("0", image=b"not a picture", caption="line one\nline\u202e two", fields={"uid": uid(7)})
    write_scan(tmp_path / "scan")
    (item,) = collect_gallery(tmp_path / "scan", [tmp_path / "00000.tar"])
    assert (item.picture, item.caption) == (b"", "line one line two")
    assert "no picture" in render_page(ReportData(results=(), gallery=(item,)))


def test_large_pictures_become_small_ones_of_the_same_shape(tmp_path: Path) -> None:
    wide_HW3 = np.zeros((150, 300, 3), dtype=np.uint8)
    with ShardWriter(tmp_path / "00000.tar") as writer:
        writer.add("0", image=encode_jpeg(wide_HW3), caption="wide", fields={"uid": uid(7)})
    write_scan(tmp_path / "scan")
    (item,) = collect_gallery(tmp_path / "scan", [tmp_path / "00000.tar"])
    assert decode_image(item.picture).size == (96, 48)


def test_a_folder_without_verdicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no verdicts"):
        collect_gallery(tmp_path, [])
