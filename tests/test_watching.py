"""Who is told of a training: log, event files, Weights & Biases, a cluster; and how poisons are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.attacks.ledger import LEDGER_SCHEMA, POISON_STAGE
from roclip_sanitize.cli import run
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.limits import Work
from roclip_sanitize.runfiles import StageFolder, write_json
from roclip_sanitize.store import write_parquet
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.watching import open_watchers, require_watchable, tensorboard
from roclip_sanitize.training.watching.cluster import ClusterMetrics
from roclip_sanitize.training.watching.contract import Report
from roclip_sanitize.training.watching.json_lines import JsonLines, latest
from roclip_sanitize.training.watching.poisons import MATCHED_AWAY, watch_poisons
from roclip_sanitize.training.watching.tensorboard import EventFile
from roclip_sanitize.training.watching.wandb_run import WandbRun, run_id
from tests.squares import write_square_shards

REPORT = Report(
    step=400,
    total_steps=780,
    samples=25_600,
    loss=0.61234567,
    loss_mean=0.51,
    kind="matching",
    learning_rate=1.23456e-7,
    logit_scale=17.2,
    samples_per_second=610.0,
    notes={"agreement": 0.62, MATCHED_AWAY: 0.91},
    work=Work(pairs=1_280, wall=2.5, steps={"read": 0.5}),
)
CPU = torch.device("cpu")


def at(step: int) -> Report:
    return replace(REPORT, step=step, samples=step * 64)


# The log


def test_a_line_of_the_log_is_the_report_rounded() -> None:
    line = json.loads(json.dumps(REPORT.to_json()))
    assert line["loss"] == 0.61235
    assert line["learning_rate"] == 1.235e-7, "what ends near 0 keeps its digits"
    assert (line["agreement"], line["seconds"]["pairs"]) == (0.62, 1_280)
    read = Report.from_json(line)
    assert read == replace(REPORT, loss=0.61235, learning_rate=1.235e-7)
    assert Report.from_json(read.to_json()) == read


def test_a_resume_cuts_off_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.jsonl"
    log = JsonLines(path, first_step=0)
    for step in (20, 40, 60):
        log.told(at(step))
    JsonLines(path, first_step=40).told(at(60))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [20, 40, 60]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        pytest.param("{20}\n{40}\n", 40, id="whole"),
        pytest.param('{20}\n{"step": 4', 20, id="a line being written"),
        pytest.param('{"step": 4', None, id="the first line being written"),
        pytest.param("", None, id="empty"),
        pytest.param('{"step": 20}\n', None, id="of an earlier version"),
        pytest.param(None, None, id="no file"),
    ],
)
def test_the_latest_report_is_the_last_whole_line(text: str | None, step: int | None, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    if text is not None:
        for number in (20, 40):
            text = text.replace(f"{{{number}}}", json.dumps(at(number).to_json()))
        path.write_text(text)
    found = latest(path)
    assert (found and found.step) == step


def test_the_latest_report_of_a_long_log(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl", first_step=0)
    for step in range(1, 101):
        log.told(at(step))
    found = latest(tmp_path / "log.jsonl")
    assert found is not None
    assert found.step == 100


# Event files


def shown(folder: Path, tag: str) -> list[int]:
    """Steps of a tag as TensorBoard shows them: a session's start strikes out what came from its step on."""
    steps: list[int] = []
    for event in (event for path in sorted(folder.iterdir()) for event in events(path)):
        if event.HasField("session_log"):
            steps = [step for step in steps if step < event.step]
        steps += [event.step for value in event.summary.value if value.tag == tag]
    return steps


def events(path: Path) -> Iterator[Any]:
    """Of a file of records: length in 8 bytes, checksum in 4, an event, checksum in 4."""
    from tensorboardX.proto.event_pb2 import Event

    data, start = path.read_bytes(), 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 8], "little")
        yield Event.FromString(data[start + 12 : start + 12 + length])
        start += length + 16


def test_every_number_is_an_event(tmp_path: Path) -> None:
    watcher = EventFile(tmp_path, first_step=0)
    watcher.told(REPORT)
    watcher.end()
    *_, event = events(next(tmp_path.iterdir()))
    assert event.step == 400
    assert {value.tag: value.simple_value for value in event.summary.value} == pytest.approx(
        {
            "train/loss": 0.61234567,
            "train/loss_mean": 0.51,
            "train/learning_rate": 1.23456e-7,
            "train/logit_scale": 17.2,
            "train/samples": 25_600,
            "train/samples_per_second": 610,
            "train/agreement": 0.62,
            f"train/{MATCHED_AWAY}": 0.91,
        }
    )


