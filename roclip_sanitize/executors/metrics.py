"""Metrics of the Ray cluster. Outside Ray there are none, and it is not imported to find that out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping


def open_metrics(
    gauges: Mapping[str, str], counters: Mapping[str, str], tags: Mapping[str, str]
) -> Callable[[Mapping[str, float]], None] | None:
    """Register metrics with the Ray node that this process is on.

    Args:
        gauges: name → what it says, of values that replace each other.
        counters: the same of values that add up.
        tags: name → value, of all of them.

    Returns:
        Takes new values by name, of some or all of the metrics; None where this process is not Ray's.
    """
    if "ray" not in sys.modules:
        return None
    import ray
    from ray.util.metrics import Counter, Gauge

    if not ray.is_initialized():
        return None
    known = dict(tags)
    gauge = {name: Gauge(name, what, tuple(known)) for name, what in gauges.items()}
    counter = {name: Counter(name, what, tuple(known)) for name, what in counters.items()}

    def tell(values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name in gauge:
                gauge[name].set(float(value), tags=known)
            elif value > 0:  # Ray refuses to count nothing
                counter[name].inc(float(value), tags=known)

    return tell
