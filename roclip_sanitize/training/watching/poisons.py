"""How many poisons a matching step matches away: for watching only, never for learning.

A poison carries its caption to a picture that it does not belong to. Matching undoes that if the match is
another caption, and fails where the match is a poison with the same goal: another one of the same
attack, for the same class. So that is what is counted. It takes a ledger, which nobody has of poisons
that others planted: no method may look at it.

Dimension key: B pairs of a step, N pairs of the training data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.training.methods.contract import Rows
from roclip_sanitize.training.moving import moved

MATCHED_AWAY = "poisons_matched_away"
CLEAN = -1


class Named(Protocol):
    """Pairs with names, such as TrainingData."""

    def uids(self) -> list[str]:
        """Names of all rows."""
        ...


class PoisonWatch:
    """Counts, in a step, the poisons and those that were matched away.

    Args:
        goal_N: number of each pair's goal, int64; CLEAN for one that has none.
    """

    def __init__(self, goal_N: torch.Tensor) -> None:
        nobody = goal_N.new_full((1,), CLEAN)
        self._goal_N = torch.cat([goal_N, nobody])  # row -1, an empty slot's, has no goal either

    def __call__(self, row_B: Rows, found: Sequence[torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Judge the matches of a step.

        Args:
            row_B: its pairs.
            found: for each way of matching the pairs' matches, (B,) int64; both by row of the training data.

        Returns:
            MATCHED_AWAY: matches of poisons that lead away, and matches of poisons in all.
        """
        goal_B = self._goal_N[moved(torch.from_numpy(row_B), self._goal_N.device)]
        poisoned_B = goal_B != CLEAN
        away = [(poisoned_B & (self._goal_N[match_B] != goal_B)).sum() for match_B in found]
        return {MATCHED_AWAY: torch.stack([torch.stack(away).sum(), poisoned_B.sum() * len(found)])}


def watch_poisons(ledger: Path | None, data: Named, device: torch.device) -> PoisonWatch | None:
    """What to watch poisons with; None without a ledger, or where none of its poisons are trained on.

    Cover samples, whose captions are true, are no poisons here.

    Raises:
        DataError: there is no such ledger.
        MismatchError: it was made by another stage, or never finished.
    """
    if ledger is None:
        return None
    frame = Ledger.open(ledger).frame
    poisons = frame.filter(~frame["cover"])
    goals = list(zip(poisons["attack"], poisons["target"], strict=True))
    number_of = {goal: number for number, goal in enumerate(dict.fromkeys(goals))}
    goal_of = {uid: number_of[goal] for uid, goal in zip(poisons["uid"], goals, strict=True)}
    goal_N = torch.tensor([goal_of.get(uid, CLEAN) for uid in data.uids()], device=device)
    return PoisonWatch(goal_N) if bool((goal_N != CLEAN).any()) else None