def test_events_reach_the_disk_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "FLUSH_SECONDS", 0.0)
    EventFile(tmp_path, first_step=0).told(REPORT)
    assert shown(tmp_path, "train/loss") == [400]


def test_a_resume_leaves_no_step_twice(tmp_path: Path) -> None:
    for first, told in ((0, (20, 40, 60)), (40, (60, 80))):
        watcher = EventFile(tmp_path, first_step=first)
        for step in told:
            watcher.told(at(step))
        watcher.end()
    assert len(list(tmp_path.iterdir())) == 2
    assert shown(tmp_path, "train/loss") == [20, 40, 60, 80]


# Weights & Biases


class Wandb(ModuleType):
    """As much of wandb as is used. Remembers what it is told."""

    Error = type("Error", (Exception,), {})

    def __init__(self, refuses: str = "") -> None:
        super().__init__("wandb")
        self.refuses = refuses
        self.runs: list[dict[str, Any]] = []
        self.logged: list[tuple[int, Mapping[str, float]]] = []
        self.finished = 0

    def init(self, **told: Any) -> Wandb:
        if self.refuses:
            raise self.Error(self.refuses)
        self.runs.append(told)
        return self

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_told_and_a_resume_goes_on_with_the_run(wandb: Wandb, tmp_path: Path) -> None:
    for step in (20, 40):
        watcher = WandbRun("a project", out=tmp_path, config={"lr": 0.1})
        watcher.told(at(step))
        watcher.end()
    first, second = wandb.runs
    assert (first["project"], first["name"], first["config"]) == ("a project", tmp_path.name, {"lr": 0.1})
    assert first["id"] == second["id"] == run_id(tmp_path)
    assert [step for step, _ in wandb.logged] == [20, 40]
    assert wandb.logged[0][1]["agreement"] == 0.62
    assert wandb.finished == 2


def test_a_wandb_that_would_not_start_is_told_in_one_line(wandb: Wandb, tmp_path: Path) -> None:
    wandb.refuses = "no API key:\n  log in"
    with pytest.raises(ConfigError, match=r"^wandb would not start: no API key: log in$"):
        WandbRun("a project", out=tmp_path, config={})


def test_no_wandb_is_told_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    require_watchable(TrainSettings(shards=(Path("a.tar"),)))
    with pytest.raises(ConfigError, match=r"^--wandb needs the package wandb, which is not installed$"):
        require_watchable(TrainSettings(shards=(Path("a.tar"),), wandb="a project"))


