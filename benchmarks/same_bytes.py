"""Whether two folders hold the same: every file's bytes, but for what tells times.

Of markers, complete.json, the manifest and logs, whatever is named after seconds is left out; so are the
temporary neighbours that a killed writer leaves behind, event files, which are named after the time, and the
records of runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from roclip_sanitize.runfiles import RECORDS, read_json, sha256_of

UNSTEADY = {"retries", "loss_mean", "agreement"}  # means are of the steps since the run, or its resume, began


def tree(out: Path) -> dict[str, object]:
    """All that a folder holds, by path, but for times, retries and what killed writers leave."""
    return {
        path.relative_to(out).as_posix(): _content(path)
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.suffix != ".part"
        and path.parent.name != "tensorboard"
        and path.name not in RECORDS
    }


def _content(path: Path) -> object:
    if path.parent.name == "done" or path.name in {"complete.json", "manifest.json"}:
        return _timeless(read_json(path))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return sha256_of(path)  # short, so that a difference is quickly told


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = (name for name in value if "second" not in name and name not in UNSTEADY)
        return {name: _timeless(value[name]) for name in kept}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return value
