"""A guard for rare classes: what each may lose, where a field of the shards tells the class.

Whoever looks for what does not match finds what is rare as well. So no label of 20 pairs or more loses more
than so many times the share that is set aside of all pairs, collisions included:

    at most  times · set aside / pairs · pairs with the label,  rounded down

The most suspicious of them go, the others are spared, and nobody takes their place; so less is set aside of
all, and the bound is taken again until it holds. Pairs that collide are never spared: copies are counted.

It is off unless a field is named, and that should be one that no stranger writes: poisons that tell their
target's label are spared with its own pairs.

Dimension key: N pairs, F of them flagged by the budget, L labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.verdicts import Cut, find_cut
from roclip_sanitize.shards import Shard

NO_LABEL = -1
LEAST_PAIRS = 20  # of a label, or a word: of fewer, a share says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Every pair's label, by number.

    Attributes:
        names: the labels.
        number_N: int32, which of them a pair has; NO_LABEL where it has none.
    """

    names: tuple[str, ...]
    number_N: NDArray[np.int32]

    @classmethod
    def joined(cls, parts: Iterable[Sequence[str | None]]) -> Self:
        """Number the labels of all parts, in their order. Memory: 4 bytes a pair, and all distinct labels."""
        numbers = dict[str, int]()
        pieces = [
            np.array(
                [NO_LABEL if each is None else numbers.setdefault(each, len(numbers)) for each in labels],
                np.int32,
            )
            for labels in parts
        ]
        return cls(names=tuple(numbers), number_N=np.concatenate([np.empty(0, np.int32), *pieces]))

    def counted(self, number_M: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many of some pairs have each label: (L,) int64."""
        return np.bincount(number_M[number_M != NO_LABEL], minlength=len(self.names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where the budget ends.

    Attributes:
        cut: of all pairs.
        of_label: of the pairs with a label, by label; those that lose less than they may are not in it.
        spared: how many pairs the cut flags and their label's does not.
    """

    cut: Cut
    of_label: Mapping[str, Cut] = field(default_factory=dict)
    spared: int = 0

    def flagged(
        self,
        suspicion_N: NDArray[np.floating],
        uids: Sequence[str],
        labels: Sequence[str | None] | None = None,
    ) -> NDArray[np.bool_]:
        """Which pairs the budget takes: (N,) bool.

        Args:
            suspicion_N: see verdicts.combined().
            uids: the pairs' names.
            labels: their labels; None where nobody asked for them.
        """
        flagged_N = self.cut.flagged(suspicion_N, uids)
        if labels is None:
            return flagged_N
        ends = [self.cut if label is None else self.of_label.get(label, self.cut) for label in labels]
        asked = zip(ends, suspicion_N.tolist(), uids, strict=True)
        return flagged_N & np.array([end.flags(suspicion, uid) for end, suspicion, uid in asked], np.bool_)

    def to_json(self, *, labelled: bool) -> dict[str, Any]:
        """As plain values; nothing of labels where nobody asked for them."""
        told: dict[str, Any] = {"cut": asdict(self.cut)}
        if labelled:
            told["label_cuts"] = {label: asdict(cut) for label, cut in self.of_label.items()}
            told["spared"] = self.spared
        return told


def guard_labels(
    labels: Labels,
    suspicion_N: NDArray[np.floating],
    candidate_N: NDArray[np.bool_],
    collided_N: NDArray[np.bool_],
    *,
    cut: Cut,
    times: float,
    uids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> Ends:
    """Find where each label's share ends.

    Args:
        labels: of all pairs.
        suspicion_N: scores of all pairs, see verdicts.combined().
        candidate_N: bool, which of them compete for the budget.
        collided_N: bool, which of them are set aside whatever the budget is.
        cut: where the budget ends.
        times: of the share of all pairs, more than 0.
        uids_of: names of some rows; asked for those that tie.
    """
    row_F = _flagged(suspicion_N, candidate_N, cut=cut, uids_of=uids_of)
    row_F = row_F[np.argsort(labels.number_N[row_F], kind="stable")]
    number_F = labels.number_N[row_F]
    flagged_L, collided_L = (labels.counted(numbers) for numbers in (number_F, labels.number_N[collided_N]))
    most_L = most_of_labels(
        labels.counted(labels.number_N),
        flagged_L,
        collided_L,
        others=int((number_F == NO_LABEL).sum() + (labels.number_N[collided_N] == NO_LABEL).sum()),
        pairs=len(suspicion_N),
        times=times,
    )
    cuts, spared = dict[str, Cut](), 0
    for number in np.flatnonzero(most_L < flagged_L).tolist():
        mine = row_F[slice(*np.searchsorted(number_F, (number, number + 1)))]
        told: dict[str, Any] = {"uids_of": lambda place, mine=mine: uids_of(mine[place])}
        every = suspicion_N[mine], np.ones(len(mine), np.bool_)
        end = cuts[labels.names[number]] = find_cut(*every, allowed=int(most_L[number]), **told)
        spared += len(mine) - len(_flagged(*every, cut=end, **told))
    return Ends(cut=cut, of_label=cuts, spared=spared)


def most_of_labels(
    size_L: NDArray[np.int64],
    flagged_L: NDArray[np.int64],
    collided_L: NDArray[np.int64],
    *,
    others: int,
    pairs: int,
    times: float,
) -> NDArray[np.int64]:
    """How many pairs of each label the budget takes, (L,) int64: all that are flagged, or fewer.

    Args:
        size_L: pairs that have the label.
        flagged_L: of them, those that the budget would take.
        collided_L: and those that are set aside anyway.
        others: pairs without a label that are set aside, for whatever reason.
        pairs: how many there are.
        times: of the share of all pairs.
    """
    most_L, rare_L = flagged_L, size_L < LEAST_PAIRS
    while True:
        share = (others + int(collided_L.sum()) + int(most_L.sum())) / max(1, pairs)
        bound_L = np.floor(times * share * size_L + 1e-9).astype(np.int64)
        fewer_L = np.where(rare_L, flagged_L, np.minimum(most_L, np.maximum(0, bound_L - collided_L)))
        if np.array_equal(fewer_L, most_L):
            return most_L
        most_L = fewer_L


def labels_of(shard: Path, uids: Sequence[str], name: str) -> list[str | None]:
    """What a field of each pair's JSON says, None where it says nothing. Reads the shard once.

    Args:
        shard: its path.
        uids: of the pairs that are asked for, in the order of the answer. Copies without a uid of their own
            have the same, and are told apart by their order, which is the shard's.
        name: the field's.
    """
    found: dict[str, deque[str | None]] = {uid: deque() for uid in uids}
    with Shard(shard) as opened:
        for pair in opened.pairs():
            if pair.uid in found:
                value = pair.fields.get(name)
                found[pair.uid].append(None if value is None else str(value))
    return [found[uid].popleft() if found[uid] else None for uid in uids]


def _flagged(
    suspicion_N: NDArray[np.floating],
    candidate_N: NDArray[np.bool_],
    *,
    cut: Cut,
    uids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> NDArray[np.int64]:
    """Rows that the budget takes, ascending."""
    tied = np.flatnonzero(candidate_N & (suspicion_N == cut.suspicion))
    takes = [cut.flags(cut.suspicion, uid) for uid in uids_of(tied)]
    over = np.flatnonzero(candidate_N & (suspicion_N > cut.suspicion))
    return np.sort(np.concatenate([over, tied[np.array(takes, np.bool_)]]))
