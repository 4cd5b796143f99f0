"""Ask the index for every picture's neighbours, near-copies and kin, and note their rows.

    neighbours/neighbours_00000.npy   (N, K) int64: pictures most like each, copies left out
    copies/copies_00000.npy           (N, 32) int64: pictures all but equal to each
    kin/kin_00000.npy                 (N, 32) int64: pictures much like each, near-copies among them

One search finds all. Who looks for copies alone sees some neighbours beside them: they are noted too. Kin are
those among the rows that are asked for: where most of these are one picture's copies, there are few.

-1 fills up where there are fewer. Only rows are kept: who is near is all that detectors ask.

Dimension key: N pairs of a part, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import inspect_index, open_index, require_store_unchanged
from roclip_sanitize.limits import WORK_KEY, Laps
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.agreement import one_vote_per_picture
from roclip_sanitize.scan.collisions import NEAR_COPIES
from roclip_sanitize.scan.kin import KIN, KIN_COSINE
from roclip_sanitize.storage import atomic_file, here
from roclip_sanitize.store import EmbeddingStore, StorePart
from roclip_sanitize.whereabouts import store_of

SPARE = 2  # so many times the neighbours wanted are fetched, since some are each other's copies
BLOCK_ROWS = 2_048  # rows of one question: whole batches of the index, and few enough questions to hand over

What = Literal["neighbours", "copies", "kin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for.

    Attributes:
        neighbours: how many of the pictures most like each, neither byte-identical nor near-copies of it,
            and different from each other; 0 for none.
        copies: whether to look for near-copies that are not byte-identical.
        kin: whether to look for pictures at kin.KIN_COSINE or more, different from each other.
        near_copy_cosine: pictures at more than this are near-copies.
        beside: so many neighbours are noted too, as far as a search for copies alone sees them.
    """

    neighbours: int = 0
    copies: bool = False
    kin: bool = False
    near_copy_cosine: float
    beside: int = 0

    @property
    def name(self) -> str:
        """What parts are marked with."""
        asked = {"neighbours": self.neighbours, "copies": self.copies, "kin": self.kin}
        names = [name for name, wanted in asked.items() if wanted]
        return names[0] if len(names) == 1 else "searched"

    @property
    def nearest(self) -> bool:
        """Whether near-copies are wanted in the answers."""
        return self.copies or self.kin

    @property
    def noted(self) -> list[What]:
        """What files it leaves of each part."""
        wanted: dict[What, bool] = {
            "neighbours": bool(self.neighbours or self.beside),
            "copies": self.copies,
            "kin": self.kin,
        }
        return [what for what, noted in wanted.items() if noted]

    @property
    def k(self) -> int:
        """Rows that a question asks for."""
        different = max(self.neighbours, KIN if self.kin else 0)
        return different * SPARE + (NEAR_COPIES if self.nearest else 0)

    def questions(self, store: EmbeddingStore, part: StorePart) -> Iterator[SearchTask]:
        """One question for each block of a part's rows."""
        for start in range(0, part.rows, BLOCK_ROWS):
            yield SearchTask(
                store=store.path,
                part=part.name,
                modality="image",
                start=start,
                stop=min(start + BLOCK_ROWS, part.rows),
                k=self.k,
                exclude_self=True,
                exclude_hash=True,
                max_cosine=None if self.nearest else self.near_copy_cosine,
            )

    def rows(
        self, answers: Sequence[Neighbours], picture: NDArray[np.uint64]
    ) -> dict[What, NDArray[np.int64]]:
        """The rows that a part's answers name: (N, K) each, -1 for none."""
        row_NK = np.concatenate([np.empty((0, self.k), np.int64), *(one.rows_NK for one in answers)])
        if not self.nearest:
            return {"neighbours": one_vote_per_picture(row_NK, picture, keep=self.neighbours)}
        cosine_NK, found = self._cosines(answers), dict[What, NDArray[np.int64]]()
        near_NK = self._near(cosine_NK)
        if self.copies:
            found["copies"] = np.where(near_NK, row_NK, -1)[:, :NEAR_COPIES]
        if self.kin:
            kin_NK = np.where(cosine_NK >= np.float32(KIN_COSINE), row_NK, -1)
            found["kin"] = one_vote_per_picture(kin_NK, picture, keep=KIN)
        if keep := self.neighbours or self.beside:
            others_NK = np.where(near_NK, -1, row_NK)
            if self.neighbours:  # as many as without near-copies, which are nearest and come first
                order_NK = np.argsort(near_NK, axis=1, kind="stable")[:, : self.neighbours * SPARE]
                others_NK = np.take_along_axis(others_NK, order_NK, axis=1)
            found["neighbours"] = one_vote_per_picture(others_NK, picture, keep=keep)
        return found

    def crowded(self, answers: Sequence[Neighbours]) -> NDArray[np.bool_]:
        """Which rows have so many near-copies that these took the room of neighbours: (N,)."""
        crowded_N: NDArray[np.bool_] = self._near(self._cosines(answers)).sum(axis=1) > NEAR_COPIES
        return crowded_N

    def _cosines(self, answers: Sequence[Neighbours]) -> NDArray[np.float32]:
        return np.concatenate([np.empty((0, self.k), np.float32), *(one.cosine_NK for one in answers)])

    def _near(self, cosine_NK: NDArray[np.float32]) -> NDArray[np.bool_]:
        near_NK: NDArray[np.bool_] = cosine_NK > np.float32(self.near_copy_cosine)
        return near_NK


