"""The machine's ceilings: that they are rates of the work they name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roclip_sanitize import ceilings
from roclip_sanitize.ceilings import measure_ceilings, median_rate
from roclip_sanitize.cli import run


class Clock:
    """Goes by as much as it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_rate_is_the_median_of_the_repeats_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pauses = Clock(), iter([0.2, 0.02, 0.02, 0.2])
    monkeypatch.setattr(ceilings, "time", clock)
    assert median_rate(10, lambda: clock.sleep(next(pauses)), repeats=3) == pytest.approx(500)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MEMORY_BYTES": 1 << 20, "DISK_BYTES": 1 << 20, "MATRIX_SIDE": 64}.items():
        monkeypatch.setattr(ceilings, name, value)
    monkeypatch.setattr(ceilings, "JPEGS_A_REPEAT", 2)


@pytest.mark.usefixtures("small")
def test_every_ceiling_is_a_positive_rate_and_leaves_no_file(tmp_path: Path) -> None:
    found = {ceiling.name: ceiling for ceiling in measure_ceilings(tmp_path)}
    assert {"memory copy", "sgemm", "read", "write", "decode 256 → 224 px"} <= set(found)
    assert all(ceiling.value > 0 for ceiling in found.values())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["bench", "machine", "--folder", str(tmp_path), "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert {"processor", "cores"} <= set(told["machine"])
    with pytest.raises(SystemExit):
        run(["bench", "machine", "--folder", str(tmp_path)])
    assert "pictures/s" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["bench", "machine", "--folder", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "does not exist" in capsys.readouterr().err
