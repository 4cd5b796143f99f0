"""Audits: every number measured again from the folders that it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roclip_sanitize.audit.facts import AuditSettings, measure
from roclip_sanitize.runfiles import StageFolder, read_json, sha256_of
from roclip_sanitize.verification.contract import require_equal


def verify_audit(folder: StageFolder) -> Iterator[str]:
    """Measure it all again. Memory: as audit.write_audit()."""
    path = folder.path / "audit.json"
    require_equal(sha256_of(path), folder.facts["seal"], what="sha256", where=path)
    told, found = read_json(path), measure(AuditSettings.from_json(folder.settings))
    numbers = dict(_leaves(found))
    for name, value in _leaves(told):
        require_equal(value, numbers.pop(name, None), what=name, where=path)
    require_equal(sorted(numbers), [], what="numbers that it leaves out", where=path)
    count = sum(isinstance(value, int | float) for _, value in _leaves(told))
    yield f"{count:,} numbers are what {', '.join(sorted(folder.settings))} give when measured again"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Plain values with the way to each."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
