"""What cross prediction found of each pair: all looks' last ranks, and how suspicious they make it.

A pair's *rank* by caption is the share of other captions that tell less of its picture than its own does,
and its rank by picture likewise; both are means over foldings of the last round. Ranks of strangers, whose
halves have nothing to do with each other, may be anything from 0 to 1; those of matched pairs are near 1.
So a pair of which one rank is below 3/4, as for most strangers and few others, is suspicious. How much so
compared with others, places tell, as in training: it is harder to tell a caption from a picture than the
reverse, and a place makes up for that.

    suspicion = 1 - place / 2    where a rank is below 3/4: more than 1/2
                (1 - place) / 2  elsewhere: 1/2 at the most

A caption with no word that others use says nothing to the first look; later ones, in the vectors of young
models, judge it by themselves. Without them its pair gets no suspicion.

Dimension key: N pairs of a part, or of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import places as places_of
from roclip_sanitize.cross_prediction import trust_of
from roclip_sanitize.scan.array_files import load_arrays, save_array
from roclip_sanitize.scan.cross_files import Files
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.looks import looks_at
from roclip_sanitize.scan.parts import Places
from roclip_sanitize.storage import exists, here
from roclip_sanitize.store import StorePart

STRANGE = 0.75  # ranks below are rare among matched pairs; see benchmarks/LOG.md for others


def read_judged(
    places: Places, part: StorePart, *, second: Sequence[Path] = ()
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What became of one part.

    Returns:
        (N,) float32 suspicions from 0 to 1, higher is worse; and (N, 2) float32 ranks, by caption and by
        picture, means over all looks. NaN where nothing can be said.
    """
    looks = [Files(places=places, look=look) for look in looks_at(places.store, second)]
    block = slice(part.start, part.start + part.rows)
    suspicion_N = np.array(read_suspicion(places)[block])
    ranks = [_told(files, part, "rank") for files in came_to_an_end(looks)]
    return suspicion_N, _mean(ranks) if ranks else np.full((part.rows, 2), np.nan, np.float32)


def read_suspicion(places: Places) -> NDArray[np.float32]:
    """Suspicions of the store's pairs, see read_judged(), mapped: what is not asked for is not read."""
    suspicion: NDArray[np.float32] = np.load(
        here(Files(places=places, look=looks_at(places.store)[0]).suspicion), mmap_mode="r"
    )
    return suspicion


def count_strangers(places: Places, parts: Sequence[StorePart], *, second: Sequence[Path] = ()) -> Strangers:
    """What all looks' last rounds say of strangers, after cross_predict(). Memory: one part's ranks."""
    looked = came_to_an_end([Files(places=places, look=look) for look in looks_at(places.store, second)])
    counted = Strangers()
    for part in parts if looked else ():
        rank_N2, stranger_N2 = (
            _mean([_told(files, part, name) for files in looked]) for name in ("rank", "strangers")
        )
        counted += Strangers.counted(rank_N2, stranger_N2)
    return counted


def suspicion(rank_N2: NDArray[np.float32], trust_N: NDArray[np.floating]) -> NDArray[np.float32]:
    """Ranks of pairs, and what orders them, lowest first → (N,) float32: see above."""
    place_N = places_of(trust_N)
    strange_N = rank_N2.min(axis=1) < STRANGE
    suspicion_N: NDArray[np.float32] = ((1 + strange_N - place_N) / 2).astype(np.float32)
    return suspicion_N


def share_trusted_less(suspicion: NDArray[np.float32]) -> NDArray[np.float32]:
    """Suspicions → shares of all pairs that are trusted less, of any shape: undoes suspicion()."""
    share: NDArray[np.float32] = np.where(suspicion > 1 / 2, 2 - 2 * suspicion, 1 - 2 * suspicion)
    return share


def suspect(looks: Sequence[Files], parts: Sequence[StorePart]) -> Path:
    """All looks' last ranks → suspicions. Memory: 60 bytes a pair."""
    suspicion_N = np.full(sum(part.rows for part in parts), np.nan, np.float32)
    if looked := came_to_an_end(looks):
        ranks = [_joined(_told(files, part, "rank") for part in parts) for files in looked]
        trust_N, looks_N = np.zeros((2, len(suspicion_N)), np.float32)
        for files, rank_N2 in zip(looked, ranks, strict=True):
            known_N = ~np.isnan(rank_N2).any(axis=1)
            trust_N += np.where(known_N, trust_after(files, files.look.last, parts), 0)
            looks_N += known_N
        judged = np.flatnonzero(looks_N)
        trust_N[judged] *= len(looked) / looks_N[judged]
        suspicion_N[judged] = suspicion(_mean(ranks)[judged], trust_N[judged])
    return save_array(looks[0].suspicion, suspicion_N)


def came_to_an_end(looks: Iterable[Files]) -> list[Files]:
    """Those that came to an end: without a word that captions share, the first does not."""
    return [files for files in looks if exists(files.learnt(files.look.last))]


def _told(files: Files, part: StorePart, name: str) -> NDArray[np.float32]:
    """What a look's last round says of a part's pairs: (N, 2), NaN of those that it knows nothing of."""
    told_N2: NDArray[np.float32] = load_arrays(files.last_ranks(part.name))[name]
    told_N2[~load_arrays(files.halves(part.name))["known"]] = np.nan
    return told_N2


def _mean(ranks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Over the looks that say something; NaN where none does."""
    looks_N2 = np.sum([~np.isnan(rank_N2) for rank_N2 in ranks], axis=0)
    mean_N2 = np.nansum(ranks, axis=0, dtype=np.float32) / np.where(looks_N2, looks_N2, np.nan)
    return mean_N2.astype(np.float32)


def trust_after(files: Files, number: int, parts: Sequence[StorePart]) -> NDArray[np.float32]:
    """Places of all pairs by a round's ranks. Memory: 40 bytes a pair."""
    order_N2 = _joined(load_arrays(files.ranks(number, part.name))["order"] for part in parts)
    return trust_of(order_N2[:, 0], order_N2[:, 1])


def _joined(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(list(arrays))
