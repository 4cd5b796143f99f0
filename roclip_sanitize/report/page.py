"""ReportData → HTML. Pure: no file is read but the template and the style beside this module.

Captions, reasons and every other text come from strangers: the template escapes all of it, and the
page forbids itself scripts and the network besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from roclip_sanitize.report import words
from roclip_sanitize.report.data import GalleryItem, GalleryKind, Manifest, ReportData
from roclip_sanitize.report.environment import render
from roclip_sanitize.report.figures import curve_panels
from roclip_sanitize.report.funnel import funnel_rows
from roclip_sanitize.report.headline import headline, subline, tiles
from roclip_sanitize.report.tables import (
    arm_colours,
    arms_in_order,
    attack_table,
    detection_table,
    usefulness_table,
)
from roclip_sanitize.scan.judging import COPIES_TESTIFY

TITLES: Mapping[GalleryKind, str] = {
    "caught": "Planted pairs that were caught",
    "lost": "Clean pairs that were lost",
    "missed": "Planted pairs that were missed",
    "quarantined": "Pairs set aside",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GallerySection:
    """Pairs of one kind, with their heading."""

    kind: GalleryKind
    title: str
    items: tuple[GalleryItem, ...]


def render_page(data: ReportData) -> str:
    """The whole page; the same data give the same text."""
    return render("report", "page.html.j2", **_context(data))


def _context(data: ReportData) -> dict[str, Any]:
    colours = arm_colours(data)
    return {
        "manifest": data.manifest,
        "headline": headline(data),
        "subline": subline(data),
        "tiles": tiles(data),
        "arms": [(words.arm_label(arm), colours[arm]) for arm in arms_in_order(data)],
        "attacks": attack_table(data),
        "usefulness": usefulness_table(data),
        "panels": curve_panels(data),
        "funnel": funnel_rows(data.manifest.stages),
        "detection": detection_table(data),
        "gallery": gallery_sections(data.gallery),
        "facts": _facts(data.manifest),
        "stages": [
            (stage.name, words.duration(stage.seconds), words.memory(stage.peak_memory_bytes))
            for stage in data.manifest.stages
        ],
        "results": data.results,
        "mark": mark,
        "evidence": evidence,
    }


def gallery_sections(items: Iterable[GalleryItem]) -> list[GallerySection]:
    """The gallery by kind, kinds without pairs left out."""
    found = list(items)
    return [
        GallerySection(kind=kind, title=title, items=mine)
        for kind, title in TITLES.items()
        if (mine := tuple(one for one in found if one.kind == kind))
    ]


def _facts(manifest: Manifest) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (words.sentence_case(words.spaced(name)), list(words.plain_facts(value)))
        for name, value in manifest.facts.items()
        if value not in (None, "", {}, [])
    ]


def evidence(item: GalleryItem) -> str:
    """What the small pictures are: near-copies where these alone speak against it, else neighbours."""
    copies = item.reasons and COPIES_TESTIFY.issuperset(item.reasons)
    return "Near-copies of it came with" if copies else "The pictures most like it came with"


def mark(item: GalleryItem) -> str:
    """What a pair is, in a few words."""
    planted = f"planted: {words.spaced(item.attack)}" if item.attack else ""
    return {
        "caught": planted,
        "missed": f"{planted}, missed",
        "lost": "clean pair, lost",
        "quarantined": " + ".join(words.spaced(reason) for reason in item.reasons),
    }[item.kind]
