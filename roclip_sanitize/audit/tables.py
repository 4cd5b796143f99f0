"""What was removed of whom: shares by word, by label and by domain.

A word stands for a concept: no labels are needed, and whoever reads it knows what was meant. Each caption
counts once for each of its words. Where the shards have labels, these are the better concepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.captions import caption_words
from roclip_sanitize.errors import DataError
from roclip_sanitize.report import words as report_words
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.long_tail import LEAST_PAIRS, labels_of
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import exists, here
from roclip_sanitize.store import EmbeddingStore

if TYPE_CHECKING:
    import polars

LISTED = 20
OFTEN = 3  # times the mean share: a concept that loses so much is swept out with something else


class Removed:
    """Pairs and removed pairs by name. Memory: every distinct name."""

    def __init__(self) -> None:
        self._pairs, self._removed = Counter[str](), Counter[str]()
        self._all = self._all_removed = 0

    def count(self, pairs: Iterable[tuple[Iterable[str], bool]]) -> None:
        """Count (names, whether it was kept) of some pairs."""
        for names, kept in pairs:
            mine = set(names)
            self._pairs.update(mine)
            self._all += 1
            if not kept:
                self._removed.update(mine)
                self._all_removed += 1

    def to_json(self) -> dict[str, Any]:
        """Those with the largest shares, of names that enough pairs have."""
        mean = self._all_removed / self._all if self._all else 0.0
        shares = {
            name: self._removed[name] / pairs for name, pairs in self._pairs.items() if pairs >= LEAST_PAIRS
        }
        worst = sorted(shares, key=lambda name: (-shares[name], name))[:LISTED]
        return {
            "mean_share": round(mean, 6),
            "counted": len(shares),
            "least_pairs": LEAST_PAIRS,
            "above_3_times_the_mean": sum(share > OFTEN * mean for share in shares.values()),
            "largest": [
                {
                    "name": report_words.one_line(name),
                    "pairs": self._pairs[name],
                    "removed": self._removed[name],
                }
                for name in worst
            ],
        }


def words_in(caption: str) -> list[str]:
    """What a caption counts for."""
    return caption_words(caption)


def removed_by_label(
    parts: Iterable[tuple[str, polars.DataFrame]], store: EmbeddingStore, label: str
) -> Removed:
    """By a field of each pair's JSON; pairs without it count for the mean alone. Reads all shards once.

    Raises:
        DataError: no pair has such a field.
    """
    found, labelled = Removed(), False
    for (_, frame), path in zip(parts, store.shards, strict=True):
        values = labels_of(source_path(path), frame["uid"].to_list(), label)
        labelled |= any(value is not None for value in values)
        told = zip(values, frame["kept"], strict=True)
        found.count(([] if value is None else [value], kept) for value, kept in told)
    if not labelled:
        raise DataError(f"no pair of the {len(store.shards)} shards has a field {label!r} to audit by")
    return found


def removed_by_domain(rewritten: Path) -> Removed:
    """By the host of each pair's ``url``, as the tables beside the rewritten shards have it, if they do."""
    import polars

    found = Removed()
    for marker in StageFolder.open(rewritten, stage="rewrite").markers():
        for side in ("kept", "quarantined"):
            name = marker.facts.get("name")
            path = rewritten / side / f"{name}.parquet"
            if name is None or not exists(path):
                continue
            if "url" not in polars.read_parquet_schema(here(path)):
                continue
            urls = read_table(path, columns=["url"])["url"]
            found.count(([domain], side == "kept") for url in urls if (domain := _domain(url)))
    return found


def _domain(url: object) -> str:
    try:
        return urlsplit(str(url or "")).hostname or ""
    except ValueError:  # brackets that are no IPv6 address
        return ""
