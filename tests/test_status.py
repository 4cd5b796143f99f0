"""A run, watched from beside: how far it is, from its folder alone."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from roclip_sanitize.errors import DataError
from roclip_sanitize.runfiles import StageFolder, write_json
from roclip_sanitize.status.lines import run_lines, stage_line
from roclip_sanitize.status.metrics import COUNTERS, GAUGES, PREFIX, StageMetrics
from roclip_sanitize.status.reading import StageStatus, StatusReader
from roclip_sanitize.status.record import RunRecord
from roclip_sanitize.status.watching import Watching
from roclip_sanitize.terminal import Progress
from tests.commands import Roclip
from tests.corpora import write_shard

NOON = 1_700_000_000.0


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


def begun(path: Path, *, shards: int = 10) -> StageFolder:
    """A stage of so many shards that has just begun."""
    return StageFolder.create(path, stage="embed", settings={"shards": [f"{n}.tar" for n in range(shards)]})


def mark(
    folder: StageFolder, number: int, *, when: float, seen: int = 100, failed: Mapping[str, int] | None = None
) -> None:
    """A shard done at a time, of whose seconds the model had three quarters."""
    tally = {"seen": seen, "quarantined": {}, "failed": dict(failed or {}), "seconds": 1.0}
    work = {"pairs": seen, "wall": 2.0, "steps": {"read": 0.5, "model": 1.5}}
    folder.commit(f"{number:05d}", files=[], facts={"tally": tally, "seconds": work})
    os.utime(folder.path / "done" / f"{number:05d}.json", (when, when))


def only(run: Path) -> StageStatus:
    (stage,) = StatusReader(run).read().stages
    return stage


# Reading


def test_rate_and_time_left_are_those_of_the_last_two_minutes(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    mark(folder, 0, when=NOON - 9_000)  # before a night's rest
    for number in range(1, 4):
        mark(folder, number, when=NOON + 20 * number, failed={"image_undecodable": 2})
    stage = only(tmp_path)
    assert (stage.name, stage.done, stage.total, stage.finished) == ("embed", 4, 10, False)
    assert (stage.tally.seen, stage.tally.failed) == (400, {"image_undecodable": 6})
    assert stage.rate == pytest.approx(200 / 40)
    assert stage.seconds_left == pytest.approx(6 * 20)
    assert stage.device_share == pytest.approx(0.75)
    assert stage_line(stage) == (
        "4/10 shards  400 pairs  5/s  model at work 75 %  6 failed: image_undecodable  2 min left"
    )


def test_one_shard_tells_no_rate(tmp_path: Path) -> None:
    mark(begun(tmp_path), 0, when=NOON)
    stage = only(tmp_path)
    assert (stage.done, stage.rate, stage.seconds_left) == (1, None, None)


def test_a_store_tells_how_many_parts_there_will_be(tmp_path: Path) -> None:
    store = begun(tmp_path / "store")
    for number in range(3):
        mark(store, number, when=NOON)
    store.finish({})
    StageFolder.create(tmp_path / "scan", stage="scan", settings={"store": str(tmp_path / "store")})
    os.utime(tmp_path / "store" / "stage.json", (NOON, NOON))
    first, second = StatusReader(tmp_path).read().stages
    assert (first.name, first.finished, second.name, second.done, second.total) == (
        "store",
        True,
        "scan",
        0,
        3,
    )


def test_a_training_is_told_by_its_log(tmp_path: Path) -> None:
    write_json(tmp_path / "stage.json", {"stage": "train", "settings": {}})
    assert (only(tmp_path).done, only(tmp_path).total) == (0, None)
    report = {
        "step": 20,
        "total_steps": 60,
        "samples": 2_000,
        "kind": "ordinary",
        "loss": 1.0,
        "loss_mean": 1.0,
        "learning_rate": 0.1,
        "logit_scale": 10.0,
        "samples_per_second": 100.0,
        "seconds": {"pairs": 0, "wall": 0.0, "steps": {}},
    }
    (tmp_path / "log.jsonl").write_text(json.dumps(report) + "\n")
    assert stage_line(only(tmp_path)) == "20/60 steps  2,000 pairs  100/s  40 s left"


def test_markers_are_read_once_and_what_went_is_forgotten(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    mark(folder, 0, when=NOON)
    reader = StatusReader(tmp_path)
    reader.read()
    (tmp_path / "done" / "00000.json").write_text("no longer looked at")
    mark(folder, 1, when=NOON + 10)
    assert reader.read().stages[0].done == 2
    (tmp_path / "done" / "00000.json").unlink()
    assert reader.read().stages[0].done == 1


def test_a_folder_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder that a command made"):
        StatusReader(tmp_path).read()
    with pytest.raises(DataError, match="does not exist"):
        StatusReader(tmp_path / "gone").read()


# The command


def test_a_run_that_ended_says_how(roclip: Roclip, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", range(4))
    roclip("embed", "--shards", shard, "--out", tmp_path / "out", "--executor", "local")
    said = roclip("status", tmp_path / "out", "--follow")
    first, second, third = said.out.splitlines()
    assert first.startswith("roclip embed, run 20")
    assert second == "ended with 0"
    assert third == "embed  1/1 shards  4 pairs  done"
    told = json.loads(roclip("status", tmp_path / "out", "--json").out)
    assert (told["code"], told["stages"][0]["done"], told["stages"][0]["pairs"]["seen"]) == (0, 1, 4)


def test_a_run_that_goes_on_says_since_when_nothing_came(tmp_path: Path) -> None:
    mark(begun(tmp_path), 0, when=NOON)
    RunRecord(tmp_path, command="embed", run_file="", facts={}).write()
    _, became, _ = run_lines(StatusReader(tmp_path).read(), now=NOON + 180)
    assert became == "goes on, or was killed: the last shard was done 3 min ago"


def test_a_run_that_has_done_nothing_says_so(tmp_path: Path) -> None:
    """Not since when: that would be 1970."""
    begun(tmp_path)
    RunRecord(tmp_path, command="embed", run_file="", facts={}).write()
    _, became, _ = run_lines(StatusReader(tmp_path).read(), now=NOON)
    assert became == "goes on, or was killed: no shard is done yet"


# From beside


class Known:
    """Metrics as a cluster without Ray would have them."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def connect(
        self, gauges: Mapping[str, str], counters: Mapping[str, str], tags: Mapping[str, str]
    ) -> object:
        def tell(values: Mapping[str, float]) -> None:
            for name, value in values.items():
                key = (name, *tags.values())
                self.values[key] = value + (self.values.get(key, 0.0) if name in counters else 0.0)

        return tell


