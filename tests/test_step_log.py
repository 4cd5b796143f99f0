"""The training log: what each part of a step cost, on a processor and on a GPU, and over a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from roclip_sanitize.limits import Work
from roclip_sanitize.training.step_log import LOG_EVERY_STEPS, StepClock, StepDone, StepLog

MODEL = SimpleNamespace(logit_scale=torch.tensor(0.0))
DONE = StepDone(loss=1.0, kind="ordinary", notes={"agreement": torch.tensor(0.25)})
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
        log = StepLog(path, first_step=first, last_step=last, batch_size=8, ranks=ranks, active=True)
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
    assert {(line["loss"], line["kind"], line["agreement"]) for line in lines} == {(1.0, "ordinary", 0.25)}
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
