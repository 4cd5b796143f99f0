"""The values that flow through a run, in the order in which they appear.

    shard ─▶ Pair ─▶ (vectors) ─▶ Verdict ─▶ kept / quarantined
               └▶ Failure                 counted by Tally: seen = kept + quarantined + failed

All are frozen. A pair is named by its ``uid`` (128 bits, 32 hex digits), never by its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from roclip_sanitize.errors import BadPair
from roclip_sanitize.told import as_written

UID_DIGITS = 32
UID = re.compile(f"[0-9a-f]{{{UID_DIGITS}}}")


def is_uid(value: object) -> bool:
    """Whether ``value`` can name a pair: 32 lower-case hex digits."""
    return isinstance(value, str) and UID.fullmatch(value) is not None


class FailureReason(StrEnum):
    """Why a pair could not be used at all. The words appear in reports."""

    UNREADABLE_SHARD = "unreadable_shard"
    TRUNCATED_SHARD = "truncated_shard"
    DUPLICATE_KEY = "duplicate_key"
    NO_IMAGE = "no_image"
    NO_CAPTION = "no_caption"
    BAD_JSON = "bad_json"
    EMPTY_CAPTION = "empty_caption"
    CAPTION_NOT_UTF8 = "caption_not_utf8"
    CAPTION_TOO_LONG = "caption_too_long"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_UNDECODABLE = "image_undecodable"
    NO_EMBEDDING = "no_embedding"


class Reason(StrEnum):
    """Why a pair was quarantined. The words appear in reports and folder names.

    Scans give all but ``listed`` and ``not_listed``: these come from lists that a rewriting was given.
    """

    NEIGHBOURS_DISAGREE = "neighbours_disagree"
    PICTURE_AND_CAPTION_DISAGREE = "picture_and_caption_disagree"
    MANY_CAPTIONS_ONE_PICTURE = "many_captions_one_picture"
    MANY_PICTURES_ONE_CAPTION = "many_pictures_one_caption"
    LISTED = "listed"
    NOT_LISTED = "not_listed"
    WORD_OF_MISMATCHED_PAIRS = "word_of_mismatched_pairs"
    CAPTION_REPEATED = "caption_repeated"
    TRACE_OF_MISMATCHED_PAIRS = "trace_of_mismatched_pairs"
    KIN_OF_MISMATCHED_PAIRS = "kin_of_mismatched_pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One pair that could not be used.

    Attributes:
        uid: the pair's name, or "" where the shard broke before it could be known.
        key: its key in the shard, or "".
        shard: the shard's file name.
        reason: what was wrong.
        detail: one line for people: what was found, what was wanted.
    """

    uid: str
    key: str
    shard: str
    reason: FailureReason
    detail: str

    @classmethod
    def of(cls, error: BadPair, *, uid: str, key: str, shard: str) -> Self:
        """What a BadPair says of one pair."""
        reason, _, detail = str(error).partition(": ")
        return cls(uid=uid, key=key, shard=shard, reason=FailureReason(reason), detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the scan decided about one pair.

    Attributes:
        uid: the pair's name.
        reasons: why it is quarantined; empty means kept.
    """

    uid: str
    reasons: tuple[Reason, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the pair stays in the training set."""
        return not self.reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of the pairs of some shards. Tallies add up in any order.

    Attributes:
        seen: pairs read, failed ones included.
        quarantined: pairs set aside, by their first reason.
        failed: pairs that could not be used, by reason.
        seconds: worker time spent, summed over workers.
    """

    seen: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            seen=self.seen + other.seen,
            quarantined=self.quarantined + other.quarantined,
            failed=self.failed + other.failed,
            seconds=self.seconds + other.seconds,
        )

    @property
    def kept(self) -> int:
        """Pairs neither quarantined nor failed."""
        return self.seen - self.quarantined.total() - self.failed.total()

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """Add up any number of tallies, none included."""
        return sum(tallies, start=cls())

    def to_json(self) -> dict[str, Any]:
        """The tally as plain values, ``kept`` spelled out."""
        return {
            "seen": self.seen,
            "kept": self.kept,
            "quarantined": dict(sorted(self.quarantined.items())),
            "failed": dict(sorted(self.failed.items())),
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """The inverse of to_json().

        Raises:
            DataError: they are no tally.
        """
        with as_written("what a marker says of its pairs", "tally"):
            quarantined, failed = (
                {str(name): int(n) for name, n in values[which].items()}
                for which in ("quarantined", "failed")
            )
            return cls(
                seen=int(values["seen"]),
                quarantined=Counter(quarantined),
                failed=Counter(failed),
                seconds=float(values["seconds"]),
            )