def rows_file(folder: Path, what: What, name: str) -> Path:
    """Where one part's rows are noted."""
    return folder / what / f"{what}_{name}.npy"


def require_index_of(store: EmbeddingStore, index: Path) -> None:
    """Refuse an index that does not hold all pictures of this store.

    Raises:
        DataError: there is no index.
        MismatchError: it holds something else, or what the store held before, or only a sample.
    """
    facts = inspect_index(index)
    if store_of(StageFolder(index)).resolve() != store.path.resolve() or facts["modality"] != "image":
        raise MismatchError(
            f"{index} holds {facts['modality']} vectors of {facts['store']}, "
            f"wanted image vectors of {store.path}"
        )
    require_store_unchanged(StageFolder(index))
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
    """Note the rows of every part that is not done. Parts are marked with the search's name.

    One question finds all. Blocks with a row that has more near-copies than there is room for are asked
    about again, for neighbours alone: these are the same as if nothing else had been looked for.

    Args:
        search: what to look for.
        store: whose pictures ask.
        index: of the same pictures.
        picture: of every row of the store, equal where pictures are byte-identical.
        folder: where the rows go.
        executor: where the searchers run.
    """
    missing = [part for part in store.parts if folder.marker(f"{search.name}_{part.name}") is None]
    if not missing:
        return
    laps, crowded = Laps(), dict[str, NDArray[np.bool_]]()
    with open_index(index, executor) as opened:
        answers = opened.search(question for part in missing for question in search.questions(store, part))
        for part in missing:
            told = list(islice(answers, -(-part.rows // BLOCK_ROWS)))
            for what, row_NK in search.rows(told, picture).items():
                _save(rows_file(folder.path, what, part.name), row_NK)
            laps.lap("search")
            if search.neighbours and search.nearest and (crowded_N := search.crowded(told)).any():
                crowded[part.name] = crowded_N
            else:
                _commit(folder, search, part, laps, workers=executor.size)
        again = replace(search, copies=False, kin=False)
        left = [part for part in missing if part.name in crowded]
        answers = opened.search(
            question for part in left for question in _of_crowded(again, store, part, crowded[part.name])
        )
        for part in left:
            path, crowded_N = rows_file(folder.path, "neighbours", part.name), crowded[part.name]
            row_NK = np.load(here(path))
            for question in _of_crowded(again, store, part, crowded_N):
                block = slice(question.start, question.stop)
                found_MK = again.rows([next(answers)], picture)["neighbours"]
                row_NK[block] = np.where(crowded_N[block, None], found_MK, row_NK[block])
            _save(path, row_NK)
            laps.lap("search")
            _commit(folder, search, part, laps, workers=executor.size)


def _of_crowded(
    search: Search, store: EmbeddingStore, part: StorePart, crowded_N: NDArray[np.bool_]
) -> Iterator[SearchTask]:
    for question in search.questions(store, part):
        if crowded_N[question.start : question.stop].any():
            yield question


def _save(path: Path, row_NK: NDArray[np.int64]) -> None:
    with atomic_file(path) as file:
        np.save(file, row_NK)


def _commit(folder: StageFolder, search: Search, part: StorePart, laps: Laps, *, workers: int) -> None:
    facts = {"rows": part.rows, WORK_KEY: laps.work(0, workers=workers).to_json()}
    files = [rows_file(folder.path, what, part.name) for what in search.noted]
    folder.commit(f"{search.name}_{part.name}", files=files, facts=facts)
