"""What becomes of steps: means, what each part of one cost on a processor and on a GPU, and over a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from roclip_sanitize.limits import Work
from roclip_sanitize.training.step_log import LOG_EVERY_STEPS, Means, StepClock, StepDone, StepLog
from roclip_sanitize.training.watching.contract import Report
from roclip_sanitize.training.watching.json_lines import JsonLines

MODEL = SimpleNamespace(logit_scale=torch.tensor(0.0))
DONE = StepDone(loss=1.0, kind="ordinary", learning_rate=1e-3, notes={"agreement": torch.tensor(0.25)})
PARTS = {"read": 1.0, "model": 3.0}
BETWEEN = 0.5  # seconds from step to step, for what is no part of one


class World:
    """A clock that only moves when told to, and what waited for the GPU."""

    def __init__(self) -> None:
        self.now, self.waits = 100.0, 0

    def wait(self, device: torch.device) -> None:
        self.waits += 1


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr("roclip_sanitize.limits.time.perf_counter", lambda: world.now)
    monkeypatch.setattr(torch.cuda, "synchronize", world.wait)
    return world


@pytest.fixture
def train(world: World, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Makes steps that cost what PARTS says, and reads the log."""

    def train(first: int, last: int, *, device: str = "cpu", ranks: int = 1) -> list[dict[str, Any]]:
        clock, path = StepClock(torch.device(device)), tmp_path / "log.jsonl"
        watchers = [JsonLines(path, first_step=first)]
        log = StepLog(watchers, first_step=first, last_step=last, batch_size=8, ranks=ranks)
        for step in range(first, last):
            clock.begin(step)
            for part, seconds in PARTS.items():
                world.now += seconds
                clock.lap(part)
            log.step(step + 1, done=DONE, model=MODEL, clock=clock)
            world.now += BETWEEN
        return [json.loads(line) for line in path.read_text().splitlines()]

    return train


def whole(lines: list[dict[str, Any]]) -> Work:
    return Work.total(Work.from_json(line["seconds"]) for line in lines)


def test_every_twentieth_step_and_the_last_are_noted(train: Callable[..., list[dict[str, Any]]]) -> None:
    lines = train(0, 45)
    assert [(line["step"], line["samples"]) for line in lines] == [(20, 160), (40, 320), (45, 360)]
    told = ("loss", "kind", "agreement", "learning_rate", "logit_scale", "total_steps")
    assert {tuple(line[name] for name in told) for line in lines} == {(1.0, "ordinary", 0.25, 1e-3, 1.0, 45)}
    work = whole(lines)
    assert (work.pairs, work.steps) == (360, {"read": 45.0, "model": 135.0})
    assert work.wall == 45 * 4.0 + 44 * BETWEEN


def test_ranks_share_what_they_reach(train: Callable[..., list[dict[str, Any]]]) -> None:
    """Both ranks together make the pairs, and each of them is at work all the time."""
    work = whole(train(0, 20, ranks=2))
    assert (work.pairs, work.steps) == (160, {"read": 40.0, "model": 120.0})
    assert work.wall == 2 * (20 * 4.0 + 19 * BETWEEN)


def test_on_a_gpu_one_step_of_twenty_is_waited_for_and_stands_for_all(
    train: Callable[..., list[dict[str, Any]]], world: World
) -> None:
    work = whole(train(0, 2 * LOG_EVERY_STEPS, device="cuda"))
    assert work.steps == {"read": 40.0, "model": 120.0}
    assert world.waits == 2 * (1 + len(PARTS))


def test_too_short_a_run_on_a_gpu_is_not_timed_by_parts(train: Callable[..., list[dict[str, Any]]]) -> None:
    work = whole(train(0, 5, device="cuda"))
    assert (work.pairs, work.steps) == (40, {})


def test_a_resumed_run_adds_up_what_it_kept(train: Callable[..., list[dict[str, Any]]]) -> None:
    """Steps 21 to 24 were not logged when the run was killed; 20 was the last checkpoint."""
    train(0, 24)
    lines = train(20, 40)
    assert [line["step"] for line in lines] == [20, 40]
    assert whole(lines).pairs == 320


class Heard:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.ended = False

    def told(self, report: Report) -> None:
        self.reports.append(report)

    def end(self) -> None:
        self.ended = True


def done(loss: float, **notes: float) -> StepDone:
    named = {name: torch.tensor(value) for name, value in notes.items()}
    return StepDone(loss=loss, kind="matching" if notes else "ordinary", learning_rate=1e-3, notes=named)


def test_a_report_is_of_all_steps_since_the_last_one() -> None:
    """Losses 1 to 20, then 5; only steps 11 to 20 match, with agreements that have a mean of 0.6."""
    heard, clock = Heard(), StepClock(torch.device("cpu"))
    log = StepLog([heard], first_step=0, last_step=21, batch_size=8, ranks=1)
    for step in range(1, 21):
        made = done(step, agreement=0.5 if step % 2 else 0.7) if step > 10 else done(step)
        log.step(step, done=made, model=MODEL, clock=clock)
    log.step(21, done=done(5.0), model=MODEL, clock=clock)
    log.end()
    first, last = heard.reports
    assert (first.loss, first.loss_mean, first.kind) == (20.0, 10.5, "matching")
    assert first.notes == {"agreement": pytest.approx(0.6)}
    assert (last.loss, last.loss_mean, last.kind, last.notes) == (5.0, 5.0, "ordinary", {})
    assert heard.ended


def test_every_watcher_hears_the_same() -> None:
    watchers = [Heard(), Heard()]
    log = StepLog(watchers, first_step=0, last_step=1, batch_size=8, ranks=1)
    log.step(1, done=DONE, model=MODEL, clock=StepClock(torch.device("cpu")))
    assert watchers[0].reports == watchers[1].reports
    assert len(watchers[0].reports) == 1


def test_shares_are_of_all_that_there_were() -> None:
    """One of one, then none of three: a quarter, and not the mean of 1 and 0."""
    means = Means()
    for note in ([1, 1], [0, 3], [0, 0]):
        means.add({"away": torch.tensor(note)})
    assert means.take() == {"away": 0.25}
    means.add({"away": torch.tensor([0, 0])})
    assert means.take() == {}, "a share of nothing is not told"
