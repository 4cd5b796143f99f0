"""RoCLIP's rewriting as a table of uids: who gets whose caption, and whose picture. The ``pair`` stage.

    first   caption ─▶ most similar other caption ─▶ its text goes to this image
            image   ─▶ most similar other image   ─▶ it goes to this caption
    final   image   ─▶ most similar caption       ─▶ its text goes to this image

"first" is the first version of the paper, within each modality; "final" is the released one, across
them, and needs a CLIP. The pool is whatever the indexes hold. A pair never receives anything from
itself, nor from a pair with the same picture: a poison's copies would only vouch for each other.

    pairs/pairs_00000.parquet     a row per pair of the store part, see PAIR_SCHEMA
    done/00000.json               rows, tally, seconds, rows per second

Dimension key: N pairs of a store part, P pairs of the pool.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import indexed_rows, inspect_index, open_index
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.store import EmbeddingStore, Modality, StorePart, write_parquet

if TYPE_CHECKING:
    import polars

Method = Literal["first", "final"]
QUERIES_AT_ONCE = 4_096
PARTS_AT_ONCE = 64  # parts matched before any is written: what a kill can cost
PAIR_SCHEMA: dict[str, Any] = {
    "uid": str,
    "caption_uid": str,  # the pair whose caption replaces this one's; "" for none
    "caption": str,  # that caption; "" for none
    "caption_cosine": np.float32,  # null for none
    "image_uid": str,  # the pair whose picture replaces this one's; "" for none
    "image_cosine": np.float32,  # null for none
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """How to pair.

    Attributes:
        store: the embedding store.
        index_text: an index of its captions.
        index_image: an index of its images, over the same pool; for the first method.
        method: "first" or "final".
        exclude_equal_captions: first method: look past captions equal to the pair's own, which
            would rewrite nothing.
    """

    store: Path
    index_text: Path
    index_image: Path | None = None
    method: Method = "final"
    exclude_equal_captions: bool = True

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(f"method is {self.method!r}, wanted one of {', '.join(get_args(Method))}")
        if self.method == "first" and self.index_image is None:
            raise ConfigError("the first method matches images too: give an image index")
