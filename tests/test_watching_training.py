"""A whole training that is watched: it learns what it would have learned unwatched; a cluster shows it."""

from __future__ import annotations

import io
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.executors.metrics import open_metrics
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.training.methods.contract import Rows, Surroundings
from roclip_sanitize.training.methods.roclip import Roclip
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.train import train_clip
from roclip_sanitize.training.watching.contract import Report
from roclip_sanitize.training.watching.json_lines import latest
from roclip_sanitize.training.watching.poisons import MATCHED_AWAY
from tests.squares import uid_of, write_square_shards
from tests.test_objectives import unit_rows
from tests.test_roclip import seen
from tests.test_watching import shown, write_ledger

BATCH = 3


class Watch:
    """Remembers the matches that it is shown."""

    def __init__(self) -> None:
        self.pairs: list[list[int]] = []
        self.ways: list[list[list[int]]] = []

    def __call__(self, row_B: Rows, found: Sequence[torch.Tensor]) -> Mapping[str, torch.Tensor]:
        self.pairs.append(row_B.tolist())
        self.ways.append([match_B.tolist() for match_B in found])
        return {"seen": torch.tensor(1.0)}


def opened(pairing: str, watch: Watch | None) -> Roclip:
    """A method whose steps all match, against a pool of pairs 10 to 12."""
    run = Surroundings(
        settings=TrainSettings(
            shards=(Path("a.tar"),),
            pairing=pairing,  # type: ignore[arg-type]
            batch_size=BATCH,
            pool_size=BATCH,
            match_from=0.0,
            match_every=64,
            match_for=64,
        ),
        data=cast(
            "Any", SimpleNamespace(rows=64, image_group_N=np.arange(64), caption_group_N=np.arange(64))
        ),
        rows_of=lambda step: np.arange(BATCH) + BATCH * step,
        steps_per_epoch=20,
        total_steps=20,
        width=BATCH,
        ranks=Ranks(),
        device=torch.device("cpu"),
        watch_matches=watch,
    )
    method = Roclip(run)
    method.pool.put(torch.eye(BATCH), torch.eye(BATCH).flip(0), torch.arange(10, 10 + BATCH))
    return method


@pytest.mark.parametrize(
    ("pairing", "ways"),
    [
        pytest.param("final", [[12, 11, 10]], id="final: captions found by pictures"),
        pytest.param("first", [[12, 10, 11], [10, 11, 12]], id="first: by captions, and by pictures"),
        pytest.param("both", [[12, 11, 10], [12, 10, 11], [10, 11, 12]], id="both"),
    ],
)
def test_every_way_of_matching_is_watched(pairing: str, ways: list[list[int]]) -> None:
    """The pool's pictures are x, y and z, its captions z, y and x; the step's captions are x, z and y."""
    x, y, z = torch.eye(BATCH)
    watch = Watch()
    method = opened(pairing, watch)
    objective = method.loss(method.plan(1), seen(torch.eye(BATCH), torch.stack([x, z, y])))
    assert (watch.pairs, watch.ways) == ([[3, 4, 5]], [ways])
    assert objective.notes["seen"] == 1


@pytest.mark.parametrize("pairing", ["final", "first", "both"])
def test_watching_changes_no_loss(pairing: str) -> None:
    image, caption = (unit_rows(seed, BATCH, BATCH) for seed in (1, 2))
    plain, watched = (opened(pairing, watch) for watch in (None, Watch()))
    losses = [method.loss(method.plan(1), seen(image, caption)).loss.item() for method in (plain, watched)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_watched_training_learns_the_same(tmp_path: Path) -> None:
    shards = write_square_shards(tmp_path / "shards", shards=1, pairs=48)
    poisons = [(uid_of(number), "patch", "red", False) for number in range(0, 48, 2)]
    ledger = write_ledger(tmp_path / "poisoned", *poisons)
    told: dict[str, Any] = {"shards": shards, "model": "roclip-vit-64", "batch_size": 16, "epochs": 2}
    told |= {"warmup": 2, "match_from": 0.0, "match_every": 64, "match_for": 64, "pool_size": 16}
    stream = io.StringIO()
    for name, poisoned in (("plain", None), ("watched", ledger)):
        settings = TrainSettings(**told, ledger=poisoned)
        train_clip(
            settings, out=tmp_path / name, executor=LocalExecutor(), cache=tmp_path / "cache", progress=stream
        )
    digests = [read_json(tmp_path / name / "model" / "model.json")["digest"] for name in ("plain", "watched")]
    assert digests[0] == digests[1]
    plain, watched = (latest(tmp_path / name / "log.jsonl") for name in ("plain", "watched"))
    assert isinstance(plain, Report)
    assert isinstance(watched, Report)
    assert MATCHED_AWAY not in plain.notes
    assert 0 <= watched.notes[MATCHED_AWAY] <= 1
    assert watched.notes["agreement"] == plain.notes["agreement"]
    assert (watched.step, watched.total_steps, watched.samples) == (6, 6, 96)
    assert shown(tmp_path / "watched" / "tensorboard", f"train/{MATCHED_AWAY}") == [6]


# A cluster


class Teller:
    """A worker that tells the cluster what it is given."""

    def __init__(self) -> None:
        self._tell = open_metrics(
            {"roclip_test_loss": "a gauge"}, {"roclip_test_pairs": "a counter"}, {"run": "x"}
        )

    def __call__(self, value: float) -> bool:
        if self._tell is None:
            return False
        self._tell({"roclip_test_loss": value, "roclip_test_pairs": value})
        self._tell({"roclip_test_pairs": 0})
        return True


@pytest.fixture
def cluster() -> Iterator[Executor]:
    import ray

    yield open_executor("ray", workers=1)
    ray.shutdown()


def exported() -> str:
    """What Prometheus would be told by the first node."""
    import ray

    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.mark.slow
def test_a_cluster_exports_what_its_workers_tell(cluster: Executor) -> None:
    assert list(cluster.map(Teller, [0.5, 0.25])) == [True, True]
    deadline, found = time.monotonic() + 120, ""
    while not ("roclip_test_loss" in found and "roclip_test_pairs" in found) and time.monotonic() < deadline:
        time.sleep(1)
        found = exported()
    lines = [line for line in found.splitlines() if "roclip_test" in line and not line.startswith("#")]
    values = {line.partition("{")[0]: float(line.split()[-1]) for line in lines}
    assert all('run="x"' in line for line in lines)
    assert values["ray_roclip_test_loss"] == 0.25
    assert values["ray_roclip_test_pairs_total"] == 0.75
