"""Tallies add up, in any order, and nothing disappears."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize import errors
from roclip_sanitize.errors import RoclipError
from roclip_sanitize.records import FailureReason, Reason, Tally, Verdict

tallies = st.builds(
    Tally,
    seen=st.integers(0, 1_000),
    quarantined=st.dictionaries(st.sampled_from(list(Reason)), st.integers(1, 9)).map(Counter),
    failed=st.dictionaries(st.sampled_from(list(FailureReason)), st.integers(1, 9)).map(Counter),
    seconds=st.integers(0, 99).map(float),
)


def test_what_is_neither_quarantined_nor_failed_is_kept() -> None:
    tally = Tally(
        seen=10,
        quarantined=Counter({Reason.NEIGHBOURS_DISAGREE: 2, Reason.MANY_PICTURES_ONE_CAPTION: 1}),
        failed=Counter({FailureReason.NO_IMAGE: 3}),
    )
    assert tally.kept == 4
    assert tally.to_json()["kept"] == 4


@given(st.lists(tallies, max_size=3))
def test_order_does_not_matter(parts: list[Tally]) -> None:
    totals = [Tally.total(order) for order in itertools.permutations(parts)]
    assert all(total == totals[0] for total in totals)
    assert totals[0].seen == sum(part.seen for part in parts)
    assert totals[0].kept == sum(part.kept for part in parts)


def test_no_shards_are_an_empty_tally() -> None:
    assert Tally.total([]) == Tally()
    assert Tally().kept == 0


@given(tallies)
def test_a_tally_survives_json(tally: Tally) -> None:
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_a_verdict_keeps_what_nothing_speaks_against() -> None:
    assert Verdict(uid="0" * 32).kept
    assert not Verdict(uid="0" * 32, reasons=(Reason.NEIGHBOURS_DISAGREE,)).kept


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 1),
        ("ShardMissing", 1),
        ("MismatchError", 4),
        ("StorageError", 1),
        ("VoidResult", 1),
        ("WorkerLost", 1),
        ("Stopped", 130),
        ("Terminated", 143),
    ],
)
def test_each_error_has_its_exit_code(name: str, code: int) -> None:
    kind: type[RoclipError] = getattr(errors, name)
    assert issubclass(kind, RoclipError)
    assert kind.exit_code == code
