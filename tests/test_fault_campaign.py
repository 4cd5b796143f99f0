"""The campaign of kills: it goes on where it was, and a byte that differs is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fault_campaign
from benchmarks.fault_campaign import run_campaign
from benchmarks.same_bytes import tree


@pytest.mark.slow
def test_a_campaign_goes_on_where_it_was_and_sees_a_byte_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_campaign, "COMMANDS", {"poison": fault_campaign.COMMANDS["poison"]})
    (claim,) = run_campaign(1, scratch=tmp_path, seed=0)
    assert (claim.value, claim.holds) == (1, True)
    ledger = tmp_path / "undisturbed" / "poison" / "ledger.json"
    ledger.write_text(ledger.read_text() + " ")
    first = (tmp_path / "campaign.jsonl").read_text()
    (claim,) = run_campaign(2, scratch=tmp_path, seed=0)
    assert (claim.value, claim.target, claim.holds) == (1, "2", False)
    both = (tmp_path / "campaign.jsonl").read_text()
    assert both.startswith(first)
    assert '"differing": ["ledger.json"]' in both.removeprefix(first)


def test_times_alone_are_no_difference(tmp_path: Path) -> None:
    for name, seconds in (("a", 1), ("b", 2)):
        (tmp_path / name / "done").mkdir(parents=True)
        (tmp_path / name / "done" / "00000.json").write_text(f'{{"rows": 5, "seconds": {seconds}}}')
        (tmp_path / name / "log.jsonl").write_text(f'{{"step": 1, "seconds": {seconds}}}\n')
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    (tmp_path / "b" / "log.jsonl").write_text('{"step": 2, "seconds": 2}\n')
    assert tree(tmp_path / "a") != tree(tmp_path / "b")
