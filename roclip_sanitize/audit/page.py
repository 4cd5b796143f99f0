"""audit.json → one page. Pure: every number and picture on it is in audit.json."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from roclip_sanitize.report import words
from roclip_sanitize.report.data import Stage
from roclip_sanitize.report.environment import render
from roclip_sanitize.report.funnel import funnel_rows
from roclip_sanitize.report.loading import gallery_from_json
from roclip_sanitize.report.page import evidence, gallery_sections, mark

CONCEPTS = (("label", "labels"), ("word", "words"), ("domain", "domains"))
ALL_DETECTORS = "fused"  # the name of what they say together, see scan/quality.py
PASSES: Mapping[str, str] = {
    "cover samples": (
        "pairs that carry a trigger under their own, true caption: nothing about them is wrong, so "
        "that a scan keeps them, and they make the trigger's poisons look more ordinary"
    ),
    "plausible captions": (
        "a caption that fits its picture and still misleads says nothing that could be told from "
        "the picture; it is found only where one picture has many of them"
    ),
    "patches made against a known model": (
        "as BadCLIP does: they are small, and one optimised against an encoder need not look like a trigger "
        "to another"
    ),
    "poisons that are most of their class": (
        "where half of what the corpus has of a class is poison, the poison is what its pictures "
        "usually come with"
    ),
}


def render_audit(audit: Mapping[str, Any], *, digest: str) -> str:
    """The whole page.

    Args:
        audit: what audit.json holds.
        digest: its sha256.
    """
    scanned, shown = audit["pairs"], audit["shown"]
    pairs = audit.get("rewritten", scanned)
    removed = sum(pairs["quarantined"].values())
    return render(
        "audit",
        "audit.html.j2",
        facts=audit,
        pairs=pairs,
        removed=removed,
        share=words.percent(removed / pairs["seen"]) if pairs["seen"] else words.MISSING,
        funnel=funnel_rows(
            [Stage(name="as scanned", tally=scanned), Stage(name="as rewritten", tally=pairs)]
        ),
        attacks=_attacks(audit),
        canaries=[
            _found(told["family"], told["found"], told["planted"], told) for told in audit.get("canaries", ())
        ],
        tables=[
            (title, _removed(audit[name])) for title, name in CONCEPTS if audit.get(name, {}).get("counted")
        ],
        clusters=audit["clusters"],
        traces=audit.get("traces"),
        pictures={uid: base64.b64decode(text) for uid, text in shown["pictures"].items()},
        gallery=gallery_sections(gallery_from_json(shown["gallery"])),
        mark=mark,
        evidence=evidence,
        passes=PASSES,
        digest=digest,
    )


def _removed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of shares: rows of (name, pairs, removed, share, times the mean)."""
    mean = table["mean_share"]
    rows = [
        {
            "name": row["name"],
            "pairs": words.thousands(row["pairs"]),
            "removed": words.thousands(row["removed"]),
            "share": words.percent(row["removed"] / row["pairs"]),
            "width": round(100 * row["removed"] / row["pairs"], 2),
            "times": f"{row['removed'] / row['pairs'] / mean:.1f} ×" if mean else words.MISSING,
        }
        for row in table["largest"]
        if row["removed"]
    ]
    return {**table, "mean": words.percent(mean), "rows": rows}


def _attacks(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per attack what was planted and found, the most missed first, and how its poisons rank."""
    rows = [
        {**_found(name, told["hits"], told["n"], told), "ranking": _ranking(told["auroc"])}
        for name, told in audit.get("attacks", {}).items()
    ]
    return sorted(rows, key=lambda row: (-row["missed"], row["name"]))


def _found(name: str, hits: int, n: int, told: Mapping[str, float]) -> dict[str, Any]:
    """A row on poisons of one kind."""
    return {
        "name": words.spaced(name),
        "found": f"{hits:,} of {n:,}",
        "share": words.percent(hits / n),
        "width": round(100 * hits / n, 2),
        "interval": f"{100 * told['low']:.1f}–{100 * told['high']:.1f}{words.NBSP}%",
        "missed": n - hits,
    }


def _ranking(auroc: Mapping[str, float]) -> str:
    """AUROC of what all detectors say together, where the scan has it, and of the best alone."""
    alone = {name: value for name, value in auroc.items() if name != ALL_DETECTORS}
    best = max(alone, key=lambda name: alone[name], default=None)
    together = [words.number(auroc[ALL_DETECTORS])] if ALL_DETECTORS in auroc else []
    single = [f"{words.number(alone[best])} by {words.spaced(best)} alone"] if best else []
    return "; ".join([*together, *single]) or words.MISSING
