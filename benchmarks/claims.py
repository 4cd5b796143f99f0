"""How benchmarks state what they found: a table for people, and one JSON line at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from roclip_sanitize.machine import describe_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One number, what it should be, and whether it is.

    Attributes:
        name: what was measured, unit included.
        value: what came out.
        target: what was wanted, in words or as a number.
        holds: whether it did.
    """

    name: str
    value: float
    target: str
    holds: bool


def report(benchmark: str, claims: Sequence[Claim]) -> None:
    """Print the table and, last, the line that scripts read."""
    width = max(len(claim.name) for claim in claims)
    print(f"\n{'claim':<{width}}  {'value':>9}  {'target':>16}  holds")
    for claim in claims:
        holds = "yes" if claim.holds else "NO"
        print(f"{claim.name:<{width}}  {claim.value:>9.4g}  {claim.target:>16}  {holds}")
    line = {
        "benchmark": benchmark,
        "machine": describe_machine(),
        "claims": [asdict(claim) for claim in claims],
    }
    print(json.dumps(line))