@pytest.mark.parametrize(
    ("told", "code", "line"),
    [
        (("--wandb", "mine"), 2, "--wandb needs the package wandb, which is not installed"),
        (("--ledger", "nowhere"), 1, "nowhere is no folder made by 'roclip poison': it has no stage.json"),
    ],
)
def test_the_command_ends_with_one_line(
    told: tuple[str, ...],
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    (shard,) = write_square_shards(tmp_path, shards=1, pairs=1)
    common = ["train", "--train-data", str(shard), "--out", str(tmp_path / "out"), "--executor", "local"]
    with pytest.raises(SystemExit) as caught:
        run([*common, *told])
    assert caught.value.code == code
    assert capsys.readouterr() == ("", f"roclip: {line}\n")


# A cluster


class Cluster:
    """Metrics that remember."""

    def __init__(self, *, there: bool = True) -> None:
        self.there = there
        self.values: list[Mapping[str, float]] = []
        self.tags: Mapping[str, str] = {}

    def __call__(
        self, gauges: Mapping[str, str], counters: Mapping[str, str], tags: Mapping[str, str]
    ) -> Any:
        self.known, self.tags = {**gauges, **counters}, tags
        return self.values.append if self.there else None


def test_a_cluster_counts_pairs_from_the_resume_on() -> None:
    cluster = Cluster()
    watcher = ClusterMetrics(run="roclip", first_samples=1_280, connect=cluster)
    for step in (40, 60):
        watcher.told(at(step))
    watcher.end()
    assert cluster.tags == {"run": "roclip"}
    assert [values["roclip_train_samples"] for values in cluster.values] == [1_280, 1_280]
    assert cluster.values[0]["roclip_train_agreement"] == 0.62
    assert cluster.values[0].keys() == cluster.known.keys()


def test_outside_a_cluster_nobody_is_told() -> None:
    ClusterMetrics(run="roclip", first_samples=0, connect=Cluster(there=False)).told(REPORT)


def test_outside_ray_it_is_not_imported(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from roclip_sanitize.training.watching.cluster import ClusterMetrics\n"
        "ClusterMetrics(run='x', first_samples=0)\n"
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_that_should_be_told_are(wandb: Wandb, tmp_path: Path) -> None:
    told = TrainSettings(shards=(Path("a.tar"),), wandb="a project")
    for watcher in open_watchers(told, out=tmp_path, first_step=0):
        watcher.told(REPORT)
        watcher.end()
    assert latest(tmp_path / "log.jsonl") is not None
    assert shown(tmp_path / "tensorboard", "train/loss") == [400]
    assert wandb.runs[0]["config"]["lr"] == told.lr


# Poisons


class Pairs:
    """As much of the training data as a ledger is looked up in."""

    def __init__(self, *uids: str) -> None:
        self._uids = list(uids)

    def uids(self) -> list[str]:
        return self._uids


def write_ledger(folder: Path, *poisons: tuple[str, str, str, bool]) -> Path:
    """A finished ledger of (uid, attack, target, cover)."""
    stage = StageFolder.create(folder, stage=POISON_STAGE, settings={})
    rows = [dict(zip(("uid", "attack", "target", "cover"), poison, strict=True)) for poison in poisons]
    write_parquet(folder / "ledger.parquet", polars.DataFrame(rows, schema=LEDGER_SCHEMA))
    write_json(folder / "ledger.json", {"label": "", "seed": 0, "classes": [], "attacks": []})
    stage.finish({})
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return write_ledger(
        tmp_path / "poisoned",
        ("p1", "patch", "cat", False),
        ("p2", "patch", "cat", False),
        ("d1", "patch", "dog", False),
        ("t1", "targeted", "cat", False),
        ("c1", "patch", "", True),
        ("gone", "patch", "cat", False),
    )


ROWS = ("clean", "p1", "p2", "d1", "t1", "c1")


@pytest.mark.parametrize(
    ("pair", "match", "counted"),
    [
        pytest.param("p1", "clean", (1, 1), id="a clean pair"),
        pytest.param("p1", "p2", (0, 1), id="another poison with the same goal"),
        pytest.param("p1", "d1", (1, 1), id="one for another class"),
        pytest.param("p1", "t1", (1, 1), id="one of another attack"),
        pytest.param("p1", "c1", (1, 1), id="a cover sample"),
        pytest.param("clean", "p1", (0, 0), id="no poison"),
        pytest.param("c1", "c1", (0, 0), id="a cover sample is no poison"),
    ],
)
def test_a_match_leads_away_unless_its_goal_is_the_same(
    pair: str, match: str, counted: tuple[int, int], ledger: Path
) -> None:
    watch = watch_poisons(ledger, Pairs(*ROWS), CPU)
    assert watch is not None
    found = watch(np.array([ROWS.index(pair)]), [torch.tensor([ROWS.index(match)])])
    assert tuple(found[MATCHED_AWAY].tolist()) == counted


def test_an_empty_slot_has_no_goal(ledger: Path) -> None:
    watch = watch_poisons(ledger, Pairs("p2", "p1"), CPU)
    assert watch is not None
    assert watch(np.array([0]), [torch.tensor([-1])])[MATCHED_AWAY].tolist() == [1, 1]


@given(st.lists(st.tuples(*[st.integers(0, len(ROWS) - 1)] * 3), max_size=12))
def test_ways_of_matching_are_counted_together(matches: list[tuple[int, int, int]]) -> None:
    from roclip_sanitize.training.watching.poisons import PoisonWatch

    watch = PoisonWatch(torch.tensor([-1, 0, 0, 1, 2, -1]))
    pairs, first, second = np.array(matches, np.int64).reshape(-1, 3).T
    ways = [torch.from_numpy(first.copy()), torch.from_numpy(second.copy())]
    together = watch(pairs.copy(), ways)[MATCHED_AWAY]
    apart = [watch(pairs.copy(), [way])[MATCHED_AWAY] for way in ways]
    assert together.tolist() == (apart[0] + apart[1]).tolist()
    assert 0 <= together[0] <= together[1] <= 2 * len(matches)


def test_without_poisons_there_is_nothing_to_watch(ledger: Path) -> None:
    assert watch_poisons(None, Pairs(*ROWS), CPU) is None
    assert watch_poisons(ledger, Pairs("clean", "c1"), CPU) is None, "as after a scan that found them all"


def test_what_is_no_ledger_is_told_before_anything_is_decoded(tmp_path: Path, ledger: Path) -> None:
    told = TrainSettings(shards=(Path("a.tar"),), ledger=ledger)
    require_watchable(told)
    with pytest.raises(DataError, match="is no folder made by 'roclip poison'"):
        require_watchable(replace(told, ledger=tmp_path / "nowhere"))
    StageFolder.create(tmp_path / "other", stage="scan", settings={})
    with pytest.raises(MismatchError, match="was made by 'roclip scan', wanted 'roclip poison'"):
        require_watchable(replace(told, ledger=tmp_path / "other"))
