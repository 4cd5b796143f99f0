"""How far a run's stages are, as metrics of the Ray cluster: for its dashboard, Prometheus and Grafana.

All are tagged with the run's folder and the stage, failures with their reason too. Prometheus sees ``ray_``
before each name, and ``_total`` after a counter's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from roclip_sanitize.executors.metrics import open_metrics
from roclip_sanitize.status.reading import RunStatus, StageStatus

PREFIX = "roclip_stage_"
GAUGES = {
    "pairs_per_second": "pairs per second lately, over all workers",
    "shards_done": "shards that are done",
    "shards_waiting": "shards that are not done yet: the queue's depth",
    "device_share": "share of the workers' time that the model was at work, 0 to 1",
    "seconds_left": "time left at that rate",
}
PAIRS, FAILURES = "pairs", "failed_pairs"
COUNTERS = {PAIRS: "pairs seen"}

Tell = Callable[[Mapping[str, float]], None]
Open = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, str]], Tell | None]


class StageMetrics:
    """Tells the cluster; outside Ray nobody.

    Args:
        run: what the metrics are tagged with.
        connect: opens metrics: see executors.metrics.open_metrics.
    """

    def __init__(self, run: str, *, connect: Open = open_metrics) -> None:
        self._run, self._connect = run, connect
        self._tells: dict[tuple[str, ...], Tell | None] = {}
        self._counted: dict[tuple[str, ...], float] = {}

    def known(self, status: RunStatus) -> None:
        """Take note of what earlier runs did: a counter begins at 0 in each process."""
        for stage in status.stages:
            self._counted[(stage.name,)] = stage.tally.seen
            self._counted |= {(stage.name, reason): count for reason, count in stage.tally.failed.items()}

    def told(self, status: RunStatus) -> None:
        """Tell how far the run is."""
        for stage in status.stages:
            if stage.unit == "shards":  # trainings have metrics of their own
                self._tell_stage(stage)

    def _tell_stage(self, stage: StageStatus) -> None:
        values = {
            "pairs_per_second": stage.rate,
            "shards_done": stage.done,
            "shards_waiting": None if stage.total is None else stage.total - stage.done,
            "device_share": stage.device_share,
            "seconds_left": 0.0 if stage.finished else stage.seconds_left,
        }
        known = {PREFIX + name: float(value) for name, value in values.items() if value is not None}
        tell = self._opened({"run": self._run, "stage": stage.name}, gauges=GAUGES, counters=COUNTERS)
        if tell is None:
            return
        tell(known | {PREFIX + PAIRS: self._new((stage.name,), stage.tally.seen)})
        for reason, count in stage.tally.failed.items():
            tags = {"run": self._run, "stage": stage.name, "reason": reason}
            counted = self._opened(tags, gauges={}, counters={FAILURES: "pairs that could not be used"})
            if counted is not None:
                counted({PREFIX + FAILURES: self._new((stage.name, reason), count)})

    def _opened(
        self, tags: Mapping[str, str], *, gauges: Mapping[str, str], counters: Mapping[str, str]
    ) -> Tell | None:
        key = tuple(tags.values())
        if self._tells.get(key) is None:  # Ray may come up later
            values, counts = (
                {PREFIX + name: what for name, what in known.items()} for known in (gauges, counters)
            )
            self._tells[key] = self._connect(values, counts, tags)
        return self._tells[key]

    def _new(self, key: tuple[str, ...], count: float) -> float:
        before, self._counted[key] = self._counted.get(key, 0.0), count
        return max(0.0, count - before)
