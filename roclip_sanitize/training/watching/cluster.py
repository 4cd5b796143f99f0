"""Metrics of the Ray cluster that a run is on, which its dashboard and Prometheus show."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from roclip_sanitize.executors.metrics import open_metrics
from roclip_sanitize.training.watching.contract import Report

PREFIX = "roclip_train_"
SAMPLES = "samples"
GAUGES = {
    "loss_mean": "mean loss of the latest steps",
    "learning_rate": "learning rate of the latest step",
    "logit_scale": "factor on cosines",
    "samples_per_second": "pairs per second, over all ranks",
    "agreement": "mean cosine of captions and their matches",
    "poisons_matched_away": "share of poisons whose match is no poison with the same goal",
}
COUNTERS = {SAMPLES: "pairs trained on"}

Tell = Callable[[Mapping[str, float]], None]
Open = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, str]], Tell | None]


class ClusterMetrics:
    """Tells the cluster; in a run outside Ray nobody.

    Args:
        run: what the metrics are tagged with.
        first_samples: pairs seen before: a counter begins at 0 in each process.
        connect: opens the metrics: see executors.metrics.open_metrics.
    """

    def __init__(self, *, run: str, first_samples: int, connect: Open = open_metrics) -> None:
        gauges, counters = (
            {PREFIX + name: what for name, what in known.items()} for known in (GAUGES, COUNTERS)
        )
        self._tell = connect(gauges, counters, {"run": run})
        self._samples = first_samples

    def told(self, report: Report) -> None:
        """See Watcher.told."""
        values = {name: value for name, value in report.scalars().items() if name in GAUGES}
        values[SAMPLES] = report.samples - self._samples
        self._samples = report.samples
        if self._tell is not None:
            self._tell({PREFIX + name: value for name, value in values.items()})

    def end(self) -> None:
        """See Watcher.end."""
