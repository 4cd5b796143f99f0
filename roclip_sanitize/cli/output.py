"""What commands print: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from roclip_sanitize.cli.failing import too_many
from roclip_sanitize.cli.session import session
from roclip_sanitize.errors import TooManyFailed
from roclip_sanitize.limits import Limits
from roclip_sanitize.records import Tally
from roclip_sanitize.redaction import with_urls

TRACES_SHOWN = 5


def say(line: str) -> None:
    """One line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)


def show(facts: dict[str, Any], *, as_json: bool) -> None:
    """A command's result: printed, or left to the caller of call()."""
    session().result |= facts
    if session().silent:
        return
    if as_json:
        print(json.dumps(facts, indent=1, sort_keys=True))
        return
    for name, value in facts.items():
        print(with_urls(f"{name:<18} {value}"))


def told(limits: Limits, *, as_json: bool) -> dict[str, Any]:
    """What bounded a command: part of its JSON result, or else a table beside the result."""
    if as_json:
        return {"limits": limits.to_json()}
    for line in limits.lines():
        say(line)
    return {}


def scan_findings(out: Path, *, as_json: bool) -> dict[str, Any]:
    """What a finished scan found beside its verdicts, as one prints it."""
    from roclip_sanitize.scan.results import findings

    found = findings(out)
    if as_json:
        return found
    if "estimated_mismatch" in found:
        found["estimated_mismatch"] = f"{found['estimated_mismatch']:.2%}"
    if "traces" in found:
        shown = [f"{each['word']} ({each['pairs']:,})" for each in found["traces"][:TRACES_SHOWN]]
        more = len(found["traces"]) - len(shown)
        found["traces"] = ", ".join(shown) + (f", and {more} words more" if more else "")
    return found


def finish(
    tally: Tally, limits: Limits | None = None, *, max_failed: float, as_json: bool, **more: Any
) -> None:
    """Print what became of the pairs, and what bounded the work.

    Raises:
        TooManyFailed: more failed than may, or a shard is broken.
    """
    if limits is not None:
        more |= told(limits, as_json=as_json)
    if as_json:
        show({**tally.to_json(), **more}, as_json=True)
    else:
        for line in tally_lines(tally):
            print(line)
        show(more, as_json=False)
    if why := too_many(tally, max_failed=max_failed):
        raise TooManyFailed(why)


def tally_lines(tally: Tally) -> list[str]:
    """A tally as a small table that adds up."""
    lines = [f"{tally.seen:>12,}  pairs seen", f"{tally.kept:>12,}  kept"]
    lines += [f"{count:>12,}  quarantined: {reason}" for reason, count in tally.quarantined.most_common()]
    lines += [f"{count:>12,}  failed: {reason}" for reason, count in tally.failed.most_common()]
    return lines
