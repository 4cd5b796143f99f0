"""What a scan made of what was planted, by the ledger: counts, intervals, rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.scan import read_scores, read_verdicts
from roclip_sanitize.scan.quality import detection_quality


def against_ledger(scan: Path, ledger: Ledger) -> dict[str, Any]:
    """Recall and AUROC of each attack, and what clean pairs and cover samples lost.

    Returns:
        "attacks": of each n poisons, hits found, the 95 % interval of the share, and AUROCs by detector;
        "planted": all attacks together; "clean_lost": of clean pairs; "covers": of cover samples, those kept.

    Raises:
        MismatchError: the ledger names no pair of the scan.

    Memory: all scores and verdicts.
    """
    verdicts = read_verdicts(scan)
    found = detection_quality(read_scores(scan), verdicts, ledger.poisons, covers=ledger.covers)
    attacks, lost = dict[str, dict[str, Any]](), dict[str, Any]()
    for each in found:
        told = attacks.setdefault(each.attack, {"auroc": {}}) if each.attack else lost
        if each.metric == "auroc":
            told["auroc"][each.detector] = round(each.value, 6)
        else:
            told |= _share(round(each.value * each.n), each.n)
    totals = (sum(told[name] for told in attacks.values()) for name in ("hits", "n"))
    covers = verdicts.filter(verdicts["uid"].is_in(list(ledger.covers)))
    return {
        "attacks": attacks,
        "planted": _share(*totals),
        "clean_lost": lost,
        "covers": {"n": len(covers), "kept": int(covers["kept"].sum())},
    }


def _share(hits: int, n: int) -> dict[str, Any]:
    low, high = wilson(hits, n)
    return {"n": n, "hits": hits, "low": round(low, 6), "high": round(high, 6)}
