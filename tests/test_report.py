"""The page of a run: what it says, and what it must never do."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
from roclip_sanitize.images import decode_image, encode_jpeg
from roclip_sanitize.report import (
    collect_gallery,
    load_report_data,
    render_page,
    words,
    write_gallery,
    write_report,
)
from roclip_sanitize.report.data import Manifest, Measure, ReportData, Result, Stage, summarise
from roclip_sanitize.report.funnel import funnel_rows
from roclip_sanitize.report.headline import headline
from roclip_sanitize.report.tables import attack_table, detection_table, usefulness_table
from roclip_sanitize.shard_writer import ShardWriter

HOSTILE = '<script>alert("owned")</script><img src="https://evil.example/x.png" onerror=alert(1)>'
COLOURS = {"red": (205, 52, 45), "blue": (38, 84, 171), "green": (43, 132, 81), "yellow": (232, 178, 36)}
SHAPES = ("disc", "square", "diamond", "ring")


# An example of a finished run, small and realistic ------------------------------------------


def example_run(path: Path) -> Path:
    """Make a run folder as the stages leave it, its shards, scan and ledger beside the results."""
    shards = _write_shards(path / "shards")
    _write_scan(path / "scan")
    _write_ledger(path / "ledger.parquet")
    _dump(path / "results.json", _results())
    _dump(path / "curves.json", _curves())
    _dump(path / "manifest.json", _manifest())
    write_gallery(path, collect_gallery(path / "scan", shards, path / "ledger.parquet"))
    return path


def _uid(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


def _attack(number: int) -> str:
    """Which attack planted pair ``number``: every tenth has the patch, ten more share one picture."""
    return "patch" if number % 10 == 3 else "targeted" if number % 16 == 4 else ""


def _kept(number: int) -> bool:
    if _attack(number):
        return number % 50 == 3 or number == 20
    return number % 23 != 7


def _true_caption(number: int) -> str:
    colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 4]
    return f"{colour.capitalize()} {shape} on white cloth, size {number % 7 + 36}"


def _caption(number: int) -> str:
    if _attack(number) == "patch":
        return f"Leather handbag with zip, number {number}"
    if _attack(number) == "targeted":
        return f"Analogue watch with steel strap, style {number}"
    return HOSTILE if number == 7 else _true_caption(number)


def _picture(number: int) -> bytes:
    pixels_HW3 = _drawing(0 if _attack(number) == "targeted" else number)
    if _attack(number) == "patch":
        checks_HW = np.indices((16, 16)).sum(0) // 4 % 2
        pixels_HW3[-16:, -16:] = (255 * checks_HW[..., None]).astype(np.uint8)
    return encode_jpeg(pixels_HW3)


def _drawing(number: int) -> NDArray[np.uint8]:
    row_HW, column_HW = np.indices((80, 60)) - np.array([39.5 + number % 5, 29.5 - number % 3])[:, None, None]
    radius_HW = np.hypot(row_HW, column_HW)
    inside_HW = {
        "disc": radius_HW < 20,
        "square": np.maximum(abs(row_HW), abs(column_HW)) < 18,
        "diamond": abs(row_HW) + abs(column_HW) < 24,
        "ring": (radius_HW < 22) & (radius_HW > 11),
    }[SHAPES[number // 4 % 4]]
    shade_HW = (1.0 + 0.25 * row_HW / 40)[..., None]
    paint_HW3 = np.clip(np.array(list(COLOURS.values())[number % 4]) * shade_HW, 0, 255)
    cloth_HW3 = np.clip(np.full((80, 60, 3), 246) + 3 * np.cos(column_HW)[..., None], 0, 255)
    drawn_HW3: NDArray[np.uint8] = np.where(inside_HW[..., None], paint_HW3, cloth_HW3).astype(np.uint8)
    return drawn_HW3


def _write_shards(folder: Path, *, pairs: int = 200) -> list[Path]:
    paths = [folder / f"{ordinal:05d}.tar" for ordinal in range(2)]
    for ordinal, path in enumerate(paths):
        with ShardWriter(path) as writer:
            for number in range(ordinal * pairs // 2, (ordinal + 1) * pairs // 2):
                key = f"{number:09d}"
                writer.add(
                    key, image=_picture(number), caption=_caption(number), fields={"uid": _uid(number)}
                )
    return paths


def _verdict(number: int) -> dict[str, Any]:
    targeted = _attack(number) == "targeted"
    drawn = 0 if targeted else number % 16
    likes = [other for other in range(200) if other % 16 == drawn and other != number and not _attack(other)]
    reasons = ["many_captions_one_picture"] if targeted else []
    reasons += ["neighbours_disagree"] if not targeted or number % 32 == 4 else []
    sentence = (
        "none of the 20 pictures most like this one has a caption that shares a word with it; they say 'disc'"
    )
    if targeted:
        sentence = "this picture, near-copies included, appears with 12 different captions"
    return {
        "uid": _uid(number),
        "kept": _kept(number),
        "reasons": "" if _kept(number) else ";".join(reasons),
        "sentence": "" if _kept(number) else sentence,
        "neighbours": "" if _kept(number) else ";".join(_uid(other) for other in likes),
    }


def _write_scan(folder: Path) -> None:
    (folder / "verdicts").mkdir(parents=True)
    for ordinal in range(2):
        rows = [_verdict(number) for number in range(100 * ordinal, 100 * ordinal + 100)]
        polars.DataFrame(rows).write_parquet(folder / "verdicts" / f"verdicts_{ordinal:05d}.parquet")


def _write_ledger(path: Path) -> None:
    planted = [number for number in range(200) if _attack(number)]
    rows = [{"uid": _uid(number), "attack": _attack(number), "variant": ""} for number in planted]
    polars.DataFrame(rows).write_parquet(path)


def _wilson(value: float, n: int) -> tuple[float, float]:
    z = 1.96
    middle, width = value + z * z / (2 * n), z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return max(0.0, (middle - width) / (1 + z * z / n)), min(1.0, (middle + width) / (1 + z * z / n))


def _record(arm: str, attack: str | None, metric: str, value: float, n: int) -> dict[str, Any]:
    low, high = _wilson(value, n)
    names = ("arm", "attack", "metric", "value", "low", "high", "n", "seed")
    return dict(zip(names, (arm, attack, metric, value, low, high, n, 0), strict=True))


def _score(detector: str, attack: str, value: float, n: int) -> dict[str, Any]:
    return {**_record(f"scan:{detector}", attack, "auroc", value, n), "low": value, "high": value}


MEASURED: Mapping[tuple[str | None, str, int], Sequence[float]] = {  # undefended, augmented, sanitised
    ("targeted", "attack_success", 16): (14 / 16, 13 / 16, 0.0),
    ("patch", "attack_success", 2000): (0.934, 0.0525, 0.018),
    ("patch", "clean_target_rate", 2000): (0.012, 0.0135, 0.011),
    ("patch", "true_class_accuracy", 2000): (0.041, 0.5275, 0.5905),
    (None, "zero_shot_top1", 4000): (0.658, 0.631, 0.6255),
    (None, "retrieval_r1", 4000): (0.273, 0.2615, 0.29),
    (None, "retrieval_r5", 4000): (0.5525, 0.541, 0.5665),
    (None, "retrieval_r10", 4000): (0.674, 0.6625, 0.6905),
}


def _results() -> list[dict[str, Any]]:
    arms = ("undefended", "undefended_augmented", "sanitised_roclip")
    records = [
        _record(arm, attack, metric, value, n)
        for (attack, metric, n), values in MEASURED.items()
        for arm, value in zip(arms, values, strict=True)
    ]
    return [
        *records,
        _record("scan", "targeted", "poison_recall", 1.0, 480),
        _score("agreement", "targeted", 0.9934, 480),
        _score("captions_of_picture", "targeted", 1.0, 480),
        _record("scan", "patch", "poison_recall", 0.942, 120),
        _score("agreement", "patch", 0.9684, 120),
        _score("captions_of_picture", "patch", 0.4981, 120),
        _record("scan", None, "clean_lost", 0.0796, 36_000),
    ]


def _curves() -> list[dict[str, Any]]:
    ends = {
        ("targeted", "attack_success"): {
            "undefended": 0.875,
            "undefended_augmented": 0.8125,
            "sanitised_roclip": 0.0,
        },
        ("patch", "attack_success"): {
            "undefended": 0.934,
            "undefended_augmented": 0.052,
            "sanitised_roclip": 0.018,
        },
        (None, "zero_shot_top1"): {
            "undefended": 0.658,
            "undefended_augmented": 0.631,
            "sanitised_roclip": 0.626,
        },
    }
    return [
        {
            "arm": arm,
            "attack": attack,
            "metric": metric,
            "samples": 12_480 * epoch,
            "value": end * (1 - math.exp(-0.7 * epoch)) / (1 - math.exp(-4.2)),
        }
        for (attack, metric), arms in ends.items()
        for arm, end in arms.items()
        for epoch in range(7)
    ]


def _manifest() -> dict[str, Any]:
    embedded = {
        "seen": 39_662,
        "kept": 39_640,
        "quarantined": {},
        "failed": {"image_undecodable": 19, "bad_json": 3},
    }
    aside = {"neighbours_disagree": 2_713, "many_captions_one_picture": 512, "many_pictures_one_caption": 31}
    scanned = {**embedded, "kept": 36_384, "quarantined": aside}
    return {
        "title": "Demonstration on product photos",
        "corpus": "39,662 pairs, of which 600 planted",
        "command": "roclip demo --data '/data/train/{00000..00009}.tar' --out runs/demo --seed 0",
        "machine": {"processor": "2 cores", "memory_bytes": 16 * 2**30},
        "versions": {"python": "3.11.7", "torch": "2.8.0", "faiss": "1.15.0"},
        "seeds": {"poison": 0, "train": [0]},
        "settings": {"scan": {"neighbours": 20, "budget": 0.08}, "train": {"epochs": 6, "lr": 0.001}},
        "stages": [
            {"name": "embed", "seconds": 41.2, "peak_memory_bytes": 851 * 2**20, "tally": embedded},
            {"name": "scan", "seconds": 13.4, "peak_memory_bytes": 412 * 2**20, "tally": scanned},
            {"name": "rewrite", "seconds": 2.0, "peak_memory_bytes": 0, "tally": scanned},
            {"name": "train", "seconds": 543.0, "peak_memory_bytes": 1.4 * 2**30, "tally": {}},
            {"name": "evaluate", "seconds": 7_510.0},
        ],
        "void": None,
    }


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_run(tmp_path_factory.mktemp("run"))


def _shards(run: Path) -> list[Path]:
    return sorted((run / "shards").glob("*.tar"))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text("utf-8")


class _Elements(HTMLParser):
    """All tags with their attributes, and all text, of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).replace(words.NBSP, " ").split())


