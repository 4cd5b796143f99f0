"""How far the stages in a folder are: shards done, rates, failures, time left. From what is on disk alone.

A stage's markers say what became of each shard, and the times of their files when. So whoever sees the folder
can look, on any machine, while it runs or after it was killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import DataError
from roclip_sanitize.limits import WORK_KEY
from roclip_sanitize.records import Tally
from roclip_sanitize.remote import source_name
from roclip_sanitize.runfiles import EVENTS_FILE, read_json
from roclip_sanitize.storage import changed_at, exists, folders_in, here, names_in
from roclip_sanitize.training.watching.json_lines import latest, log_file

WINDOW_SECONDS = 120.0  # a rate is that of the shards that were finished in so long
SCRATCH = frozenset({"work", "cache", "checkpoints", "matching"})  # what stages make for themselves
TAIL_BYTES = 65_536
DEVICE_STEP = "model"  # of a stage's steps, the one that keeps the device busy


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """How far one stage is.

    Attributes:
        name: its folder within the run, or the stage's own name.
        stage: the command that fills the folder.
        finished: whether it is done.
        done: shards (of a training: steps) that are.
        total: how many there are in all; None where that is not known yet.
        unit: "shards" or "steps".
        tally: what became of the pairs so far.
        rate: pairs per second lately; None while too little is done to tell.
        seconds_left: at that rate; None where it cannot be told.
        device_share: of the workers' time lately, the share that the model was at work; None without one.
        changed: when something was last done, in seconds since 1970.
    """

    name: str
    stage: str
    finished: bool
    done: int
    total: int | None
    unit: str = "shards"
    tally: Tally = field(default_factory=Tally)
    rate: float | None = None
    seconds_left: float | None = None
    device_share: float | None = None
    changed: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The status as plain values."""
        facts = {name: getattr(self, name) for name in ("name", "stage", "finished", "done", "total", "unit")}
        late = {name: getattr(self, name) for name in ("rate", "seconds_left", "device_share", "changed")}
        return {**facts, **late, "pairs": self.tally.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is.

    Attributes:
        run: its id, "" where nothing was recorded.
        command: what ran last.
        started: when, as ISO 8601.
        code: the exit code it ended with; None if it goes on, or was killed.
        error: what went wrong, "" for nothing.
        stages: its stages, in the order in which they began.
    """

    run: str = ""
    command: str = ""
    started: str = ""
    code: int | None = None
    error: str = ""
    stages: tuple[StageStatus, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The status as plain values."""
        names = ("run", "command", "started", "code", "error")
        return {
            **{name: getattr(self, name) for name in names},
            "stages": [each.to_json() for each in self.stages],
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """One marker: when it was written, and what it says."""

    when: float
    facts: Mapping[str, Any]


class StatusReader:
    """Looks at a run's folder, again and again; a marker is read once.

    Args:
        run: the folder, of a stage or of several.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._seen: dict[Path, dict[str, _Seen]] = {}

    def read(self) -> RunStatus:
        """How far it is now.

        Raises:
            DataError: the folder holds no stage.
        """
        if not exists(self._run):
            raise DataError(f"{source_name(self._run)} does not exist")
        folders = list(_stages(self._run, depth=2))
        if not folders:
            raise DataError(
                f"{source_name(self._run)} is no folder that a command made: there is no stage.json in it"
            )
        begun = sorted(folders, key=lambda path: (changed_at(path / "stage.json"), path))
        return RunStatus(**self._last_run(), stages=tuple(map(self._stage, begun)))

    def _last_run(self) -> dict[str, Any]:
        """What events.jsonl says of the latest run."""
        path = self._run / EVENTS_FILE
        if not exists(path):
            return {}
        with here(path).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]  # what follows the last line end is not whole
        found = dict[str, Any]()
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the tail begins within a line
            if event["event"] == "started":
                found = {"run": event["run"], "command": event["command"], "started": event["time"]}
            elif event["event"] == "ended" and event["run"] == found.get("run"):
                found |= {"code": event["code"], "error": event["error"]}
        return found

    def _stage(self, path: Path) -> StageStatus:
        told = read_json(path / "stage.json")
        name = path.relative_to(self._run).as_posix()
        common = {"name": told["stage"] if name == "." else name, "stage": told["stage"]}
        finished = exists(path / "complete.json")
        if told["stage"] == "train":
            return _training(path, finished=finished, **common)
        seen = self._markers(path)
        total = len(seen) if finished else _expected(told["settings"])
        return _by_markers(list(seen.values()), finished=finished, total=total, **common)

    def _markers(self, path: Path) -> dict[str, _Seen]:
        """The markers of a stage's shards, which have numbers for names; if none has, all."""
        known = self._seen.setdefault(path, {})
        names = set(_marked(path))
        names = {name for name in names if name.isdecimal()} or names
        for name in list(known.keys() - names):  # made again by retry-failed
            del known[name]
        for name in sorted(names - known.keys()):
            file = path / "done" / f"{name}.json"
            known[name] = _Seen(changed_at(file), read_json(file)["facts"])
        return known


def _stages(folder: Path, *, depth: int) -> Iterator[Path]:
    """The stages' folders in a folder, itself among them, and in those below it."""
    if exists(folder / "stage.json"):
        yield folder
    for name in folders_in(folder) if depth else ():
        if name not in SCRATCH:
            yield from _stages(folder / name, depth=depth - 1)


def _marked(stage: Path) -> list[str]:
    """Names of the shards of a stage that are done."""
    names = names_in(stage / "done")
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _by_markers(
    seen: list[_Seen], *, name: str, stage: str, finished: bool, total: int | None
) -> StageStatus:
    tally = Tally.total(Tally.from_json(each.facts["tally"]) for each in seen if "tally" in each.facts)
    total = None if total is None else max(total, len(seen))  # a census reads held-out shards, too
    recent = _recent(seen)
    seconds = recent[-1].when - recent[0].when if len(recent) > 1 else 0.0
    later = recent[1:]  # what was done since the first of them was
    pairs = sum(_pairs(each.facts) for each in later)
    left = None if total is None or finished or not seconds else (total - len(seen)) * seconds / len(later)
    return StageStatus(
        name=name,
        stage=stage,
        finished=finished,
        done=len(seen),
        total=total,
        tally=tally,
        rate=pairs / seconds if seconds and pairs else None,
        seconds_left=left,
        device_share=_device_share(recent),
        changed=max((each.when for each in seen), default=0.0),
    )


def _training(path: Path, *, name: str, stage: str, finished: bool) -> StageStatus:
    """A training's status is the last line of its log."""
    report, log = latest(log_file(path)), log_file(path)
    if report is None:
        return StageStatus(name=name, stage=stage, finished=finished, done=0, total=None, unit="steps")
    share_left = (report.total_steps - report.step) / max(1, report.step)
    rate = report.samples_per_second
    return StageStatus(
        name=name,
        stage=stage,
        finished=finished,
        done=report.step,
        total=report.total_steps,
        unit="steps",
        tally=Tally(seen=report.samples),
        rate=rate,
        seconds_left=None if finished or rate <= 0 else share_left * report.samples / rate,
        changed=changed_at(log),
    )


def _recent(seen: list[_Seen]) -> list[_Seen]:
    """The shards that were finished within WINDOW_SECONDS before the last one, in order."""
    in_order = sorted(seen, key=lambda each: each.when)
    return [each for each in in_order if each.when >= in_order[-1].when - WINDOW_SECONDS]


def _pairs(facts: Mapping[str, Any]) -> int:
    return int(facts["tally"]["seen"] if "tally" in facts else facts.get("rows", 0))


def _device_share(seen: list[_Seen]) -> float | None:
    works = [each.facts[WORK_KEY] for each in seen if isinstance(each.facts.get(WORK_KEY), Mapping)]
    wall = sum(work["wall"] for work in works)
    if not wall or not any(DEVICE_STEP in work["steps"] for work in works):
        return None
    return float(min(1.0, sum(work["steps"].get(DEVICE_STEP, 0.0) for work in works) / wall))


def _expected(settings: Mapping[str, Any]) -> int | None:
    """How many shards a stage has, by its settings: those named there, or the parts of its store."""
    if isinstance(settings.get("shards"), list):
        return len(settings["shards"])
    if not settings.get("store"):
        return None
    return sum(name.isdecimal() for name in _marked(Path(str(settings["store"])))) or None


def silent_for(status: RunStatus, *, now: float | None = None) -> float | None:
    """Seconds since something was last done; None while nothing is."""
    latest_change = max((stage.changed for stage in status.stages), default=0.0)
    if not latest_change:
        return None
    return max(0.0, (time.time() if now is None else now) - latest_change)
