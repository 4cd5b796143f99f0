"""audit.json and some pictures → one page. Pure: every number on it is in audit.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from roclip_sanitize.report import words
from roclip_sanitize.report.data import GalleryItem, Stage
from roclip_sanitize.report.environment import render
from roclip_sanitize.report.funnel import funnel_rows
from roclip_sanitize.report.page import evidence, gallery_sections, mark

# What each section rests on, and how anybody may count it again.
RULES: Mapping[str, str] = {
    "pairs": (
        "verdicts/*.parquet of the scan: rows by the first of their reasons; failures/*.parquet of its store"
    ),
    "reasons": "verdicts/*.parquet of the scan, column reasons; a pair may have several",
    "words": (
        "captions of the store's metadata/*.parquet beside the scan's column kept; a caption counts "
        "once for each of its words"
    ),
    "domains": "column url of the tables beside the rewritten shards",
    "attacks": (
        "ledger.parquet of the poison folder beside the scan's verdicts and scores; Wilson intervals"
    ),
}
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
        "they are small, and one optimised against an encoder need not look like a trigger to another"
    ),
    "poisons that are most of their class": (
        "where half of what the corpus has of a class is poison, the poison is what its pictures "
        "usually come with"
    ),
}


def render_audit(facts: Mapping[str, Any], gallery: Iterable[GalleryItem], *, seal: str) -> str:
    """The whole page.

    Args:
        facts: what audit.json holds.
        gallery: pairs to show, with their pictures.
        seal: sha256 of audit.json.
    """
    pairs = facts["pairs"]
    removed = sum(pairs["quarantined"].values())
    return render(
        "audit",
        "audit.html.j2",
        facts=facts,
        removed=removed,
        share=words.percent(removed / pairs["seen"]) if pairs["seen"] else words.MISSING,
        funnel=funnel_rows([Stage(name="scan", tally=pairs)]),
        attacks=_attacks(facts),
        tables=[(title, _removed(facts[name])) for title, name in _sections(facts)],
        gallery=gallery_sections(gallery),
        mark=mark,
        evidence=evidence,
        rules={name: rule for name, rule in RULES.items() if name in facts},
        passes=PASSES,
        seal=seal,
    )


def _sections(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = (("word", "words"), ("domain", "domains"))
    return [(title, name) for title, name in known if facts.get(name, {}).get("counted")]


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


def _attacks(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per attack what was planted and found, and its best detector."""
    rows = []
    for name, told in facts.get("attacks", {}).items():
        best = max(told["auroc"], key=told["auroc"].get, default=None)
        rows.append(
            {
                "name": words.spaced(name),
                "found": f"{told['hits']:,} of {told['n']:,}",
                "share": words.percent(told["hits"] / told["n"]),
                "width": round(100 * told["hits"] / told["n"], 2),
                "interval": f"{100 * told['low']:.1f}–{100 * told['high']:.1f}{words.NBSP}%",
                "missed": told["n"] - told["hits"],
                "best": f"{words.spaced(best)} {told['auroc'][best]:.3f}" if best else words.MISSING,
            }
        )
    return rows