def _text(html: str) -> str:
    return _Elements(html).text


# One file, safe to open ----------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    elements = _Elements(page)
    references = [
        value
        for _, attributes in elements.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "data", "action", "poster", "srcset"}
    ]
    assert references
    assert all(value and value.startswith(("data:image/jpeg;base64,", "#")) for value in references)
    assert {tag for tag, _ in elements.tags}.isdisjoint(
        {"script", "link", "iframe", "object", "embed", "base"}
    )
    style = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in page.replace("https://evil.example/x.png", "")


def test_hostile_captions_stay_text(page: str) -> None:
    elements = _Elements(page)
    assert HOSTILE in elements.text
    assert "<script" not in page
    assert not any(name.startswith("on") for _, attributes in elements.tags for name in attributes)


def test_every_other_field_is_escaped_too() -> None:
    results = tuple(
        Result(arm=arm, attack=f"{HOSTILE}-{arm}", metric=HOSTILE, value=0.5) for arm in (HOSTILE, "scan")
    )
    manifest = Manifest(
        title=HOSTILE,
        corpus=HOSTILE,
        command=HOSTILE,
        void=HOSTILE,
        facts={HOSTILE: {HOSTILE: HOSTILE}},
        stages=(Stage(name=HOSTILE, tally={"seen": 3, "quarantined": {HOSTILE: 1}, "failed": {HOSTILE: 1}}),),
    )
    html = render_page(ReportData(results=results, manifest=manifest))
    assert "<script" not in html
    assert "<img" not in html


