"""A guard for rare classes: what each may lose, where a field of the shards tells the class.

Whoever looks for what does not match finds what is rare as well. So of the pairs with one label the budget
may take so many times the share that it takes of all:

    at most  times · allowed / pairs · pairs with the label,  rounded up

The most suspicious of them go, the others are spared; nobody takes their place. Pairs that collide are not
asked: their copies are counted.

It is off unless a field is named, and that should be one that no stranger writes: poisons that tell their
target's label are spared with its own pairs.

Dimension key: N pairs, F of them flagged by the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.verdicts import Cut, find_cut
from roclip_sanitize.shards import Shard

NO_LABEL = -1


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
    *,
    cut: Cut,
    share: float,
    uids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> Ends:
    """Find where each label's share ends.

    Args:
        labels: of all pairs.
        suspicion_N: scores of all pairs, see verdicts.combined().
        candidate_N: bool, which of them compete for the budget.
        cut: where the budget ends.
        share: of each label's pairs, from 0 on, that may be flagged.
        uids_of: names of some rows; asked for those that tie.
    """
    names, size_L = (
        labels.names,
        np.bincount(labels.number_N[labels.number_N != NO_LABEL], minlength=len(labels.names)),
    )
    row_F = _flagged(suspicion_N, candidate_N, cut=cut, uids_of=uids_of)
    row_F = row_F[labels.number_N[row_F] != NO_LABEL]
    row_F = row_F[np.argsort(labels.number_N[row_F], kind="stable")]
    number_F = labels.number_N[row_F]
    cuts, spared = dict[str, Cut](), 0
    for number in np.unique(number_F).tolist():
        mine = row_F[slice(*np.searchsorted(number_F, (number, number + 1)))]
        most = math.ceil(share * int(size_L[number]) - 1e-9)
        if len(mine) <= most:
            continue
        spared += len(mine) - most
        cuts[names[number]] = find_cut(
            suspicion_N[mine],
            np.ones(len(mine), np.bool_),
            allowed=most,
            uids_of=lambda place, mine=mine: uids_of(mine[place]),  # type: ignore[misc]
        )
    return Ends(cut=cut, of_label=cuts, spared=spared)


def labels_of(shard: Path, uids: Sequence[str], name: str) -> list[str | None]:
    """What a field of each pair's JSON says, None where it says nothing. Reads the shard once.

    Args:
        shard: its path.
        uids: of the pairs that are asked for, in the order of the answer.
        name: the field's.
    """
    wanted, found = set(uids), dict[str, str]()
    with Shard(shard) as opened:
        for pair in opened.pairs():
            value = pair.fields.get(name)
            if value is not None and pair.uid in wanted:
                found.setdefault(pair.uid, str(value))
    return [found.get(uid) for uid in uids]


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
