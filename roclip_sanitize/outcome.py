"""What a run of the loop showed, and whether it proves anything at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roclip_sanitize.evaluation.counts import is_whole
from roclip_sanitize.evaluation.results import Result, find
from roclip_sanitize.runfiles import read_json

CONTROL_SUCCESS = 0.8  # below this on plain CLIP, an attack did not take and nothing is proved
UNDEFENDED, UNDEFENDED_AUGMENTED, SANITISED = "undefended", "undefended_augmented", "sanitised_consensus"
ARMS = (UNDEFENDED, UNDEFENDED_AUGMENTED, SANITISED)


def scan_results(run: Path, *, seed: int) -> list[Result]:
    """How well the scan of a run found what its ledger says was planted."""
    from roclip_sanitize.attacks.ledger import Ledger
    from roclip_sanitize.scan.quality import detection_quality
    from roclip_sanitize.scan.results import read_scores, read_verdicts

    ledger = Ledger.open(run / "poison")
    scores, verdicts = read_scores(run / "scan"), read_verdicts(run / "scan")
    qualities = detection_quality(scores, verdicts, ledger.poisons, covers=ledger.covers)
    return [_scan_result(quality, seed) for quality in qualities]


def _scan_result(quality: Any, seed: int) -> Result:
    arm = f"scan:{quality.detector}" if quality.detector else "scan"
    if quality.metric == "auroc":  # no share of trials: it has no Wilson interval
        return Result(
            arm=arm,
            attack=quality.attack,
            metric="auroc",
            value=quality.value,
            low=quality.value,
            high=quality.value,
            n=quality.n,
            seed=seed,
        )
    hits = round(quality.value * quality.n)
    return Result.of_share(hits, quality.n, arm=arm, attack=quality.attack, metric=quality.metric, seed=seed)


def novelty(run: Path) -> dict[str, Any]:
    """How much of the test set was trained on, as evaluate/split.json has it, in five numbers."""
    split = read_json(run / "evaluate" / "split.json")
    near = split["near_duplicates"]
    return {
        "pictures": split["pictures"],
        "compared": near["n"],
        "copies": split["copies"]["hits"],
        "near_duplicates": near["hits"],
        "near_from_cosine": near["cosine"],
    }


def why_void(results: list[Result]) -> str | None:
    """Why a run proves nothing: an attack that plain CLIP resisted was never there to be defended against."""
    weak = [
        f"{result.attack} took {result.value:.0%}"
        for result in results
        if (result.arm, result.metric) == (UNDEFENDED, "attack_success")
        and is_whole(result.attack)
        and result.value < CONTROL_SUCCESS
    ]
    if not weak:
        return None
    return (
        f"on undefended CLIP {' and '.join(weak)}, less than the {CONTROL_SUCCESS:.0%} that a control needs"
    )


def results_table(results: list[Result]) -> str:
    """The before/after table for a terminal."""
    attacks = list(dict.fromkeys(result.attack for result in results if is_whole(result.attack)))
    columns: list[tuple[str | None, str, str]] = [
        (None, "zero_shot_top1", "zero-shot"),
        (None, "retrieval_r1", "R@1"),
    ]
    for attack in attacks:
        columns += [
            (attack, "attack_success", f"{attack} success"),
            (attack, "clean_target_rate", "(clean rate)"),
        ]
    lines = [f"{'':22}" + "".join(f"{title:>18}" for _, _, title in columns)]
    for arm in (UNDEFENDED, UNDEFENDED_AUGMENTED, SANITISED):
        cells = [find(results, arm=arm, attack=attack, metric=metric) for attack, metric, _ in columns]
        lines.append(
            f"{arm:22}" + "".join(f"{cell.value:>18.1%}" if cell else f"{'-':>18}" for cell in cells)
        )
    return "\n".join(lines)
