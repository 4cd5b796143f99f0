"""Whether a store was made of the shards that a ledger tells of, and not of the clean ones or of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.sources import source_stem
from roclip_sanitize.store import EmbeddingStore

if TYPE_CHECKING:
    import polars

TOLD = ("uid", "shard", "image_hash", "original_caption", "poisoned_caption")


def require_planted(store: EmbeddingStore, ledger: Ledger) -> None:
    """Refuse the ledger of another dataset.

    Attacks change pairs under the names that they have, so that a name says little: in each shard that was
    embedded, each planted pair must be there as it was planted, or be among those that failed. A shard that
    broke off may lack some.

    Raises:
        MismatchError: one is not there, or is as it was before; or no shard of the ledger was embedded.

    Memory: the ledger, and one part's names.
    """
    frame = ledger.frame.select(TOLD)
    numbered = {
        source_stem(Path(marker.facts["shard"])): marker.name for marker in StageFolder(ledger.path).markers()
    }
    shards = [numbered.get(source_stem(Path(shard)), "") for shard in store.shards]
    if not (listed := frame.filter(frame["shard"].is_in(shards))).height:
        raise MismatchError(
            f"{store.path} was made from no shard in which {ledger.path} planted anything: "
            "wanted the ledger of the shards that were scanned"
        )
    for part, shard in zip(store.parts, shards, strict=True):
        meant = listed.filter(listed["shard"] == shard)
        failed = store.failures(part.name)["uid"].to_list()
        missing = set(meant["uid"]) - _as_planted(meant, store, part.name) - set(failed)
        if missing and "" not in failed:
            raise MismatchError(
                f"{store.path} has {len(missing)} of the {len(meant)} pairs that {ledger.path} planted in "
                f"shard {shard} not as they were planted, such as {min(missing)}: wanted the ledger of the "
                "shards that were scanned"
            )


def _as_planted(meant: polars.DataFrame, store: EmbeddingStore, part: str) -> set[str]:
    """Which of some planted pairs a part has, with the picture and the caption that they were given."""
    import polars

    seen = meant.join(store.metadata(part, ("uid", "caption", "image_hash")), on="uid", suffix="_seen")
    same_picture = polars.col("image_hash_seen").eq_missing(polars.col("image_hash"))
    told_anew = polars.col("original_caption") != polars.col("poisoned_caption")
    before = told_anew & (polars.col("caption") == polars.col("original_caption"))
    return set(seen.filter(same_picture & ~before)["uid"])