def test_metrics_count_what_this_run_did(tmp_path: Path) -> None:
    folder, known = begun(tmp_path / "run"), Known()
    mark(folder, 0, when=NOON, failed={"empty_caption": 7})
    reader = StatusReader(tmp_path / "run")
    metrics = StageMetrics("run", connect=known.connect)  # type: ignore[arg-type]
    metrics.known(reader.read())
    mark(folder, 1, when=NOON + 10, seen=50, failed={"empty_caption": 1})
    metrics.told(reader.read())
    metrics.told(reader.read())
    assert known.values[PREFIX + "pairs", "run", "embed"] == 50
    assert known.values[PREFIX + "failed_pairs", "run", "embed", "empty_caption"] == 1
    assert known.values[PREFIX + "shards_waiting", "run", "embed"] == 8
    assert known.values[PREFIX + "pairs_per_second", "run", "embed"] == 5
    assert {name.removeprefix(PREFIX) for name, *_ in known.values} == {*GAUGES, *COUNTERS, "failed_pairs"}


def test_a_watched_run_has_its_record_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roclip_sanitize.status.watching.LOOK_EVERY_SECONDS", 0.01)
    record = RunRecord(tmp_path, command="embed", run_file="[embed]\n", facts={})
    watching = Watching(tmp_path, record, name="embed", stream=io.StringIO())
    begun(tmp_path)
    for _ in range(500):
        if (tmp_path / "events.jsonl").exists():
            break
        watching._over.wait(0.01)
    assert (tmp_path / "run.toml").read_text() == "[embed]\n"
    watching.end()


# Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    clock, stream = [0.0], io.StringIO()
    progress = Progress(stream, name="sanitize", now=lambda: clock[0])
    for clock[0] in (1.0, 31.0, 32.0, 62.0):
        progress.show({"store": (1, 4, f"line at {clock[0]:.0f}")})
    progress.end()
    assert stream.getvalue() == "sanitize: store  line at 31\nsanitize: store  line at 62\n"


def test_a_terminal_shows_bars_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(stream, name="sanitize")
    progress.show({"store": (1, 4, "a quarter"), "index": (0, None, "?")})
    progress.show({"index": (1, 2, "half")})
    progress.show({})
    progress.end()
    assert "half" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")


def test_nobody_looking_is_no_reason_to_stop() -> None:
    stream = io.StringIO()
    progress = Progress(stream, name="embed", now=iter([0.0, 99.0, 99.0]).__next__)
    stream.close()
    progress.show({"store": (1, 4, "a quarter")})
