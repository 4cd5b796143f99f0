"""Ask the index for every picture's neighbours and near-copies, and note their rows.

    neighbours/neighbours_00000.npy   (N, K) int64: pictures most like each, copies left out
    copies/copies_00000.npy           (N, 32) int64: pictures all but equal to each

Who looks for copies sees some neighbours beside them: they are noted too where nobody looks for more.

-1 fills up where there are fewer. Only rows are kept: who is near is all that detectors ask.

Dimension key: N pairs of a part, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import inspect_index, open_index
from roclip_sanitize.limits import WORK_KEY, Laps
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.agreement import one_vote_per_picture
from roclip_sanitize.scan.collisions import NEAR_COPIES
from roclip_sanitize.storage import atomic_file
from roclip_sanitize.store import EmbeddingStore, StorePart

SPARE = 2  # so many times the neighbours wanted are fetched, since some are each other's copies
BLOCK_ROWS = 2_048  # rows of one question: whole batches of the index, and few enough questions to hand over

What = Literal["neighbours", "copies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for.

    Attributes:
        what: "neighbours": the pictures most like each, neither byte-identical nor near-copies of
            it, and different from each other; "copies": its near-copies that are not byte-identical.
        k: how many for each.
        near_copy_cosine: pictures at more than this are near-copies.
        beside: so many neighbours are noted too, as far as a search for copies sees them.
    """

    what: What
    k: int
    near_copy_cosine: float
    beside: int = 0

    @classmethod
    def for_copies(cls, near_copy_cosine: float, *, beside: int = 0) -> Search:
        """Look for near-copies."""
        return cls(what="copies", k=NEAR_COPIES, near_copy_cosine=near_copy_cosine, beside=beside)

    def questions(self, store: EmbeddingStore, part: StorePart) -> Iterator[SearchTask]:
        """One question for each block of a part's rows."""
        for start in range(0, part.rows, BLOCK_ROWS):
            yield SearchTask(
                store=store.path,
                part=part.name,
                modality="image",
                start=start,
                stop=min(start + BLOCK_ROWS, part.rows),
                k=self.k * SPARE if self.what == "neighbours" else self.k,
                exclude_self=True,
                exclude_hash=True,
                max_cosine=self.near_copy_cosine if self.what == "neighbours" else None,
            )

    def rows(
        self, answers: Sequence[Neighbours], picture: NDArray[np.uint64]
    ) -> dict[What, NDArray[np.int64]]:
        """The rows that a part's answers name: (N, K) each, -1 for none."""
        width = self.k * SPARE if self.what == "neighbours" else self.k
        row_NK = np.concatenate([np.empty((0, width), np.int64), *(one.rows_NK for one in answers)])
        if self.what == "neighbours":
            return {"neighbours": one_vote_per_picture(row_NK, picture, keep=self.k)}
        cosine_NK = np.concatenate([np.empty((0, width), np.float32), *(one.cosine_NK for one in answers)])
        near_NK = cosine_NK > np.float32(self.near_copy_cosine)
        found: dict[What, NDArray[np.int64]] = {"copies": np.where(near_NK, row_NK, -1)}
        if self.beside:
            others_NK = np.where(near_NK, -1, row_NK)
            found["neighbours"] = one_vote_per_picture(others_NK, picture, keep=self.beside)
        return found


def rows_file(folder: Path, what: What, name: str) -> Path:
    """Where one part's rows are noted."""
    return folder / what / f"{what}_{name}.npy"


def require_index_of(store: EmbeddingStore, index: Path) -> None:
    """Refuse an index that does not hold all pictures of this store.

    Raises:
        DataError: there is no index.
        MismatchError: it holds something else, or only a sample.
    """
    facts = inspect_index(index)
    if Path(facts["store"]).resolve() != store.path.resolve() or facts["modality"] != "image":
        raise MismatchError(
            f"{index} holds {facts['modality']} vectors of {facts['store']}, "
            f"wanted image vectors of {store.path}"
        )
    if facts["rows"] != store.rows:
        raise MismatchError(
            f"{index} holds {facts['rows']:,} rows of {store.rows:,}: wanted all, without --pool"
        )


def search_parts(
    search: Search,
    *,
    store: EmbeddingStore,
    index: Path,
    picture: NDArray[np.uint64],
    folder: StageFolder,
    executor: Executor,
) -> None:
    """Note the rows of every part that is not done. Parts are marked ``neighbours_00000`` and so on.

    Args:
        search: what to look for.
        store: whose pictures ask.
        index: of the same pictures.
        picture: of every row of the store, equal where pictures are byte-identical.
        folder: where the rows go.
        executor: where the searchers run.
    """
    missing = [part for part in store.parts if folder.marker(f"{search.what}_{part.name}") is None]
    if not missing:
        return
    laps = Laps()
    with open_index(index, executor) as opened:
        questions = (question for part in missing for question in search.questions(store, part))
        answers = opened.search(questions)
        for part in missing:
            blocks = -(-part.rows // BLOCK_ROWS)
            paths = []
            for what, row_NK in search.rows(list(islice(answers, blocks)), picture).items():
                paths.append(rows_file(folder.path, what, part.name))
                with atomic_file(paths[-1]) as file:
                    np.save(file, row_NK)
            laps.lap("search")
            facts = {"rows": part.rows, WORK_KEY: laps.work(0, workers=executor.size).to_json()}
            folder.commit(f"{search.what}_{part.name}", files=paths, facts=facts)
