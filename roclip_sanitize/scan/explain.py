"""Verdicts in words: one sentence for people about a pair. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import caption_words, normalise_caption
from roclip_sanitize.records import Reason, Verdict
from roclip_sanitize.scan.columns import word_of
from roclip_sanitize.scan.kin import LEAST_SHARE

WORDS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WordFacts:
    """What is known of words.

    Attributes:
        frequency: share of all captions that use one.
        lift: how much oftener than others the pairs that use one do not match.
    """

    frequency: Callable[[str], float]
    lift: Callable[[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyFacts:
    """What is known of those that a pair is suspected with.

    Attributes:
        trace_word: the number of the word whose trace the picture carries, -1 for none's.
        carriers: pairs that carry it, this one among them.
        share_K: of each of its kin, the share of all pairs that match no better, NaN for none; see kin.py.
    """

    trace_word: int
    carriers: int
    share_K: NDArray[np.floating]


def explain(
    verdict: Verdict,
    *,
    caption: str,
    neighbour_captions: Sequence[str],
    counts: tuple[int, int],
    ranks: tuple[float, float],
    words: WordFacts,
    company: CompanyFacts,
) -> str:
    """Why a pair was set aside.

    Args:
        verdict: with at least one reason.
        caption: the pair's.
        neighbour_captions: of the pictures most like its own.
        counts: different captions of this picture, and near-identical pictures with this caption.
        ranks: share of other captions that tell less of this picture than its own, and of other pictures that
            tell less of this caption, 0 to 1; those that tell as much count half.
        words: what is known of them.
        company: what is known of those that it is suspected with.

    Returns:
        One sentence per reason, the first letter small, joined by semicolons; no full stop.
    """
    captions_of_picture, pictures_of_caption = counts
    sentences = {
        Reason.MANY_CAPTIONS_ONE_PICTURE: lambda: (
            f"this picture, near-copies included, appears with {captions_of_picture} different captions"
        ),
        Reason.MANY_PICTURES_ONE_CAPTION: lambda: (
            f"this caption stands under {pictures_of_caption} near-identical pictures"
        ),
        Reason.PICTURE_AND_CAPTION_DISAGREE: lambda: mismatch(ranks, neighbour_captions, words.frequency),
        Reason.CAPTION_REPEATED: lambda: repeated(caption, neighbour_captions),
        Reason.NEIGHBOURS_DISAGREE: lambda: disagreement(caption, neighbour_captions, words.frequency),
        Reason.TRACE_OF_MISMATCHED_PAIRS: lambda: traced(caption, company),
        Reason.KIN_OF_MISMATCHED_PAIRS: lambda: mismatched_kin(company.share_K),
        Reason.WORD_OF_MISMATCHED_PAIRS: lambda: worst_word(caption, words.lift),
    }
    return "; ".join(sentences[reason]() for reason in verdict.reasons)


def why_kept(suspects: Sequence[str], *, budget: float, label: str = "", room: bool = True) -> str:
    """Why a pair was not set aside.

    Args:
        suspects: the detectors that suspect it, though.
        budget: share of all pairs that they may set aside.
        label: the pair's, where that alone saved it.
        room: whether they may set aside any pair, of that label if it is told.
    """
    if not suspects:
        return "no detector suspects it"
    names = " and ".join(name.replace("_", " ") for name in suspects)
    verb = "suspects" if len(suspects) == 1 else "suspect"
    bound = f"the share of {label!r} in the budget" if label else f"the budget of {budget:.1%}"
    why = f"less than those pairs that used up {bound}" if room else f"{bound} leaves room for no pair"
    return f"{names} {verb} it, but {why}"


def mismatch(
    ranks: tuple[float, float], neighbour_captions: Sequence[str], frequency: Callable[[str], float]
) -> str:
    """Which half tells little of the other, and what the neighbours say."""
    by_caption, by_picture = ranks
    share = f"{100 * (1 - min(ranks)):.0f} %"
    if by_caption <= by_picture:
        subject = f"{share} of other captions, ties counted half, tell more of this picture than its own does"
    else:
        subject = f"{share} of other pictures, ties counted half, tell more of this caption than its own does"
    told = telling_words([set(caption_words(other)) for other in neighbour_captions], frequency)
    return subject + (f"; the pictures most like this one say {', '.join(told)}" if told else "")


def repeated(caption: str, neighbour_captions: Sequence[str]) -> str:
    """How many of its neighbours say the same."""
    own = normalise_caption(caption)
    same = sum(normalise_caption(other) == own for other in neighbour_captions)
    return f"{same} of the {len(neighbour_captions)} pictures most like this one have exactly its caption"


def worst_word(caption: str, lift: Callable[[str], float]) -> str:
    """Which of its words stands for pairs that do not match."""
    lifts = {word: lift(word) for word in sorted(set(caption_words(caption)))}
    word = max(lifts, key=lambda word: lifts[word])
    return f"pairs that say '{word}' fail to match {lifts[word]:.0f} times as often as others"


def traced(caption: str, company: CompanyFacts) -> str:
    """With whom its picture has something in common."""
    if company.trace_word < 0:
        return "its picture carries what mismatched pairs have in common"
    return (
        f"its picture has in common with {company.carriers - 1} other suspected pairs that say "
        f"'{word_of(caption, company.trace_word)}' what others that say so lack"
    )


def mismatched_kin(share_K: NDArray[np.floating]) -> str:
    """How its kin fare: by the mean of the surprises that their excess is made of."""
    known_K = share_K[~np.isnan(share_K)]
    share = math.exp(float(np.log(np.maximum(known_K, LEAST_SHARE)).mean()))
    return (
        f"the {len(known_K)} pictures that are much like its own are in pairs that match worse than "
        f"{1 - share:.1%} of all, by their geometric mean"
    )


def disagreement(caption: str, neighbour_captions: Sequence[str], frequency: Callable[[str], float]) -> str:
    """What the neighbours say instead."""
    own = set(caption_words(caption))
    theirs = [set(caption_words(other)) for other in neighbour_captions]
    sharing = sum(bool(own & words) for words in theirs)
    pictures = f"the {len(theirs)} pictures most like this one"
    if sharing:
        verb = "has" if sharing == 1 else "have"
        subject = f"{sharing} of {pictures} {verb} a caption that shares a word with it"
    else:
        subject = f"none of {pictures} has a caption that shares a word with it"
    told = telling_words(theirs, frequency)
    return subject + (f"; they say {', '.join(told)}" if told else "")


def telling_words(captions: Sequence[set[str]], frequency: Callable[[str], float]) -> list[str]:
    """The words that set these captions apart from all others, with how many of them use each, most first."""
    counts = Counter(word for words in captions for word in words)

    def tells(word: str) -> tuple[float, str]:
        lift = counts[word] / len(captions) / max(frequency(word), 1e-9)
        return -counts[word] * math.log(lift), word

    shared = [word for word in counts if counts[word] > 1]
    chosen = sorted(shared, key=tells)[:WORDS_SHOWN]
    return [f"'{word}' ({counts[word]})" for word in sorted(chosen, key=lambda word: -counts[word])]
