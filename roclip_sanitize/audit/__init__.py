"""What became of every pair of a scan, on a page for auditors, with each number checkable.

    scan (+ rewritten shards, + ledger) ─▶ facts.measure() ─▶ audit.json ─▶ page ─▶ audit.html

    facts.py   the numbers: functions of the tables, counted, never copied from a tally
    tables.py  what was removed of each word and each domain
    page.py    audit.json and some pictures → one self-contained page

``roclip verify OUT`` measures every number again.
"""

from __future__ import annotations

from pathlib import Path

from roclip_sanitize.audit.facts import AuditSettings, measure
from roclip_sanitize.audit.page import render_audit
from roclip_sanitize.report.gallery import collect_gallery
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of, write_bytes, write_json
from roclip_sanitize.sources import source_path
from roclip_sanitize.store import EmbeddingStore

__all__ = ["AUDIT_STAGE", "AuditSettings", "measure", "write_audit"]

AUDIT_STAGE = "audit"


def write_audit(settings: AuditSettings, *, out: Path) -> str:
    """Write OUT/audit.json and OUT/audit.html.

    Args:
        settings: what to audit.
        out: folder for both.

    Returns:
        The sha256 of audit.json. It seals what the audit rests on, whose hashes are in it: whoever keeps it
        elsewhere can tell later that nothing was changed.

    Raises:
        DataError: there is no scan.
        MismatchError: the rewritten shards or the ledger do not belong to the scan; or ``out`` was made of
            other folders.

    Memory: of a page's pictures, one part's tables, and every distinct word; with a ledger all scores.
    """
    folder = StageFolder.create(out, stage=AUDIT_STAGE, settings=settings.to_json())
    facts, page = out / "audit.json", out / "audit.html"
    write_json(facts, measure(settings))
    scan = StageFolder.open(settings.scan, stage="scan")
    shards = [source_path(shard) for shard in EmbeddingStore.open(Path(scan.settings["store"])).shards]
    gallery = collect_gallery(settings.scan, shards, ledger=settings.ledger)
    seal = sha256_of(facts)
    write_bytes(page, render_audit(read_json(facts), gallery, seal=seal).encode("utf-8", "replace"))
    folder.commit("audit", files=[facts, page], facts={})
    folder.finish({"seal": seal})
    return seal
