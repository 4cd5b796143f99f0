"""The numbers of an audit: each a function of tables on the disk, that anybody can compute again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.audit.tables import Removed, removed_by_domain, words_in
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.evaluation.intervals import wilson
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.scan.quality import detection_quality
from roclip_sanitize.scan.stage import read_scores, read_verdicts, verdict_tables
from roclip_sanitize.store import EmbeddingStore

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What to audit.

    Attributes:
        scan: a scan's folder.
        rewritten: the folder of shards rewritten by it, if there is one: for domains.
        ledger: a poison folder whose shards were scanned, where poisons are known.
    """

    scan: Path
    rewritten: Path | None = None
    ledger: Path | None = None

    def to_json(self) -> dict[str, str]:
        """As plain values; those that are not there are left out."""
        told = {"scan": self.scan, "rewritten": self.rewritten, "ledger": self.ledger}
        return {name: str(path) for name, path in told.items() if path is not None}

    @classmethod
    def from_json(cls, told: dict[str, str]) -> AuditSettings:
        """The inverse of to_json()."""
        return cls(**{name: Path(path) for name, path in told.items()})


def measure(settings: AuditSettings) -> dict[str, Any]:
    """All numbers, as plain values.

    Raises: as write_audit().
    """
    scan = StageFolder.open(settings.scan, stage="scan")
    store = EmbeddingStore.open(Path(scan.settings["store"]))
    kept, reasons, first, words = 0, Counter[str](), Counter[str](), Removed()
    for verdicts, names in _tables(settings.scan, store):
        words.count(zip(map(words_in, names["caption"]), verdicts["kept"], strict=True))
        told = [text.split(";") for text in verdicts["reasons"] if text]
        kept += int(verdicts["kept"].sum())
        reasons.update(reason for each in told for reason in each)
        first.update(each[0] for each in told)
    failed = Counter[str]()
    for part in store.parts:
        failed.update(store.failures(part.name)["reason"].to_list())
    facts = {
        "pairs": {
            "seen": kept + first.total() + failed.total(),
            "kept": kept,
            "quarantined": dict(sorted(first.items())),
            "failed": dict(sorted(failed.items())),
        },
        "reasons": dict(sorted(reasons.items())),
        "budget": scan.settings["budget"],
        "detectors": scan.settings["detectors"],
        "words": words.to_json(),
        "sources": {name: _source(Path(path)) for name, path in settings.to_json().items()},
    }
    if settings.rewritten is not None:
        _require_scan_of(settings)
        facts["domains"] = removed_by_domain(settings.rewritten).to_json()
    if settings.ledger is not None:
        facts |= _against(settings.scan, Ledger.open(settings.ledger))
    return facts


def seal_of(path: Path) -> str:
    """Sha256 over what a finished stage's folder was made with, declares, and hashes."""
    folder = StageFolder(path)
    files = {marker.name: dict(marker.files) for marker in folder.markers()}
    whole = [read_json(path / "stage.json"), read_json(path / "complete.json"), files]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _tables(scan: Path, store: EmbeddingStore) -> Iterator[tuple[polars.DataFrame, polars.DataFrame]]:
    """Verdicts and captions of the same rows, part by part."""
    for verdicts, part in zip(verdict_tables(scan, ("uid", "kept", "reasons")), store.parts, strict=True):
        names = store.metadata(part.name, ("uid", "caption"))
        if not names["uid"].equals(verdicts["uid"]):
            raise MismatchError(
                f"part {part.name} of {store.path} has other pairs than {scan}: scan it again"
            )
        yield verdicts, names


def _source(path: Path) -> dict[str, str]:
    return {"path": str(path), "seal": seal_of(path)}


def _require_scan_of(settings: AuditSettings) -> None:
    assert settings.rewritten is not None
    told = Path(StageFolder.open(settings.rewritten, stage="rewrite").settings["verdicts"])
    if told.resolve() != settings.scan.resolve():
        raise MismatchError(f"{settings.rewritten} was rewritten by {told}, wanted by {settings.scan}")


def _against(scan: Path, ledger: Ledger) -> dict[str, Any]:
    """What a ledger's poisons say of the scan."""
    found = detection_quality(read_scores(scan), read_verdicts(scan), ledger.poisons, covers=ledger.covers)
    attacks, lost = dict[str, dict[str, Any]](), dict[str, Any]()
    for each in found:
        told = attacks.setdefault(each.attack, {"auroc": {}}) if each.attack else lost
        if each.metric == "auroc":
            told["auroc"][each.detector] = round(each.value, 6)
            continue
        hits = round(each.value * each.n)
        low, high = wilson(hits, each.n)
        told |= {"n": each.n, "hits": hits, "low": round(low, 6), "high": round(high, 6)}
    return {"attacks": attacks, "clean_lost": lost}
