"""Asking a run to stop: by a file, and by the signals that make one."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from roclip_sanitize.errors import Stopped, Terminated
from roclip_sanitize.training.stopping import StopFile, Stopping


@pytest.fixture
def outs(tmp_path: Path) -> list[Path]:
    """Two runs, one after the other."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    return folders


def test_a_file_is_looked_for_once_in_a_while(tmp_path: Path) -> None:
    seldom, often = StopFile(tmp_path, look_every=1_000), StopFile(tmp_path, look_every=0)
    assert not seldom.asked()
    assert not often.asked()
    (tmp_path / "stop").touch()
    assert not seldom.asked()
    assert often.asked()


def test_a_run_says_how_far_it_got(tmp_path: Path) -> None:
    file = StopFile(tmp_path)
    assert file.answered() is None
    file.path.touch()
    assert file.answered() is None, "somebody asks"
    file.path.write_text("please")
    assert file.answered() is None
    file.answer(step=7, steps=12)
    assert file.answered() == {"step": 7, "steps": 12}


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        pytest.param(signal.SIGTERM, Terminated, 143, id="SIGTERM"),
        pytest.param(signal.SIGINT, Stopped, 130, id="SIGINT"),
    ],
)
def test_a_signal_asks_all_runs(
    number: int, error: type[Stopped], code: int, outs: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with Stopping(outs) as stopping:
        os.kill(os.getpid(), number)
        assert all(StopFile(out).asked() for out in outs)
        StopFile(outs[0]).answer(step=7, steps=12)
    assert signal.getsignal(number) == before
    with pytest.raises(
        error, match=r"^stopped at step 7 of 12; the same command goes on from there$"
    ) as caught:
        stopping.require_not_stopped()
    assert caught.value.exit_code == code
    assert capfd.readouterr().err == "roclip: stopping at the next step\n"
    assert not any(StopFile(out).path.exists() for out in outs)


def test_a_second_sigint_interrupts_at_once(outs: list[Path]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stopping(outs):
        os.kill(os.getpid(), signal.SIGTERM)  # is no SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        assert StopFile(outs[0]).asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_file_alone_stops_as_an_interrupt_does(outs: list[Path]) -> None:
    with Stopping(outs) as stopping:
        StopFile(outs[1]).answer(step=0, steps=12)
    with pytest.raises(Stopped, match=r"^stopped at step 0 of 12") as caught:
        stopping.require_not_stopped()
    assert caught.value.exit_code == 130


def test_who_was_asked_too_late_stops_before_what_follows(outs: list[Path]) -> None:
    with Stopping(outs) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Terminated, match=r"^stopped at the end"):
        stopping.require_not_stopped()


def test_an_earlier_run_s_file_stops_nobody(outs: list[Path]) -> None:
    StopFile(outs[0]).answer(step=7, steps=12)
    StopFile(outs[1]).path.touch()
    with Stopping(outs) as stopping:
        assert not any(StopFile(out).asked() for out in outs)
    stopping.require_not_stopped()


def test_where_no_signal_can_be_caught_files_still_work(outs: list[Path]) -> None:
    found = list[bool]()

    def elsewhere() -> None:
        with Stopping(outs):
            found.append(signal.getsignal(signal.SIGTERM) == before)
            StopFile(outs[0]).path.touch()
            found.append(StopFile(outs[0]).asked())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [True, True]
