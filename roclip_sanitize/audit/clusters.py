"""The worst clusters of what was set aside: a picture with many captions, a caption with many, a trace.

Pictures are the same where their bytes are, captions where normalise_caption() makes them the same.
Near-copies are counted one by one here, whatever a scan thinks of them: so the counts need no vectors, and
anybody can make them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from roclip_sanitize.captions import normalise_caption
from roclip_sanitize.records import Reason
from roclip_sanitize.report import words

if TYPE_CHECKING:
    import polars

LEAST_PAIRS = 4  # set aside, to be called a cluster
LISTED = 6
SHOWN = 6  # captions, or pictures, of each

Part: TypeAlias = "tuple[str, polars.DataFrame]"
"""A store part's name, and uid, caption, image_hash and kept of its pairs."""


def worst_clusters(parts: Callable[[], Iterable[Part]]) -> dict[str, Any]:
    """Count, then look at the largest.

    Args:
        parts: gives all parts, in order; called twice.

    Returns:
        "one_picture" and "one_caption": how many clusters there are, and the largest, by the number of pairs
        set aside; ties in the order of the hash or the caption.

    Memory: a hash and a caption of each pair set aside, and one part's table.
    """
    pictures, captions = Counter[str](), Counter[str]()
    for _, frame in parts():
        removed = frame.filter(~frame["kept"])
        pictures.update(removed["image_hash"])
        captions.update(map(normalise_caption, removed["caption"]))
    worst_pictures, worst_captions = _largest(pictures), _largest(captions)
    same_picture = {digest: _Pairs() for digest in worst_pictures}
    same_caption = {caption: _Pairs() for caption in worst_captions}
    for name, frame in parts():
        for row in _removed(frame):
            for groups, value in (
                (same_picture, row["image_hash"]),
                (same_caption, normalise_caption(row["caption"])),
            ):
                if value in groups:
                    groups[value].add(name, row)
        kept = frame.filter(frame["kept"] & frame["image_hash"].is_in(worst_pictures))
        for digest in kept["image_hash"]:
            same_picture[digest].kept += 1
    return {
        "least_pairs": LEAST_PAIRS,
        "one_picture": {
            "clusters": _count(pictures),
            "largest": [
                {
                    "picture": group.first,
                    "removed": pictures[digest],
                    "kept": group.kept,
                    "different_captions": len(group.captions),
                    "captions": [words.one_line(text) for text in list(group.captions.values())[:SHOWN]],
                }
                for digest, group in same_picture.items()
            ],
        },
        "one_caption": {
            "clusters": _count(captions),
            "largest": [
                {
                    "caption": words.one_line(group.caption),
                    "removed": captions[caption],
                    "different_pictures": len(group.pictures),
                    "pictures": list(group.pictures.values())[:SHOWN],
                }
                for caption, group in same_caption.items()
            ],
        },
    }


def worst_traces(parts: Iterable[Part]) -> dict[str, Any]:
    """Those set aside for a trace, by the word whose it is.

    Args:
        parts: all, in order, with reasons, joined by ";", and trace_word.

    Returns:
        "words": how many have such pairs; "largest": those with most, the first pictures of each.
    """
    groups = dict[str, _Pairs]()
    removed = Counter[str]()
    for name, frame in parts:
        for row in _removed(frame):
            if Reason.TRACE_OF_MISMATCHED_PAIRS in row["reasons"].split(";"):
                removed[row["trace_word"]] += 1
                groups.setdefault(row["trace_word"], _Pairs()).add(name, row)
    worst = sorted(groups, key=lambda word: (-removed[word], word))[:LISTED]
    return {
        "words": len(groups),
        "largest": [
            {
                "word": words.one_line(word),
                "removed": removed[word],
                "pictures": list(groups[word].pictures.values())[:SHOWN],
            }
            for word in worst
        ],
    }


class _Pairs:
    """Pairs of one cluster that were set aside."""

    def __init__(self) -> None:
        self.captions = dict[str, str]()  # normalised → as it first came
        self.pictures = dict[str, dict[str, str]]()  # hash → the first pair with it
        self.kept = 0

    def add(self, part: str, row: dict[str, Any]) -> None:
        self.captions.setdefault(normalise_caption(row["caption"]), row["caption"])
        self.pictures.setdefault(row["image_hash"], {"uid": row["uid"], "part": part})

    @property
    def first(self) -> dict[str, str]:
        return next(iter(self.pictures.values()))

    @property
    def caption(self) -> str:
        return next(iter(self.captions.values()))


def _removed(frame: polars.DataFrame) -> Iterator[dict[str, Any]]:
    return frame.filter(~frame["kept"]).iter_rows(named=True)


def _largest(counts: Counter[str]) -> list[str]:
    enough = [name for name, pairs in counts.items() if pairs >= LEAST_PAIRS and name]
    return sorted(enough, key=lambda name: (-counts[name], name))[:LISTED]


def _count(counts: Counter[str]) -> int:
    return sum(pairs >= LEAST_PAIRS for name, pairs in counts.items() if name)
