"""How far a run is, in words."""

from __future__ import annotations

from roclip_sanitize.status.reading import RunStatus, StageStatus, silent_for
from roclip_sanitize.terminal import duration


def stage_line(stage: StageStatus) -> str:
    """One stage: how far, how quick, what failed, how long still."""
    total = "?" if stage.total is None else f"{stage.total:,}"
    parts = [f"{stage.done:,}/{total} {stage.unit}"]
    if stage.tally.seen:
        parts.append(f"{stage.tally.seen:,} pairs")
    if stage.rate is not None and not stage.finished:
        parts.append(f"{stage.rate:,.0f}/s")
    if stage.device_share is not None and not stage.finished:
        parts.append(f"model at work {stage.device_share * 100:.0f} %")
    parts += [f"{count:,} failed: {reason}" for reason, count in stage.tally.failed.most_common()]
    parts += [f"{count:,} set aside: {reason}" for reason, count in stage.tally.quarantined.most_common()]
    if stage.finished:
        parts.append("done")
    elif stage.seconds_left is not None:
        parts.append(f"{duration(stage.seconds_left)} left")
    return "  ".join(parts)


def run_lines(status: RunStatus, *, now: float | None = None) -> list[str]:
    """A whole run, as a small table under a line that says what it is."""
    width = max((len(stage.name) for stage in status.stages), default=0)
    stages = [f"{stage.name:<{width}}  {stage_line(stage)}" for stage in status.stages]
    if not status.run:
        return stages
    if status.code is None:
        silent = silent_for(status, now=now)
        last = "no shard is done yet" if silent is None else f"the last shard was done {duration(silent)} ago"
        became = f"goes on, or was killed: {last}"
    else:
        became = f"ended with {status.code}" + (f": {status.error}" if status.error else "")
    return [f"roclip {status.command}, run {status.run}, since {status.started[:19]}Z", became, *stages]
