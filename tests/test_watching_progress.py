"""The line for people who wait: what it says, how it fits, and that it leaves no trace on a terminal."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.terminal import duration
from roclip_sanitize.training.watching import progress
from roclip_sanitize.training.watching.contract import Report
from roclip_sanitize.training.watching.json_lines import JsonLines
from roclip_sanitize.training.watching.progress import ProgressLine, fitted, followed, words
from tests.test_watching import REPORT, at

LINE = (
    "step 400/780  25,600 pairs  610/s  loss 0.51  scale 17.2  matching, agreement .62  "
    "poisons matched away 91 %  40 s left"
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_screen(written: str) -> str:
    """What a terminal shows of its last line: a return goes to its start, a wipe empties what follows."""
    shown = ""
    for part in written.replace("\x1b[K", "\0").split("\r"):
        kept, wipe, _ = part.partition("\0")
        shown = kept if wipe else kept + shown[len(kept) :]
    return shown


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")


def test_the_line() -> None:
    assert "  ".join(words(REPORT)) == LINE


def test_ordinary_steps_have_nothing_more_to_say() -> None:
    said = words(replace(REPORT, kind="ordinary", notes={}))
    assert said[-2:] == ["ordinary", "40 s left"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.62, ".62"), (-0.05, "-.05"), (0.999, "1.00"), (1.0, "1.00"), (10.55, "10.55")]
)
def test_notes_of_methods(value: float, text: str) -> None:
    assert words(replace(REPORT, notes={"inmodal": value}))[-2] == f"matching, inmodal {text}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (125, "2 min"), (3_600, "1 h 0 min"), (11_100, "3 h 5 min")],
)
def test_time_left(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.lists(st.text("ab ", min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 60))
def test_a_line_fits_and_keeps_its_ends(parts: list[str], width: int) -> None:
    line = fitted(parts, width)
    assert len(line) <= width
    if len("  ".join(parts)) <= width:
        assert line == "  ".join(parts)
    elif len(parts) > 1 and len(f"{parts[0]}  {parts[-1]}") <= width:
        assert line.startswith(parts[0])
        assert line.endswith(parts[-1])


def test_on_a_terminal_the_line_is_rewritten_and_wiped_away() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line.told(REPORT)
    assert on_screen(stream.getvalue()) == LINE
    line.told(replace(REPORT, kind="ordinary", notes={}))
    assert on_screen(stream.getvalue()) == LINE.partition("  matching")[0] + "  ordinary  40 s left"
    line.end()
    assert on_screen(stream.getvalue()) == ""
    assert "\n" not in stream.getvalue()


def test_a_narrow_terminal_still_shows_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "48")
    stream = Terminal()
    ProgressLine(stream, name="arm").told(REPORT)
    assert on_screen(stream.getvalue()) == "arm: step 400/780  25,600 pairs  40 s left"


def test_a_terminal_that_is_gone_ends_no_training() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line.told(REPORT)
    stream.close()
    line.told(REPORT)
    line.end()


@pytest.mark.parametrize("dumb", [False, True])
def test_elsewhere_a_line_comes_every_half_minute(dumb: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    stream, now = (Terminal() if dumb else io.StringIO()), [0.0]
    line = ProgressLine(stream, now=lambda: now[0])
    for now[0] in (0.0, 29.0, 31.0, 45.0, 60.0, 62.0):
        line.told(replace(REPORT, step=int(now[0]) + 400))
    line.end()
    assert [text.split("/")[0] for text in stream.getvalue().splitlines()] == ["step 431", "step 462"]


# Followed


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write(out: Path, report: Report) -> None:
    JsonLines(out / "log.jsonl", first_step=report.step - 1).told(report)


def test_logs_are_followed_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, one after the other; the first goes on from step 20."""
    monkeypatch.setattr(progress, "LOOK_EVERY_SECONDS", 0.01)
    stream, logs = Terminal(), [tmp_path / name / "log.jsonl" for name in ("clip", "roclip")]
    write(tmp_path / "clip", at(20))
    with followed(logs, stream):
        for name, step in (("clip", 40), ("clip", 60), ("roclip", 20)):
            write(tmp_path / name, at(step))
            wait_for(lambda: f"{name}: step {step}/" in stream.getvalue())  # noqa: B023
    assert "step 20/" not in stream.getvalue().split("roclip")[0], "old news"
    assert on_screen(stream.getvalue()) == ""


def test_what_fails_leaves_no_line_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY_SECONDS", 0.01)
    stream = Terminal()

    def fail() -> None:
        with followed([tmp_path / "log.jsonl"], stream):
            write(tmp_path, at(20))
            wait_for(lambda: "step 20/" in stream.getvalue())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert on_screen(stream.getvalue()) == ""


def test_nobody_need_watch(tmp_path: Path) -> None:
    with followed([tmp_path / "log.jsonl"], None):
        write(tmp_path, at(20))
