"""What became of every pair of a scan, on a page for auditors, with each number checkable.

    scan (+ rewritten shards, + ledger) ─▶ facts.measure() ─▶ audit.json ─▶ page ─▶ audit.html
                               some pairs with pictures ────────┘

    facts.py      the numbers: functions of the tables, counted, never copied from a tally
    rewriting.py  what became of every pair where shards were rewritten
    tables.py     what was removed of each word, label and domain
    clusters.py   the pictures and captions that came most often among what was removed
    planted.py    what was found of known poisons
    rules.py      where each number comes from
    page.py       audit.json → one self-contained page

``roclip verify OUT`` measures every number again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roclip_sanitize.audit.facts import AuditSettings, measure
from roclip_sanitize.audit.page import render_audit
from roclip_sanitize.report.gallery import collect_gallery, small_pictures
from roclip_sanitize.report.loading import gallery_to_json
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of, write_bytes, write_json
from roclip_sanitize.sources import source_path
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.whereabouts import store_of

__all__ = ["AUDIT_STAGE", "AuditSettings", "measure", "page_of", "seal_of_audit", "write_audit"]

AUDIT_STAGE = "audit"


def write_audit(settings: AuditSettings, *, out: Path) -> str:
    """Write OUT/audit.json and OUT/audit.html.

    Args:
        settings: what to audit.
        out: folder for both.

    Returns:
        The seal, see seal_of_audit().

    Raises:
        DataError: there is no scan; or no pair has the label.
        MismatchError: the rewritten shards or the ledger do not belong to the scan; or ``out`` was made of
            other folders.

    Memory: of a page's pictures, one part's tables, every distinct word, and a hash and a caption of each
    pair set aside; with a ledger all scores.
    """
    folder = StageFolder.create(out, stage=AUDIT_STAGE, settings=settings.to_json())
    numbers, page = out / "audit.json", out / "audit.html"
    facts = measure(settings)
    write_json(numbers, {**facts, "shown": _shown(settings, facts)})
    write_bytes(page, page_of(out))
    folder.commit("audit", files=[numbers, page], facts={})
    seal = seal_of_audit(out)
    folder.finish({"seal": seal})
    return seal


def page_of(out: Path) -> bytes:
    """What OUT/audit.json and this version's template make of OUT/audit.html: nothing else decides a byte."""
    numbers = out / "audit.json"
    return render_audit(read_json(numbers), digest=sha256_of(numbers)).encode("utf-8", "replace")


def seal_of_audit(out: Path) -> str:
    """Sha256 of done/audit.json, which has that of the numbers and the page.

    The numbers include hashes of all folders that they were made of. So whoever keeps the seal elsewhere can
    tell later that nothing behind the page was changed.
    """
    return sha256_of(out / "done" / "audit.json")


def _shown(settings: AuditSettings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs to look at, with their pictures: chosen from the tables, but no numbers."""
    store = EmbeddingStore.open(store_of(StageFolder.open(settings.scan, stage="scan")))
    shards = {part.name: source_path(path) for part, path in zip(store.parts, store.shards, strict=True)}
    in_clusters = list(_pairs_of_clusters(facts["clusters"], facts.get("traces", {})))
    parts = {pair["part"] for pair in in_clusters}
    pictures = small_pictures(
        (path for name, path in shards.items() if name in parts), (pair["uid"] for pair in in_clusters)
    )
    gallery = collect_gallery(settings.scan, shards.values(), ledger=settings.ledger)
    return {
        "gallery": gallery_to_json(gallery),
        "pictures": {uid: base64.b64encode(data).decode("ascii") for uid, data in pictures.items()},
    }


def _pairs_of_clusters(clusters: Mapping[str, Any], traces: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    yield from (cluster["picture"] for cluster in clusters["one_picture"]["largest"])
    for cluster in clusters["one_caption"]["largest"]:
        yield from cluster["pictures"]
    for trace in traces.get("largest", ()):
        yield from trace["pictures"]
