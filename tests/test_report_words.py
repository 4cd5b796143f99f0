"""Numbers in words: shares that never claim certainty, durations, settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.report import words


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
