"""The page of a run: what it says, and what it must never do."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from roclip_sanitize.errors import DataError
from roclip_sanitize.report import collect_gallery, load_report_data, render_page, words, write_report
from roclip_sanitize.report.data import Manifest, Measure, ReportData, Result, Stage, summarise
from roclip_sanitize.report.funnel import funnel_rows
from roclip_sanitize.report.headline import headline
from roclip_sanitize.report.tables import attack_table, detection_table, usefulness_table
from tests.example_run import HOSTILE, MEASURED, Elements, dump, example_run, manifest, shards_of, text_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text("utf-8")


# One file, safe to open ----------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    elements = Elements(page)
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
    elements = Elements(page)
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
    ids = [attributes["id"] for _, attributes in Elements(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag in ("table", "section", "article", "svg", "details", "tr"):
        assert page.count(f"<{tag}") == page.count(f"</{tag}>")


def test_same_data_same_bytes(run: Path, tmp_path: Path) -> None:
    first = write_report(run, out=tmp_path / "a.html").read_bytes()
    assert first == write_report(run, out=tmp_path / "b.html").read_bytes()
    again = collect_gallery(run / "scan", shards_of(run), run)  # the folder of the ledger will do too
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
             (("undefended", 1.0), ("sanitised_consensus", 0.0004))],
            "The attacker got 100 % of pictures with the patch trigger and 100 % of pictures with the warp "
            "trigger from plain CLIP; after sanitising, < 0.1 % and < 0.1 %.",
        ),
        (
            [_success(arm, f"attack {number}", value + number / 10) for number in range(5) for arm, value in
             (("undefended", 0.5), ("sanitised_consensus", 0.0))],
            "The attacker got 50 % to 90 % with 5 attacks from plain CLIP; after sanitising, at most 40 %.",
        ),
        (
            [_success("undefended", attack, 0.5) for attack in ("many", "many/a", "many/b", "many/c")],
            "The attacker got 50 % of triggered pictures from plain CLIP.",
        ),
    ],
)  # fmt: skip
def test_the_sentence_fits_any_run(results: list[Result], sentence: str) -> None:
    assert headline(ReportData(results=tuple(results))).replace(words.NBSP, " ") == sentence


def test_every_measured_number_stands_in_a_table(page: str) -> None:
    text = text_of(page)
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
            "Sanitised + consensus",
        ]
        assert [row.colour for row in group.rows] == [0, 1, 2]


def test_what_nobody_foresaw_is_shown_too() -> None:
    results = (
        _success("undefended", "patch", 0.9),
        _success("tomorrows_defence", "tomorrows_attack", 0.125),
        Result(arm="tomorrows_defence", attack=None, metric="linear_probe", value=0.5),
        Result(arm="scan", attack="tomorrows_attack", metric="precision", value=0.25),
    )
    text = text_of(render_page(ReportData(results=results)))
    for wanted in ("Tomorrows attack", "Tomorrows defence", "linear probe", "12.5 %", "precision", "25.0 %"):
        assert wanted in text


def test_a_number_that_was_not_measured_is_a_dash() -> None:
    results = (
        _success("undefended", "patch", 0.9),
        _success("sanitised_consensus", "patch", math.nan),
        Result(arm="undefended", attack="patch", metric="clean_target_rate", value=0.1),
    )
    table = attack_table(ReportData(results=results))
    assert table is not None
    (group,) = table.groups
    assert [[cell.text.replace(words.NBSP, " ") for cell in row.cells] for row in group.rows] == [
        ["90.0 %", "10.0 %"],
        ["–", "–"],
    ]
    assert "nan" not in text_of(render_page(ReportData(results=results))).split("All 3 results")[0]


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
    assert "quarantined: neighbours disagree 2,713" in text_of(page)
    assert "unaccounted" not in page


def test_a_funnel_that_does_not_add_up_says_so() -> None:
    stage = Stage(name="scan", tally={"seen": 10, "kept": 5, "quarantined": {"odd": 2}, "failed": {}})
    assert funnel_rows([stage])[0].missing == 3
    text = text_of(render_page(ReportData(results=(), manifest=Manifest(stages=(stage,)))))
    assert "3 pairs are unaccounted for" in text


def test_a_void_run_says_so_first(run: Path) -> None:
    assert 'class="void"' not in render_page(load_report_data(run))
    void = ReportData(
        results=load_report_data(run).results, manifest=Manifest(void="the control reached only 61 %")
    )
    text = text_of(render_page(void))
    assert "This run proves nothing. The control reached only 61 %." in text
    assert text.index("proves nothing") < text.index("The attacker got")


def test_it_says_what_ran(page: str) -> None:
    text = text_of(page)
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
    whole = manifest()
    dump(tmp_path / "results.json", [])
    for absent in (*whole, None):
        dump(tmp_path / "manifest.json", {} if absent is None else {**whole, absent: None})
        assert "How it was made" in write_report(tmp_path).read_text("utf-8")


def test_results_of_an_older_run_may_lack_intervals(tmp_path: Path) -> None:
    dump(tmp_path / "results.json", [{"arm": "undefended", "metric": "zero_shot_top1", "value": 0.5}])
    assert "50.0 %" in text_of(write_report(tmp_path).read_text("utf-8"))


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
        dump(tmp_path / "results.json", [])
    if content is not None:
        dump(tmp_path / name, content)
    with pytest.raises(DataError, match=re.escape(complaint)):
        write_report(tmp_path)


def test_importing_the_report_draws_nothing() -> None:
    heavy = ["torch", "ray", "faiss", "matplotlib", "jinja2"]
    code = f"import sys, roclip_sanitize.report; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
