"""The numbers of an audit: each a function of tables on the disk, that anybody can compute again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.planted import require_planted
from roclip_sanitize.audit.clusters import worst_clusters, worst_traces
from roclip_sanitize.audit.planted import against_ledger
from roclip_sanitize.audit.rewriting import as_rewritten
from roclip_sanitize.audit.rules import rules_for
from roclip_sanitize.audit.tables import Removed, removed_by_domain, removed_by_label, words_in
from roclip_sanitize.canaries import CANARIES_STAGE, require_counted
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.scan.estimate import Strangers
from roclip_sanitize.scan.rejudging import carriers_of
from roclip_sanitize.scan.results import score_tables, verdict_tables
from roclip_sanitize.scan.settings import scanned_store
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.told import as_written

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What to audit.

    Attributes:
        scan: a scan's folder.
        rewritten: the folder of shards rewritten by it, if there is one: for what became of every pair, and
            for domains.
        ledger: a poison folder whose shards were scanned, where poisons are known.
        canaries: a canaries' folder that asks about the scan.
        label: JSON field of the shards that holds a pair's class, to say what each class lost; "" for none.
    """

    scan: Path
    rewritten: Path | None = None
    ledger: Path | None = None
    canaries: Path | None = None
    label: str = ""

    @property
    def sources(self) -> dict[str, Path]:
        """The folders by what they are; those that are not there are left out."""
        told = {name: getattr(self, name) for name in ("scan", "rewritten", "ledger", "canaries")}
        return {name: path for name, path in told.items() if path is not None}

    def to_json(self) -> dict[str, str]:
        """As plain values; what is not there is left out."""
        told = {name: str(path) for name, path in self.sources.items()}
        return {**told, "label": self.label} if self.label else told

    @classmethod
    def from_json(cls, told: dict[str, str]) -> AuditSettings:
        """The inverse of to_json()."""
        paths = {name: Path(value) for name, value in told.items() if name != "label"}
        return cls(label=told.get("label", ""), **paths)


def measure(settings: AuditSettings) -> dict[str, Any]:
    """All numbers, as plain values, and the rules that they follow.

    Raises: as write_audit().
    """
    scan = StageFolder.open(settings.scan, stage="scan")
    store = scanned_store(scan)
    facts = {
        **_pairs(settings.scan, store),
        "budget": scan.settings["budget"],
        **_estimate(scan, pairs=store.rows),
        **_guard(scan),
        "detectors": scan.settings["detectors"],
        "clusters": worst_clusters(lambda: _tables(settings.scan, store)),
        **_traces(scan, store),
        "sources": {name: _source(path) for name, path in settings.sources.items()},
    }
    if settings.label:
        facts["labels"] = removed_by_label(_tables(settings.scan, store), store, settings.label).to_json()
    if settings.rewritten is not None:
        _require_of_scan(settings, settings.rewritten, stage="rewrite", named="verdicts")
        facts["rewritten"] = as_rewritten(settings.rewritten, settings.scan)
        facts["domains"] = removed_by_domain(settings.rewritten).to_json()
    if settings.canaries is not None:
        _require_of_scan(settings, settings.canaries, stage=CANARIES_STAGE, named="scan")
        facts["canaries"] = [asdict(family) for family in require_counted(settings.canaries, scan)]
    if settings.ledger is not None:
        ledger = Ledger.open(settings.ledger)
        require_planted(store, ledger)
        facts |= against_ledger(settings.scan, ledger)
    return {**facts, "rules": rules_for(facts)}


def _estimate(scan: StageFolder, *, pairs: int) -> dict[str, Any]:
    """What the scan counted of strangers, and what that makes of its budget; nothing of older scans."""
    told = scan.facts.get("strangers", {})
    with as_written(scan.path / "complete.json", "count of strangers"):
        strangers = Strangers.from_json(told)
        if strangers.share is None:
            return {}
        times = scan.settings.get("times_mismatched", 0.0)
        told = {"times": times, "carriers": carriers_of(scan)}
        allowed = strangers.allowed(pairs=pairs, budget=scan.settings["budget"], **told)
        return {"estimate": {**strangers.to_json(), **told, "allowed": allowed}}


def _guard(scan: StageFolder) -> dict[str, Any]:
    """What the guard of rare classes spared; nothing of scans without one."""
    if not (label := scan.settings.get("label")):
        return {}
    told = {"label": label, "times": scan.settings["times_per_label"], "spared": scan.facts["spared"]}
    return {"guard": {**told, "labels": len(scan.facts["label_cuts"])}}


def _traces(scan: StageFolder, store: EmbeddingStore) -> dict[str, Any]:
    """What pictures have in common; nothing of scans that did not look."""
    if "traces" not in scan.settings["detectors"]:
        return {}
    told = zip(_tables(scan.path, store), score_tables(scan.path, ("trace_word",)), strict=True)
    traced = ((name, frame.with_columns(said["trace_word"])) for (name, frame), said in told)
    return {"traces": worst_traces(traced)}


def _pairs(scan: Path, store: EmbeddingStore) -> dict[str, Any]:
    """What became of the pairs, why, and of which words."""
    kept, reasons, first, words = 0, Counter[str](), Counter[str](), Removed()
    for _, frame in _tables(scan, store):
        words.count(zip(map(words_in, frame["caption"]), frame["kept"], strict=True))
        told = [text.split(";") for text in frame["reasons"] if text]
        kept += int(frame["kept"].sum())
        reasons.update(reason for each in told for reason in each)
        first.update(each[0] for each in told)
    failed = Counter[str]()
    for part in store.parts:
        failed.update(store.failures(part.name)["reason"].to_list())
    pairs = {
        "seen": kept + first.total() + failed.total(),
        "kept": kept,
        "quarantined": dict(sorted(first.items())),
        "failed": dict(sorted(failed.items())),
    }
    return {"pairs": pairs, "reasons": dict(sorted(reasons.items())), "words": words.to_json()}


def seal_of(path: Path) -> str:
    """Sha256 over what a finished stage's folder was made with, declares, and hashes."""
    folder = StageFolder(path)
    files = {marker.name: dict(marker.files) for marker in folder.markers()}
    whole = [read_json(path / "stage.json"), read_json(path / "complete.json"), files]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _tables(scan: Path, store: EmbeddingStore) -> Iterator[tuple[str, polars.DataFrame]]:
    """Part by part: its name, and uid, caption, image_hash, kept and reasons of its pairs."""
    for verdicts, part in zip(verdict_tables(scan, ("uid", "kept", "reasons")), store.parts, strict=True):
        names = store.metadata(part.name, ("uid", "caption", "image_hash"))
        if not names["uid"].equals(verdicts["uid"]):
            raise MismatchError(
                f"part {part.name} of {store.path} has other pairs than {scan}: scan it again"
            )
        yield part.name, names.with_columns(verdicts["kept"], verdicts["reasons"])


def _source(path: Path) -> dict[str, str]:
    return {"path": str(path), "seal": seal_of(path)}


def _require_of_scan(settings: AuditSettings, path: Path, *, stage: str, named: str) -> None:
    """Refuse what was made of another scan than the one that is audited, or of what that said before."""
    told = StageFolder.open(path, stage=stage).settings
    content = StageFolder(settings.scan).content
    if told.get("content") != content:  # older canaries tell none
        raise MismatchError(
            f"{path} was made of {told[named]} with content {told.get('content')}, but {settings.scan} has "
            f"{content}: make it again"
        )
