"""Training by tables that an index makes anew for each window: from one process, and beside ranks on Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json
from roclip_sanitize.training.refresh import FOLDER, window_folder
from roclip_sanitize.training.train import train_clip
from tests.squares import write_square_shards
from tests.trainings import PAIRS, STEPS, WINDOW, Killed, Watched, digest, settings_for

pytestmark = pytest.mark.slow
BY_INDEX: dict[str, Any] = {"method": "roclip", "match_by": "index", **WINDOW}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("squares"), shards=2, pairs=PAIRS // 2)


@pytest.fixture
def cluster() -> Iterator[Executor]:
    yield open_executor("ray", workers=2)
    ray.shutdown()


def kinds(out: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("pairing", ["final", "first"])
def test_a_killed_run_ends_as_an_undisturbed_one(
    pairing: str, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    settings = settings_for(shards, pairing=pairing, checkpoint_seconds=0.0, **BY_INDEX)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_clip(settings, out=whole, executor=LocalExecutor(), cache=tmp_path / "cache")
    with pytest.raises(Killed):
        train_clip(settings, out=killed, executor=Watched(1), cache=tmp_path / "cache")
    assert window_folder(killed, 0).exists()
    train_clip(settings, out=killed, executor=LocalExecutor(), cache=tmp_path / "cache")
    assert digest(killed) == digest(whole)
    assert kinds(whole)[-1] == "matching", f"of {STEPS} steps the last one is in a window"
    assert not (whole / FOLDER).exists(), "tables go with the end of the training"


def test_tables_are_made_beside_the_ranks(
    shards: tuple[Path, ...], cluster: Executor, tmp_path: Path
) -> None:
    settings = settings_for(shards, pairing="final", **BY_INDEX)
    tally = train_clip(settings, out=tmp_path / "out", executor=cluster, cache=tmp_path / "cache")
    assert tally.kept == PAIRS
    assert kinds(tmp_path / "out")[-1] == "matching"
    assert read_json(tmp_path / "out" / "model" / "model.json")["model"] == settings.model
    with (
        pytest.raises(ConfigError, match=r"workers beside the ranks leave none of \d+ cores to train with"),
        cluster.aside(1_000),
    ):
        pass
