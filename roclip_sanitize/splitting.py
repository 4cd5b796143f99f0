"""A shard's pairs, held against what its store knows of them → one side or the other, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Reason
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard
from roclip_sanitize.store import EmbeddingStore


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPair:
    """What a store knows of a pair; None or "" where it does not.

    Attributes:
        uid: its name.
        caption: its text.
        image_hash: see Pair.image_hash.
    """

    uid: str
    caption: str | None
    image_hash: str | None

    def require_same(self, pair: Pair, *, shard: Path) -> None:
        """Refuse a pair of this name whose halves are not those that were embedded.

        Raises:
            MismatchError: which pair of which shard, and what of it is another.
        """
        if half := self.changed_half(pair):
            raise MismatchError(
                f"{shard}: pair {pair.key} ({pair.uid}) has another {half} than when it was embedded: "
                "embed the shard again, index and scan"
            )

    def changed_half(self, pair: Pair) -> str:
        """Which half of a pair of this name is not the one that was embedded; "" where none is."""
        if not pair.fields.get("uid"):
            return ""  # its name is a hash of both
        if self.caption and self.caption != pair.caption:
            return "caption"
        return "picture" if self.image_hash and self.image_hash != pair.image_hash else ""


Expected: TypeAlias = Mapping[str, tuple[KnownPair, Reason | None]]
"""Key of each usable pair of a shard → what is known of it, and why it is set aside, if it is."""


def known_pairs(store: EmbeddingStore, part: str) -> dict[str, KnownPair]:
    """One part's pairs by their keys, in the order of its rows."""
    told = store.metadata(part, ("key", "uid", "caption", "image_hash"))
    return {
        key: KnownPair(uid=uid, caption=caption, image_hash=image_hash)
        for key, uid, caption, image_hash in told.iter_rows()
    }


def copy_pairs(
    shard: Shard, expected: Expected, *, kept: ShardWriter, quarantined: ShardWriter
) -> tuple[int, int]:
    """Copy the expected pairs to one side or the other.

    Returns:
        How many were copied, and how many were not: their picture could not be decoded, or the
        shard itself failed them.

    Raises:
        MismatchError: one has another picture or caption than when it was embedded.
    """
    copied = left = 0
    for pair in shard.pairs():
        known, reason = expected.get(pair.key, (None, None))
        if known is not None and pair.uid == known.uid:
            known.require_same(pair, shard=shard.path)
            (quarantined if reason else kept).copy(shard, pair)
            copied += 1
        else:
            left += 1
    return copied, left + len(shard.failures)
