"""Sentences for people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from roclip_sanitize.records import Reason, Verdict
from roclip_sanitize.scan.columns import word_number
from roclip_sanitize.scan.explain import (
    CompanyFacts,
    WordFacts,
    disagreement,
    explain,
    mismatch,
    mismatched_kin,
    traced,
)
from roclip_sanitize.scan.kin import excess
from roclip_sanitize.scan.verdicts import TELLING_KIN

FREQUENCY = {"black": 0.3, "for": 0.5, "women": 0.4, "handbag": 0.02, "leather": 0.05}


def frequency(word: str) -> float:
    return FREQUENCY.get(word, 0.01)


def test_nobody_shares_a_word() -> None:
    captions = ["Black Handbag for women"] * 3 + ["Leather handbag for women"] * 2
    told = disagreement("Casio watch", captions, frequency)
    assert told == (
        "none of the 5 pictures most like this one has a caption that shares a word with it; "
        "they say 'handbag' (5), 'women' (5), 'leather' (2)"
    )


def test_one_shares_a_word() -> None:
    told = disagreement("black watch", ["black handbag", "red handbag"], frequency)
    assert told.startswith(
        "1 of the 2 pictures most like this one has a caption that shares a word with it; "
    )


def test_neighbours_that_agree_on_nothing_say_nothing() -> None:
    assert "they say" not in disagreement("watch", ["handbag", "leather"], frequency)


def test_the_half_that_tells_less_is_named() -> None:
    told = mismatch((0.9, 0.125), [], frequency)
    assert told == "88 % of other pictures, ties counted half, tell more of this caption than its own does"


def test_each_reason_has_its_sentence() -> None:
    told = explain(
        Verdict(
            uid="0" * 32,
            reasons=(*tuple(Reason)[:4], Reason.WORD_OF_MISMATCHED_PAIRS, Reason.KIN_OF_MISMATCHED_PAIRS),
        ),
        caption="watch strap",
        neighbour_captions=["red bag", "red bag"],
        counts=(30, 12),
        ranks=(0.25, 0.4),
        words=WordFacts(frequency=frequency, lift=lambda word: 7.6 if word == "strap" else 1.0),
        company=CompanyFacts(trace_word=-1, carriers=1, share_K=np.array([0.02, 0.09, 0.5, np.nan])),
    )
    assert told.split("; ") == [
        "none of the 2 pictures most like this one has a caption that shares a word with it",
        "they say 'bag' (2), 'red' (2)",
        "75 % of other captions, ties counted half, tell more of this picture than its own does",
        "the pictures most like this one say 'bag' (2), 'red' (2)",
        "this picture, near-copies included, appears with 30 different captions",
        "this caption stands under 12 near-identical pictures",
        "pairs that say 'strap' fail to match 8 times as often as others",
        "the 3 pictures that are much like its own are in pairs that match worse than 90.3% of all, by their "
        "geometric mean",
    ]


def test_a_trace_names_the_word_and_both_sides() -> None:
    company = CompanyFacts(trace_word=word_number("strap"), carriers=85, share_K=np.zeros(0))
    alike = "its picture has in common with 84 other suspected pairs that say 'strap'"
    assert traced("Watch strap", company) == f"{alike} what others that say so lack"
    nobody = replace(company, trace_word=-1)
    assert traced("Watch strap", nobody) == "its picture carries what mismatched pairs have in common"


def test_kin_that_flag_a_pair_are_said_to_match_badly() -> None:
    """None of these is among the worst tenth, but all are among the worst eighth."""
    share_K = np.append(np.full(32, 0.12), np.nan)
    assert excess(share_K[None], np.ones((1, 33), np.bool_))[0] >= TELLING_KIN
    told = mismatched_kin(share_K)
    assert told == (
        "the 32 pictures that are much like its own are in pairs that match worse than 88.0% of all, by "
        "their geometric mean"
    )
    assert "worse than 99.9% of all" in mismatched_kin(np.zeros(2)), "one in a thousand at the most"
