"""Audits: numbers counted by hand, a page that hides nothing, and what tampering with either leads to."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import polars
import pytest

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.audit import AuditSettings, measure, seal_of_audit, write_audit
from roclip_sanitize.audit.clusters import worst_clusters, worst_traces
from roclip_sanitize.audit.page import render_audit
from roclip_sanitize.audit.tables import Removed
from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.report.data import GalleryItem
from roclip_sanitize.report.loading import gallery_to_json
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of, write_json
from roclip_sanitize.scan import read_verdicts
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.verification import verify_folder
from tests.commands import Roclip
from tests.squares import colour_of, draw_square, uid_of, write_squares
from tests.stages import poisoned_scan, scan_again, scan_of

FACTS = {
    "pairs": {"seen": 10, "kept": 7, "quarantined": {"neighbours_disagree": 2}, "failed": {"no_image": 1}},
    "reasons": {"neighbours_disagree": 2},
    "budget": 0.2,
    "detectors": ["agreement"],
    "words": {
        "mean_share": 0.2,
        "counted": 1,
        "least_pairs": 20,
        "above_3_times_the_mean": 0,
        "largest": [{"name": "<b>shoe</b>", "pairs": 40, "removed": 10}],
    },
    "clusters": {
        "least_pairs": 4,
        "one_picture": {
            "clusters": 1,
            "largest": [
                {
                    "picture": {"uid": "1" * 32, "part": "00000"},
                    "removed": 9,
                    "kept": 1,
                    "different_captions": 8,
                    "captions": ["<img src=x>"],
                }
            ],
        },
        "one_caption": {
            "clusters": 1,
            "largest": [
                {
                    "caption": "<i>hat</i>",
                    "removed": 5,
                    "different_pictures": 5,
                    "pictures": [{"uid": "2" * 32, "part": "00000"}],
                }
            ],
        },
    },
    "sources": {"scan": {"path": "runs/scan", "seal": "5ea1"}},
    "rules": {"pairs": {"files": "verdicts/*.parquet", "columns": "kept", "rule": "counted"}},
}


def test_shares_are_of_names_that_enough_pairs_have() -> None:
    removed = Removed()
    removed.count([(["shoe", "shoe", "red"], number >= 5) for number in range(20)])
    removed.count([(["bag"], False)] * 19 + [([], True)] * 61)
    told = removed.to_json()
    assert told["mean_share"] == 0.24
    assert told["counted"] == 2, "19 bags are too few"
    assert told["largest"] == [{"name": name, "pairs": 20, "removed": 5} for name in ("red", "shoe")]
    assert told["above_3_times_the_mean"] == 0


def test_a_name_on_the_page_is_no_longer_than_a_page_is_wide() -> None:
    removed = Removed()
    removed.count([(["x" * 10_000], False)] * 20)
    assert removed.to_json()["largest"][0]["name"] == "x" * 239 + "…"


def test_a_page_says_what_became_of_all_and_escapes_strangers() -> None:
    item = GalleryItem(
        uid="0" * 32,
        kind="quarantined",
        attack="",
        reasons=("neighbours_disagree",),
        sentence="none of them",
        caption="<script>alert(1)</script>",
        picture=b"",
    )
    shown = {"gallery": gallery_to_json([item]), "pictures": {"2" * 32: base64.b64encode(b"jpeg").decode()}}
    page = render_audit({**FACTS, "shown": shown}, digest="abc")
    assert "20.0\u00a0% of 10 pairs were set aside" in page
    assert "10 seen = 7 kept + 2 set aside with a reason + 1 that could not be used" in page
    assert "<script>" not in page
    assert "<b>shoe" not in page
    assert "&lt;b&gt;shoe" in page
    assert "1.2 ×" in page
    assert "One picture, 8 captions" in page
    assert "9 pairs set aside, 1 kept. Captions, 1 of them:" in page
    assert "<img src=x>" not in page
    assert "<i>hat" not in page
    assert page.count("data:image/jpeg;base64,anBlZw==") == 1
    assert "AML.T0020" in page
    assert "MEASURE 2.7" in page
    assert "What was found of what was planted" not in page, "nobody knows without a ledger"
    assert "nothing known was planted" in page


def test_the_most_missed_attack_comes_first_with_how_its_poisons_rank() -> None:
    attack = {"n": 10, "low": 0.5, "high": 0.9}
    told = {
        "attacks": {
            "patch": {**attack, "hits": 9, "auroc": {"agreement": 0.875, "cross_prediction": 0.75}},
            "wanet": {**attack, "hits": 5, "auroc": {"fused": 0.9, "cross_prediction": 0.75}},
        },
        "planted": {**attack, "n": 20, "hits": 14},
        "clean_lost": {**attack, "hits": 0},
        "covers": {"n": 3, "kept": 2},
    }
    page = render_audit({**FACTS, **told, "shown": {"gallery": [], "pictures": {}}}, digest="abc")
    assert page.index("wanet</th>") < page.index("patch</th>")
    assert "0.900; 0.750 by cross prediction alone" in page
    assert "0.875 by agreement alone" in page
    assert "6 pairs were kept: 5 of wanet, 1 of patch. Of 3 cover samples" in page


def test_clusters_are_counted_by_picture_and_by_caption() -> None:
    def frame(first: int, hashes: str, captions: list[str], kept: list[bool]) -> polars.DataFrame:
        uids = [f"{first + place:032x}" for place in range(len(hashes))]
        return polars.DataFrame(
            {"uid": uids, "image_hash": list(hashes), "caption": captions, "kept": kept},
        )

    parts = [
        ("00000", frame(0, "aaab", ["Hat", "hat ", "a bag", "hat"], [False] * 4)),
        ("00001", frame(4, "aacd", ["one\n\x1bshoe", "kept", "HAT", "kept"], [False, True, False, True])),
    ]
    found = worst_clusters(lambda: parts)
    assert found["one_picture"] == {
        "clusters": 1,
        "largest": [
            {
                "picture": {"uid": "0" * 32, "part": "00000"},
                "removed": 4,
                "kept": 1,
                "different_captions": 3,
                "captions": ["Hat", "a bag", "one shoe"],
            }
        ],
    }
    (cluster,) = found["one_caption"]["largest"]
    assert (cluster["caption"], cluster["removed"], cluster["different_pictures"]) == ("Hat", 4, 3)
    assert [each["uid"] for each in cluster["pictures"]] == [f"{row:032x}" for row in (0, 3, 6)]


def test_traces_are_counted_by_word() -> None:
    reason = "trace_of_mismatched_pairs"
    frame = polars.DataFrame(
        {
            "uid": [f"{row:032x}" for row in range(6)],
            "image_hash": list("aabcde"),
            "caption": ["a bag"] * 6,
            "kept": [False, False, False, False, True, False],
            "reasons": [reason, f"neighbours_disagree;{reason}", reason, "neighbours_disagree", "", reason],
            "trace_word": ["bag", "bag", "bag", "bag", "bag", "hat"],
        }
    )
    found = worst_traces([("00000", frame)])
    assert found["words"] == 2
    bag, hat = found["largest"]
    assert (bag["word"], bag["removed"], hat["word"], hat["removed"]) == ("bag", 3, "hat", 1)
    assert [each["uid"][-1] for each in bag["pictures"]] == ["0", "2"], "each picture once"


def test_a_page_tells_what_became_of_all_as_rewritten() -> None:
    rewritten = {
        "seen": 10,
        "kept": 5,
        "quarantined": {"neighbours_disagree": 3, "listed": 1},
        "failed": {"no_image": 1},
        "beside_the_scan": 2,
    }
    page = render_audit(
        {**FACTS, "rewritten": rewritten, "shown": {"gallery": [], "pictures": {}}}, digest=""
    )
    assert "40.0\u00a0% of 10 pairs were set aside" in page
    assert (
        "10 seen = 5 kept + 4 set aside with a reason + 1 that could not be used, as the shards were" in page
    )
    assert "2 pairs that the scan keeps were set aside" in page
    assert page.index("As scanned.") < page.index("As rewritten.")


@pytest.mark.slow
def test_a_uid_that_two_shards_have_is_counted_as_it_was_rewritten(tmp_path: Path) -> None:
    """Sixty squares come twice, each under its uid, four of the second time with a wrong caption."""
    shards = (write_squares(tmp_path / "00000.tar", pairs=60), tmp_path / "00001.tar")
    with ShardWriter(shards[1]) as writer:
        for number in range(60):
            colour = colour_of(number + (number < 4))
            picture = encode_jpeg(draw_square(1_000 + number))
            writer.add(
                f"{number:06d}", image=picture, caption=f"{colour} square", fields={"uid": uid_of(number)}
            )
    scan_of(shards, tmp_path)
    told = RewriteSettings(store=tmp_path / "store", verdicts=tmp_path / "scan")
    tally = rewrite_shards(told, out=tmp_path / "rewrite", executor=LocalExecutor())
    audit = AuditSettings(scan=tmp_path / "scan", rewritten=tmp_path / "rewrite")
    facts, verdicts = measure(audit), read_verdicts(tmp_path / "scan")
    flagged = set(verdicts.filter(~verdicts["kept"])["uid"])
    alone = verdicts.filter(verdicts["kept"] & verdicts["uid"].is_in(list(flagged)))
    assert len(alone)
    assert facts["rewritten"]["beside_the_scan"] == len(alone)
    assert facts["rewritten"]["kept"] == tally.kept == facts["pairs"]["kept"] - len(alone)
    assert facts["rewritten"]["quarantined"] == dict(tally.quarantined)
    write_audit(audit, out=tmp_path / "audit")
    assert list(verify_folder(tmp_path))


@pytest.mark.slow
class TestOfAScan:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """poison, store, index, scan and rewrite of some squares."""
        root = tmp_path_factory.mktemp("audit")
        poisoned_scan(root)
        told = RewriteSettings(store=root / "store", verdicts=root / "scan")
        rewrite_shards(told, out=root / "rewrite", executor=LocalExecutor())
        write_audit(self.settings(root), out=root / "audit")
        return root

    def settings(self, run: Path) -> AuditSettings:
        return AuditSettings(scan=run / "scan", rewritten=run / "rewrite", ledger=run / "poison")

    def test_numbers_are_those_of_the_tables(self, run: Path) -> None:
        facts, verdicts = read_json(run / "audit" / "audit.json"), read_verdicts(run / "scan")
        assert facts["pairs"]["seen"] == len(verdicts)
        assert facts["pairs"]["kept"] == verdicts["kept"].sum()
        poisons = Ledger.open(run / "poison").poisons
        for attack, told in facts["attacks"].items():
            mine = verdicts.filter(
                polars.col("uid").is_in([uid for uid in poisons if poisons[uid] == attack])
            )
            assert (told["n"], told["hits"]) == (len(mine), (~mine["kept"]).sum())
            assert told["low"] <= told["hits"] / told["n"] <= told["high"]
        clean = verdicts.filter(~polars.col("uid").is_in(list(poisons)))
        lost = facts["clean_lost"]
        assert (lost["n"], lost["hits"]) == (len(clean), (~clean["kept"]).sum())

    def test_the_ledger_of_other_shards_is_refused(self, run: Path, tmp_path: Path) -> None:
        scan_of(tuple(sorted((run / "squares").glob("*.tar"))), tmp_path)
        told = AuditSettings(scan=tmp_path / "scan", ledger=run / "poison")
        with pytest.raises(MismatchError, match="planted in shard 00000 not as they were planted"):
            write_audit(told, out=tmp_path / "audit")

    def test_it_can_be_verified(self, run: Path) -> None:
        (line,) = [check.what for check in verify_folder(run / "audit") if "measured again" in check.what]
        assert re.fullmatch(r"\d+ numbers are what ledger, rewritten, scan give when measured again", line)

    def test_the_page_is_made_of_the_numbers(self, run: Path) -> None:
        page = (run / "audit" / "audit.html").read_text("utf-8")
        facts = read_json(run / "audit" / "audit.json")
        assert sha256_of(run / "audit" / "audit.json") in page
        assert f"{facts['pairs']['kept']:,} kept" in page

    def test_a_number_that_was_changed_is_named(self, run: Path, tmp_path: Path) -> None:
        write_audit(self.settings(run), out=tmp_path / "audit")
        path = tmp_path / "audit" / "audit.json"
        facts = read_json(path)
        facts["pairs"]["kept"] += 1
        write_json(path, facts)
        with pytest.raises(MismatchError, match=r"audit.json has changed since it was written"):
            list(verify_folder(tmp_path / "audit"))
        folder = StageFolder(tmp_path / "audit")
        folder.commit("audit", files=[path, tmp_path / "audit" / "audit.html"], facts={})
        with pytest.raises(MismatchError, match=r"complete.json: seal: found \w{64}, wanted \w{64}"):
            list(verify_folder(tmp_path / "audit"))
        folder.finish({"seal": seal_of_audit(tmp_path / "audit")})  # who changes one thing changes all
        with pytest.raises(MismatchError, match=r"audit.json: pairs.kept: found \d+, wanted \d+"):
            list(verify_folder(tmp_path / "audit"))

    def test_a_page_that_says_something_else_than_its_numbers_is_found(
        self, run: Path, tmp_path: Path
    ) -> None:
        write_audit(self.settings(run), out=tmp_path / "audit")
        numbers, page = (tmp_path / "audit" / name for name in ("audit.json", "audit.html"))
        page.write_text(page.read_text("utf-8").replace("were set aside", "were lost"), "utf-8")
        folder = StageFolder(tmp_path / "audit")
        folder.commit("audit", files=[numbers, page], facts={})
        folder.finish({"seal": seal_of_audit(tmp_path / "audit")})
        with pytest.raises(MismatchError, match=r"audit.html is not the page that audit.json makes"):
            list(verify_folder(tmp_path / "audit"))

    def test_what_belongs_to_another_scan_is_refused(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "scan").symlink_to(run / "scan")
        assert measure(AuditSettings(scan=tmp_path / "scan", rewritten=run / "rewrite"))["pairs"]["seen"]
        scan_again(run, tmp_path / "other")
        with pytest.raises(
            MismatchError, match=r"was made of .*scan with content \w{16}, but .*other has \w{16}"
        ):
            measure(AuditSettings(scan=tmp_path / "other", rewritten=run / "rewrite"))

    def test_the_command(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = Roclip(capsys)("audit", "--scan", run / "scan", "--out", tmp_path / "audit")
        assert said.code == 0
        assert f"seal               {seal_of_audit(tmp_path / 'audit')}" in said.out

    def test_the_seal_covers_the_page(self, run: Path, tmp_path: Path) -> None:
        seal = write_audit(self.settings(run), out=tmp_path / "audit")
        page = tmp_path / "audit" / "audit.html"
        page.write_text(page.read_text("utf-8").replace("were set aside", "were lost"), "utf-8")
        StageFolder(tmp_path / "audit").commit(
            "audit", files=[tmp_path / "audit" / "audit.json", page], facts={}
        )
        assert seal_of_audit(tmp_path / "audit") != seal

    def test_what_each_class_lost(self, run: Path) -> None:
        labels = measure(AuditSettings(scan=run / "scan", label="colour"))["labels"]
        verdicts = read_verdicts(run / "scan")
        assert labels["mean_share"] == round((~verdicts["kept"]).sum() / len(verdicts), 6)
        assert sum(each["pairs"] for each in labels["largest"]) == len(verdicts)
        assert sum(each["removed"] for each in labels["largest"]) == (~verdicts["kept"]).sum()
        with pytest.raises(DataError, match="no pair of the 2 shards has a field 'size' to audit by"):
            measure(AuditSettings(scan=run / "scan", label="size"))

    def test_all_numbers_have_a_rule(self, run: Path) -> None:
        facts = read_json(run / "audit" / "audit.json")
        groups = {
            "pairs",
            "rewritten",
            "reasons",
            "words",
            "domains",
            "clusters",
            "traces",
            "attacks",
            "estimate",
        }
        assert set(facts["rules"]) == groups
        others = {"budget", "detectors", "sources", "rules", "shown", "planted", "clean_lost", "covers"}
        assert set(facts) == groups | others
