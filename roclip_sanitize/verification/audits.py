"""Audits: every number measured again from the folders that it names.

The pairs that the page shows are not chosen again: they are no numbers, and the bytes of a small JPEG
depend on who made it. The seal covers them. The page is made again of all that, by this version's template,
and so must be one of this version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from roclip_sanitize.audit import AuditSettings, measure, page_of, seal_of_audit
from roclip_sanitize.canaries import CANARIES_STAGE
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.storage import read_bytes
from roclip_sanitize.verification.contract import require_equal
from roclip_sanitize.whereabouts import told_folder

STAGES = {"scan": "scan", "rewritten": "rewrite", "ledger": "poison", "canaries": CANARIES_STAGE}


def verify_audit(folder: StageFolder) -> Iterator[str]:
    """Measure it all again. Memory: as audit.write_audit()."""
    path = folder.path / "audit.json"
    seal = seal_of_audit(folder.path)
    require_equal(folder.facts["seal"], seal, what="seal", where=folder.path / "complete.json")
    told, found = read_json(path), _measured(folder)
    del told["shown"]
    numbers = dict(_leaves(found))
    for name, value in _leaves(told):
        require_equal(value, numbers.pop(name, None), what=name, where=path)
    require_equal(sorted(numbers), [], what="numbers that it leaves out", where=path)
    if read_bytes(page := folder.path / "audit.html") != page_of(folder.path):
        raise MismatchError(f"{page} is not the page that audit.json makes: write the audit again")
    count = sum(isinstance(value, int | float) for _, value in _leaves(told))
    yield f"{count:,} numbers are what {', '.join(sorted(found['sources']))} give when measured again"
    yield "its page is what its numbers and pictures make it, byte for byte"
    yield f"its seal is {seal}: compare it with the one that was kept elsewhere"


def _measured(folder: StageFolder) -> dict[str, Any]:
    """All numbers again, of the folders that it names, wherever they are: called as it calls them."""
    told = AuditSettings.from_json(folder.settings)
    here = {name: told_folder(folder.path, path, stage=STAGES[name]) for name, path in told.sources.items()}
    found = measure(replace(told, **here))  # type: ignore[arg-type]
    for name, path in told.sources.items():
        found["sources"][name]["path"] = str(path)
    return found


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Plain values with the way to each."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