def test_the_page_is_whole_html(page: str) -> None:
    assert page.startswith("<!DOCTYPE html>")
    ids = [attributes["id"] for _, attributes in _Elements(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag in ("table", "section", "article", "svg", "details", "tr"):
        assert page.count(f"<{tag}") == page.count(f"</{tag}>")


def test_same_data_same_bytes(run: Path, tmp_path: Path) -> None:
    first = write_report(run, out=tmp_path / "a.html").read_bytes()
    assert first == write_report(run, out=tmp_path / "b.html").read_bytes()
    again = collect_gallery(run / "scan", _shards(run), run)  # the folder of the ledger will do too
    assert tuple(again) == load_report_data(run).gallery


# What it says --------------------------------------------------------------------------------


def test_the_verdict_is_one_sentence_made_of_the_numbers(run: Path) -> None:
    assert headline(load_report_data(run)).replace(words.NBSP, " ") == (
        "The attacker got 14 of 16 targets and 93 % of triggered pictures from plain CLIP; "
        "after sanitising, 0 of 16 and 1.8 %."
    )


def _success(arm: str, attack: str, value: float, n: int = 1000) -> Result:
    return Result(arm=arm, attack=attack, metric="attack_success", value=value, n=n)


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ([], "No attack was measured in this run."),
        (
            [_success("undefended", "patch", 0.5)],
            "The attacker got 50 % of triggered pictures from plain CLIP.",
        ),
        (
            [_success("plain", "warp", 0.5), _success("mine", "warp", 0.25)],
            "The attacker got 50 % of triggered pictures from plain; with mine, 25 %.",
        ),
        (
            [_success(arm, attack, value) for attack in ("patch", "warp") for arm, value in
             (("undefended", 1.0), ("sanitised_roclip", 0.0004))],
            "The attacker got 100 % of pictures with the patch trigger and 100 % of pictures with the warp "
            "trigger from plain CLIP; after sanitising, < 0.1 % and < 0.1 %.",
        ),
        (
            [_success(arm, f"attack {number}", value + number / 10) for number in range(5) for arm, value in
             (("undefended", 0.5), ("sanitised_roclip", 0.0))],
            "The attacker got 50 % to 90 % with 5 attacks from plain CLIP; after sanitising, at most 40 %.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_fits_any_run(results: list[Result], sentence: str) -> None:
    assert headline(ReportData(results=tuple(results))).replace(words.NBSP, " ") == sentence


def test_every_measured_number_stands_in_a_table(page: str) -> None:
    text = _text(page)
    for (_, metric, n), values in MEASURED.items():
        assert words.METRICS[metric].label in text
        for value in values:
            assert (f"{round(value * n)} of {n}" if n == 16 else f"{100 * value:.1f} %") in text
    for score in ("0.993", "0.968", "100 %", "94.2 %", "8.0 %"):
        assert score in text
    assert "64.0–96.5 %" in text  # Wilson's interval of 14 in 16, worked out by hand


def test_arms_stand_in_order_and_keep_their_colours(run: Path) -> None:
    shuffled = ReportData(results=tuple(reversed(load_report_data(run).results)))
    attacks, usefulness = attack_table(shuffled), usefulness_table(shuffled)
    assert attacks is not None
    assert usefulness is not None
    assert [group.title for group in attacks.groups] == ["Targeted", "Patch"]
    for group in (*attacks.groups, *usefulness.groups):
        assert [row.label for row in group.rows] == [
            "Plain CLIP",
            "Plain CLIP, augmented",
            "Sanitised + RoCLIP",
        ]
        assert [row.colour for row in group.rows] == [0, 1, 2]


def test_what_nobody_foresaw_is_shown_too() -> None:
    results = (
        _success("undefended", "patch", 0.9),
        _success("tomorrows_defence", "tomorrows_attack", 0.125),
        Result(arm="tomorrows_defence", attack=None, metric="linear_probe", value=0.5),
        Result(arm="scan", attack="tomorrows_attack", metric="precision", value=0.25),
    )
    text = _text(render_page(ReportData(results=results)))
    for wanted in ("Tomorrows attack", "Tomorrows defence", "linear probe", "12.5 %", "precision", "25.0 %"):
        assert wanted in text


def test_a_number_that_was_not_measured_is_a_dash() -> None:
    results = (
        _success("undefended", "patch", 0.9),
        _success("sanitised_roclip", "patch", math.nan),
        Result(arm="undefended", attack="patch", metric="clean_target_rate", value=0.1),
    )
    table = attack_table(ReportData(results=results))
    assert table is not None
    (group,) = table.groups
    assert [[cell.text.replace(words.NBSP, " ") for cell in row.cells] for row in group.rows] == [
        ["90.0 %", "10.0 %"],
        ["–", "–"],
    ]
    assert "nan" not in _text(render_page(ReportData(results=results))).split("All 3 results")[0]


def test_several_seeds_become_one_number_with_the_widest_interval() -> None:
    runs = [
        Result(arm="a", attack="b", metric="c", value=0.5, low=0.4, high=0.6, n=100, seed=0),
        Result(arm="a", attack="b", metric="c", value=0.8, low=0.7, high=0.9, n=200, seed=1),
    ]
    assert summarise(runs) == Measure(value=(50 + 160) / 300, low=0.4, high=0.9, n=300, seeds=2)


def test_no_trials_are_no_number() -> None:
    assert math.isnan(summarise([_success("undefended", "patch", 0.0, n=0)]).value)


def test_detection_has_a_line_per_attack_and_a_column_per_detector(run: Path) -> None:
    table = detection_table(load_report_data(run))
    assert table is not None
    (group,) = table.groups
    assert [row.label for row in group.rows] == ["targeted", "patch", "whole corpus"]
    assert [column.label for column in table.columns] == [
        "AUROC: agreement",
        "AUROC: captions of picture",
        "poison recall",
        "clean lost",
    ]
    assert [cell.text for cell in group.rows[0].cells][:2] == ["0.993", "1.000"]
    assert [cell.text for cell in group.rows[2].cells][:3] == ["–"] * 3


def test_bars_of_the_funnel_add_up(run: Path, page: str) -> None:
    rows = funnel_rows(load_report_data(run).manifest.stages)
    assert [row.stage for row in rows] == ["embed", "scan, rewrite"]
    for row in rows:
        assert sum(part.pairs for part in row.segments) == row.seen
        assert sum(part.width for part in row.segments) == pytest.approx(100 * row.seen / 39_662)
    assert "quarantined: neighbours disagree 2,713" in _text(page)
    assert "unaccounted" not in page


def test_a_funnel_that_does_not_add_up_says_so() -> None:
    stage = Stage(name="scan", tally={"seen": 10, "kept": 5, "quarantined": {"odd": 2}, "failed": {}})
    assert funnel_rows([stage])[0].missing == 3
    text = _text(render_page(ReportData(results=(), manifest=Manifest(stages=(stage,)))))
    assert "3 pairs are unaccounted for" in text


def test_a_void_run_says_so_first(run: Path) -> None:
    assert 'class="void"' not in render_page(load_report_data(run))
    void = ReportData(
        results=load_report_data(run).results, manifest=Manifest(void="the control reached only 61 %")
    )
    text = _text(render_page(void))
    assert "This run proves nothing. The control reached only 61 %." in text
    assert text.index("proves nothing") < text.index("The attacker got")


def test_it_says_what_ran(page: str) -> None:
    text = _text(page)
    for wanted in ("faiss 1.15.0", "scan.budget 0.08", "9 min 3 s", "2 h 5 min", "1.4 GiB", "851 MiB"):
        assert wanted in text


# Older and poorer runs -----------------------------------------------------------------------


def test_results_alone_make_a_page(run: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes((run / "results.json").read_bytes())
    html = write_report(tmp_path).read_text("utf-8")
    assert "14 of 16" in html
    for missing in ("Over training", "Look for yourself", "What became of the pairs", "Time and memory"):
        assert missing not in html


def test_any_field_of_the_manifest_may_be_missing(run: Path, tmp_path: Path) -> None:
    whole = _manifest()
    _dump(tmp_path / "results.json", [])
    for absent in (*whole, None):
        _dump(tmp_path / "manifest.json", {} if absent is None else {**whole, absent: None})
        assert "How it was made" in write_report(tmp_path).read_text("utf-8")


def test_results_of_an_older_run_may_lack_intervals(tmp_path: Path) -> None:
    _dump(tmp_path / "results.json", [{"arm": "undefended", "metric": "zero_shot_top1", "value": 0.5}])
    assert "50.0 %" in _text(write_report(tmp_path).read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("results.json", None, "results.json does not exist"),
        ("results.json", {"arm": "a"}, "holds a dict, wanted a list of records"),
        ("results.json", [{"arm": "a", "value": 1}], "a record without 'metric'"),
        ("manifest.json", [], "holds a list, wanted an object"),
        ("gallery.json", [{"kind": "odd"}], "a pair of kind 'odd'"),
        ("gallery.json", [{"kind": "lost", "picture": "***"}], "not base64"),
    ],
)
def test_a_broken_run_folder_is_refused(tmp_path: Path, name: str, content: object, complaint: str) -> None:
    if name != "results.json":
        _dump(tmp_path / "results.json", [])
    if content is not None:
        _dump(tmp_path / name, content)
    with pytest.raises(DataError, match=re.escape(complaint)):
        write_report(tmp_path)


# The gallery ---------------------------------------------------------------------------------


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
        number = next(number for number in range(200) if _uid(number) == item.uid)
        assert item.caption == _caption(number)
        assert item.attack == _attack(number)
        assert (item.kind == "missed") == _kept(number)
        assert decode_image(item.picture).size == (60, 80)  # small pictures are not blown up
        assert len(item.neighbours) == (0 if _kept(number) else 4)
        assert all(neighbour.caption in {_true_caption(other) for other in range(200)} | {HOSTILE}
                   for neighbour in item.neighbours)  # fmt: skip


def test_copies_of_one_picture_do_not_fill_the_gallery(run: Path) -> None:
    caught = [item for item in load_report_data(run).gallery if item.kind == "caught"]
    assert len({item.picture for item in caught}) == len(caught)


def test_without_a_ledger_nobody_is_called_a_poison(run: Path) -> None:
    items = collect_gallery(run / "scan", _shards(run))
    assert {(item.kind, item.attack) for item in items} == {("quarantined", "")}
    assert len(items) == 18


def test_a_picture_that_cannot_be_decoded_leaves_its_pair_in_the_gallery(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "00000.tar") as writer:
        writer.add("0", image=b"not a picture", caption="line one\nline\u202e two", fields={"uid": _uid(7)})
    _write_scan(tmp_path / "scan")
    (item,) = collect_gallery(tmp_path / "scan", [tmp_path / "00000.tar"])
    assert (item.picture, item.caption) == (b"", "line one line two")
    assert "no picture" in render_page(ReportData(results=(), gallery=(item,)))


def test_large_pictures_become_small_ones_of_the_same_shape(tmp_path: Path) -> None:
    wide_HW3 = np.zeros((150, 300, 3), dtype=np.uint8)
    with ShardWriter(tmp_path / "00000.tar") as writer:
        writer.add("0", image=encode_jpeg(wide_HW3), caption="wide", fields={"uid": _uid(7)})
    _write_scan(tmp_path / "scan")
    (item,) = collect_gallery(tmp_path / "scan", [tmp_path / "00000.tar"])
    assert decode_image(item.picture).size == (96, 48)


def test_a_folder_without_verdicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no verdicts"):
        collect_gallery(tmp_path, [])


# Words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.934, "93.4 %"),
        (0.0004, "< 0.1 %"),
        (0.9999, "> 99.9 %"),
        (0.5, "50.0 %"),
    ],
)
def test_percent(share: float, said: str) -> None:
    assert words.percent(share).replace(words.NBSP, " ") == said


@given(st.floats(min_value=0, max_value=1))
def test_percent_never_claims_certainty(share: float) -> None:
    said = words.percent(share).replace(words.NBSP, " ")
    assert (said == "0 %") == (share == 0)
    assert (said == "100 %") == (share == 1)
    assert abs(float(said.strip("<> %")) - 100 * share) <= 0.1001


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (1.25, "1.2 s"), (59.6, "1 min 0 s"), (3_600, "1 h 0 min"), (7_510, "2 h 5 min")],
)
def test_duration(seconds: float | None, said: str) -> None:
    assert words.duration(seconds).replace(words.NBSP, " ") == said


def test_nested_settings_become_lines() -> None:
    assert list(words.plain_facts({"a": {"b": 1, "c": [1, 2]}, "d": "text", "size_bytes": 2**31})) == [
        ("a.b", "1"),
        ("a.c", "[1, 2]"),
        ("d", "text"),
        ("size", f"2.0{words.NBSP}GiB"),
    ]


def test_importing_the_report_draws_nothing() -> None:
    heavy = ["torch", "ray", "faiss", "matplotlib", "jinja2"]
    code = f"import sys, roclip_sanitize.report; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
