"""How good a scan is, where the poisons are known: ranking and verdicts against a ledger.

Dimension key: N pairs, or poisons; M clean pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.scan.agreement import NEUTRAL

if TYPE_CHECKING:
    import polars

SCORE_OF_DETECTOR = {
    "fused": "suspicion",
    "cross_prediction": "cross_prediction",
    "agreement": "agreement",
    "repetition": "repetition",
    "traces": "trace",
    "kin": "kin",
    "captions_of_picture": "captions_of_picture",
    "pictures_of_caption": "pictures_of_caption",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One measured number.

    Attributes:
        metric: "auroc": how often a poison of this attack scores above a clean pair, ties half;
            "poison_recall": share of its poisons that were quarantined; "clean_lost": share of
            clean pairs that were.
        attack: whose poisons; None for clean_lost.
        detector: whose score, for auroc.
        value: from 0 to 1.
        n: poisons, or clean pairs, that it was measured on.
    """

    metric: str
    attack: str | None
    detector: str | None
    value: float
    n: int


def detection_quality(
    scores: polars.DataFrame,
    verdicts: polars.DataFrame,
    poisoned: Mapping[str, str],
    *,
    covers: Collection[str] = frozenset(),
) -> list[Quality]:
    """Compare a scan with what was planted.

    Args:
        scores: of read_scores(). Detectors that scored nothing, or that the scan did not know, are left out.
        verdicts: of read_verdicts(), the same rows.
        poisoned: uid → attack. Poisons that the scan never saw, since they failed, do not count.
        covers: uids of cover samples, which count for nothing: their captions are true, so that to keep
            one is no miss, and they carry a trigger, so that to lose one is no loss.

    Raises:
        MismatchError: the two tables are not of the same scan, or hold no poison or no clean pair.
    """
    uids = scores["uid"].to_list()
    if uids != verdicts["uid"].to_list():
        raise MismatchError("scores and verdicts name different pairs: wanted both of one scan")
    attack_N = np.array([poisoned.get(uid, "") for uid in uids])
    cover_N, flagged_N = np.array([uid in covers for uid in uids], bool), ~verdicts["kept"].to_numpy()
    clean_N = (attack_N == "") & ~cover_N
    if not clean_N.any() or not (attack_N != "").any():
        raise MismatchError(
            f"{int((attack_N != '').sum())} of {len(uids)} pairs are poisons: wanted some, and some clean"
        )
    found = []
    for attack in sorted(set(attack_N.tolist()) - {""}):
        poison_N = attack_N == attack
        found += [
            Quality(
                metric="auroc",
                attack=attack,
                detector=detector,
                value=auroc(score_of(scores, column)[poison_N], score_of(scores, column)[clean_N]),
                n=int(poison_N.sum()),
            )
            for detector, column in SCORE_OF_DETECTOR.items()
            if column in scores.columns and scores[column].null_count() < len(scores)
        ]
        found.append(_share("poison_recall", attack, flagged_N[poison_N]))
    return [*found, _share("clean_lost", None, flagged_N[clean_N])]


def score_of(scores: polars.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as numbers; a pair without a score is neither suspicious nor trusted."""
    values: NDArray[np.float64] = scores[column].fill_null(NEUTRAL).cast(float).to_numpy()
    return values


def auroc(poison_N: NDArray[np.float64], clean_M: NDArray[np.float64]) -> float:
    """How often a poison scores above a clean pair, ties counting half. Cost: one sort."""
    sorted_M = np.sort(clean_M)
    below_N = np.searchsorted(sorted_M, poison_N, "left") + np.searchsorted(sorted_M, poison_N, "right")
    return float(below_N.mean() / 2 / len(sorted_M))


def _share(metric: str, attack: str | None, flagged_N: NDArray[np.bool_]) -> Quality:
    return Quality(
        metric=metric, attack=attack, detector=None, value=float(flagged_N.mean()), n=len(flagged_N)
    )
