"""The guard of rare classes: what each may lose, against a slow reference, and in a whole scan."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.audit import AuditSettings, measure, write_audit
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of, write_json
from roclip_sanitize.scan import ScanSettings, read_scores, read_verdicts, scan_store
from roclip_sanitize.scan.long_tail import LEAST_PAIRS, Ends, Labels, guard_labels, labels_of
from roclip_sanitize.scan.one_pair import find_pair
from roclip_sanitize.scan.results import spared_pairs
from roclip_sanitize.scan.verdicts import Cut, find_cut
from roclip_sanitize.shards import Shard
from roclip_sanitize.verification import verify_folder
from tests.corpora import pair_members, uid, write_tar
from tests.stages import poisoned_scan


def ends_of(
    labels: Sequence[str | None],
    suspicion: Sequence[float],
    collided: Sequence[bool],
    *,
    allowed: int,
    times: float,
) -> Ends:
    """Cut and guard of some pairs."""
    suspicion_N, collided_N = np.array(suspicion, float), np.array(collided, bool)
    candidate_N = ~np.isnan(suspicion_N) & ~collided_N
    cut = find_cut(suspicion_N, candidate_N, allowed=allowed, uids_of=uids_of)
    joined = Labels.joined([labels[:2], labels[2:]])
    return guard_labels(joined, suspicion_N, candidate_N, collided_N, cut=cut, times=times, uids_of=uids_of)


def uids_of(rows: NDArray[np.int64]) -> list[str]:
    return [uid(row) for row in rows.tolist()]


def test_a_rare_class_loses_its_share_and_no_more() -> None:
    """Of 100 pairs 9 would go, 6 of 20 ties among them.

    Twice 9 % of 20 ties are 3. That leaves 6 of all pairs, twice whose share is 2 ties: 5 of all, and 2.
    """
    labels = ["tie"] * 20 + ["shoe"] * 75 + [None] * 5
    suspicion = [0.9, 0.5, 0.8, 0.6, 0.7, 0.55, *[0.1] * 14, 0.65, 0.6, *[0.1] * 73, 0.99, *[0.1] * 4]
    ends = ends_of(labels, suspicion, [False] * 100, allowed=9, times=2)
    assert ends.cut == Cut(suspicion=0.5, uid=uid(1))
    assert ends.of_label == {"tie": Cut(suspicion=0.8, uid=uid(2))}
    assert ends.spared == 4
    flagged_N = ends.flagged(np.array(suspicion), uids_of(np.arange(100)), labels)
    assert np.flatnonzero(flagged_N).tolist() == [0, 2, 20, 21, 95], (
        "nobody takes the place of the other ties"
    )
    assert ends.flagged(np.array(suspicion), uids_of(np.arange(100))).sum() == 9, "labels were not asked for"


def test_who_is_spared_with_a_namesake_is_counted() -> None:
    """Eight pairs of one name would go, four may: so none of them does."""
    suspicion_N = np.array([*[0.9] * 8, *[0.1] * 92])
    candidate_N, collided_N = suspicion_N > 0.5, np.zeros(100, np.bool_)
    names = ["a" if row < 8 else uid(row) for row in range(100)]

    def named(rows: NDArray[np.int64]) -> list[str]:
        return [names[row] for row in rows.tolist()]

    labels = Labels.joined([["tie"] * 50 + [None] * 50])
    cut = find_cut(suspicion_N, candidate_N, allowed=8, uids_of=named)
    ends = guard_labels(labels, suspicion_N, candidate_N, collided_N, cut=cut, times=1.0, uids_of=named)
    assert (ends.of_label, ends.spared) == ({"tie": Cut()}, 8)


def test_what_collides_counts_and_stays() -> None:
    """Three ties collide: more than three times the mean already, so that the budget takes none of them."""
    labels, suspicion = ["tie"] * 20 + ["shoe"] * 80, [0.9, 0.8, *[0.1] * 18, 0.7, *[0.1] * 79]
    collided = [False] * 2 + [True] * 3 + [False] * 95
    ends = ends_of(labels, suspicion, collided, allowed=3, times=3)
    assert ends.of_label == {"tie": Cut()}
    assert ends.spared == 2


@pytest.mark.parametrize("labels", [[None] * 30, [f"label {row % 2}" for row in range(30)]])
def test_labels_of_few_pairs_are_not_guarded(labels: list[str | None]) -> None:
    suspicion = [0.9, 0.1] * 15
    assert not ends_of(labels, suspicion, [False] * 30, allowed=15, times=0.1).of_label


PAIR = st.tuples(
    st.sampled_from([None, "shoe", "bag", "tie"]),
    st.sampled_from([0.1, 0.5, 0.8, 0.9, math.nan]),
    st.booleans(),
)


@given(st.lists(PAIR, min_size=1, max_size=60), st.integers(0, 20), st.sampled_from([0.2, 1.0, 3.0]))
def test_against_sparing_one_pair_after_the_other(
    pairs: list[tuple[str | None, float, bool]], allowed: int, times: float
) -> None:
    """Lists made four times as long, so that labels have enough pairs."""
    pairs = pairs * 4
    labels, suspicion, collided = (list(each) for each in zip(*pairs, strict=True))
    ends = ends_of(labels, suspicion, collided, allowed=allowed, times=times)
    ranked = [row for row in range(len(pairs)) if not collided[row] and not math.isnan(suspicion[row])]
    ranked.sort(key=lambda row: (-suspicion[row], uid(row)))
    taken = ranked[:allowed]
    while True:
        share = (len(taken) + sum(collided)) / len(pairs)
        over = []
        for label in {label for label in labels if label is not None and labels.count(label) >= LEAST_PAIRS}:
            mine = [row for row in taken if labels[row] == label]
            lost = len(mine) + sum(c for c, other in zip(collided, labels, strict=True) if other == label)
            if mine and lost > times * share * labels.count(label) + 1e-9:
                over.append(mine[-1])
        if not over:
            break
        taken = [row for row in taken if row not in over]
    flagged_N = ends.flagged(np.array(suspicion), uids_of(np.arange(len(pairs))), labels)
    assert {row for row in np.flatnonzero(flagged_N).tolist() if not collided[row]} == set(taken)
    assert ends.spared == len(ranked[:allowed]) - len(taken)


def test_labels_come_from_the_shard_in_the_order_asked(tmp_path: Path) -> None:
    told = [{"uid": uid(number), "kind": kind} for number, kind in enumerate(["a", None, 3, ["x"]])]
    members = [
        member
        for number, fields in enumerate(told)
        for member in pair_members(f"{number}", number, fields=fields)
    ]
    shard = write_tar(tmp_path / "0.tar", members)
    wanted = [uid(3), uid(0), uid(1), uid(9), uid(2)]
    assert labels_of(shard, wanted, "kind") == ["['x']", "a", None, None, "3"]


def test_copies_without_uids_have_labels_of_their_own(tmp_path: Path) -> None:
    kinds = ["a", None, "b"]
    members = [
        member
        for number, kind in enumerate(kinds)
        for member in pair_members(f"{number}", 0, fields={"kind": kind} if kind else {})
    ]
    shard = write_tar(tmp_path / "0.tar", members)
    with Shard(shard) as opened:
        uids = [pair.uid for pair in opened.pairs()]
    assert len(set(uids)) == 1
    assert labels_of(shard, uids, "kind") == kinds


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """squares/ … scan/, and guarded/: the same scan with a guard that binds."""
    root = tmp_path_factory.mktemp("run")
    poisoned_scan(root)
    scan_store(guarded(root), out=root / "guarded", executor=LocalExecutor())
    return root


def guarded(root: Path) -> ScanSettings:
    return ScanSettings(store=root / "store", index=root / "index", label="colour", times_per_label=0.5)


def test_a_guarded_scan_takes_the_worst_of_each_label(run: Path) -> None:
    scores, free = read_scores(run / "guarded"), read_verdicts(run / "scan")
    taken = ~read_verdicts(run / "guarded")["kept"]
    table = scores.with_columns(taken=taken, free=~free["kept"])
    assert table.filter(polars.col("taken") & ~polars.col("free")).is_empty()
    facts = StageFolder.open(run / "guarded", stage="scan").facts
    saved = int(table["free"].sum()) - int(table["taken"].sum())
    assert saved == facts["spared"] == spared_pairs(run / "guarded") > 0
    collided = (polars.col("captions_of_picture") >= 4) | (polars.col("pictures_of_caption") >= 8)
    assert table.filter(collided)["taken"].all(), "copies are counted, not ranked"
    for (_,), mine in table.group_by("label"):
        assert len(mine) >= LEAST_PAIRS
        most = 0.5 * float(table["taken"].mean()) * len(mine)  # type: ignore[arg-type]
        ranked = mine.filter(~collided).sort("suspicion", descending=True)
        lost = int(ranked["taken"].sum())
        assert lost == 0 or int(mine["taken"].sum()) <= most
        assert ranked["taken"][:lost].all(), "the most suspicious ones"


def test_a_spared_pair_says_what_saved_it(run: Path) -> None:
    saved = read_verdicts(run / "guarded")["kept"] & ~read_verdicts(run / "scan")["kept"]
    row = read_scores(run / "guarded").filter(saved).row(0, named=True)
    cut = read_json(run / "guarded" / "complete.json")["label_cuts"][row["label"]]
    assert cut["suspicion"] > 1, "nobody of this label used up its share"
    sentence = find_pair(run / "guarded", row["uid"]).sentence
    assert f"but the share of {row['label']!r} in the budget leaves room for no pair" in sentence
    kept = read_scores(run / "guarded").filter(read_verdicts(run / "scan")["kept"])["uid"][0]
    assert "share of" not in find_pair(run / "guarded", kept).sentence


def test_verify_and_audit_tell_of_it(run: Path) -> None:
    said = [str(check) for check in verify_folder(run / "guarded")]
    spared = spared_pairs(run / "guarded")
    assert any(f"{spared} pairs of " in line and "(colour) are spared, as counted" in line for line in said)
    told = measure(AuditSettings(scan=run / "guarded"))
    assert told["guard"]["spared"] == spared
    assert told["rules"]["guard"]
    write_audit(AuditSettings(scan=run / "guarded"), out=run / "audit")
    assert f"{spared} suspicious pairs were spared" in (run / "audit" / "audit.html").read_text()
    assert "guard" not in measure(AuditSettings(scan=run / "scan"))


def test_verify_finds_another_label(run: Path, tmp_path: Path) -> None:
    """Whoever gives spared pairs another label, hash and all, is told on."""
    scan_store(guarded(run), out=tmp_path / "scan", executor=LocalExecutor())
    folder = StageFolder(tmp_path / "scan")
    name = folder.markers()[0].name
    path = tmp_path / "scan" / "scores" / f"scores_{name}.parquet"
    polars.read_parquet(path).with_columns(label=polars.lit("none of them")).write_parquet(path)
    marker = read_json(tmp_path / "scan" / "done" / f"{name}.json")
    marker["files"] = {
        file: sha256_of(path) if file.endswith(path.name) else told for file, told in marker["files"].items()
    }
    write_json(tmp_path / "scan" / "done" / f"{name}.json", marker)
    with pytest.raises(MismatchError, match=r"labels \(colour\) as in .*00000.tar: found False, wanted True"):
        list(verify_folder(tmp_path / "scan"))
    shards = (run / "poison" / "shards").rename(tmp_path / "gone")
    try:
        with pytest.raises(MismatchError, match="but its scores make it"):
            list(verify_folder(tmp_path / "scan"))
    finally:
        shards.rename(run / "poison" / "shards")


def test_verify_finds_another_end_of_a_label(run: Path, tmp_path: Path) -> None:
    path = shutil.copytree(run / "guarded", tmp_path / "scan") / "complete.json"
    told = read_json(path)
    name, cut = next(iter(told["label_cuts"].items()))
    cut["suspicion"] -= 0.1
    write_json(path, told)
    with pytest.raises(MismatchError, match=rf"suspicion of the cut of label '{name}': found 0\.\d+, wanted"):
        list(verify_folder(tmp_path / "scan"))


def test_a_scan_without_labels_is_the_scan_it_was(run: Path) -> None:
    told = ScanSettings(store=run / "store", index=run / "index").to_json()
    assert "label" not in told
    assert "times_per_label" not in told
    assert "label" not in read_scores(run / "scan").columns
    assert "label_cuts" not in StageFolder.open(run / "scan", stage="scan").facts


def test_a_field_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    settings = replace(guarded(run), label="taste")
    with pytest.raises(DataError, match="no pair of the 2 shards has a field 'taste'"):
        scan_store(settings, out=tmp_path / "scan", executor=LocalExecutor())
    with pytest.raises(
        DataError, match="has a field 'smell'"
    ):  # the folder is free for the one that is meant
        scan_store(replace(settings, label="smell"), out=tmp_path / "scan", executor=LocalExecutor())
    with pytest.raises(ConfigError, match="times-per-label is 0, wanted more than 0"):
        replace(guarded(run), times_per_label=0)
