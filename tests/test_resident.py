"""Batches are the same wherever a run's pairs lie, bit for bit; and moving changes no value."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.training.data import TrainingData, write_rows
from roclip_sanitize.training.loader import Loader
from roclip_sanitize.training.methods.contract import View, as_they_are
from roclip_sanitize.training.moving import Coming, moved
from roclip_sanitize.training.ranks import Ranks
from roclip_sanitize.training.resident import (
    MOST_SHARE,
    MOVED_AT_ONCE,
    FromFiles,
    OnDevice,
    Readable,
    open_source,
)
from roclip_sanitize.training.settings import Augmentation, Resident, TrainSettings

CPU = torch.device("cpu")
PAIRS, SIDE, LENGTH = 40, 8, 16


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    """Noise in two shards."""
    rng = np.random.default_rng(0)
    folder = StageFolder.create(tmp_path / "cache", stage="cache", settings={})
    for name in ("00000", "00001"):
        files = write_rows(
            folder.path,
            name,
            uids=[f"{name}{number}" for number in range(PAIRS // 2)],
            image_NSS3=rng.integers(0, 256, (PAIRS // 2, SIDE, SIDE, 3)).astype(np.uint8),
            token_NL=rng.integers(1, 49_000, (PAIRS // 2, LENGTH), dtype=np.int32),
        )
        folder.commit(name, files=files, facts={"rows": PAIRS // 2})
    folder.finish({})
    return TrainingData(folder.path)


@pytest.mark.parametrize("augmentation", ["none", "strong", "paper"])
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_are_the_same_wherever_pairs_lie(
    data: TrainingData, augmentation: Augmentation, rank: int
) -> None:
    view = View(
        image_row_B=np.array([39, 0, 25, 0]),  # both shards, out of order, one twice
        caption_row_B=np.array([1, 21, 20, 39]),
        augmentation=augmentation,
        draw=1,
    )
    batches = []
    for resident in ("never", "always"):
        told = TrainSettings(shards=(), batch_size=4, resident=resident)
        loader = Loader(data, told, model="roclip-rn-64", ranks=Ranks(rank=rank, size=2), device=CPU)
        batches.append(loader.batch(view, step=7))
    (files_pixels, files_tokens), (pixels, tokens) = batches
    assert pixels.equal(files_pixels)
    assert tokens.equal(files_tokens)
    assert (pixels.dtype, tokens.dtype) == (files_pixels.dtype, files_tokens.dtype)
    assert pixels.stride() == files_pixels.stride(), "or convolutions would sum in another order"


def test_pairs_are_shown_as_they_are_when_augmentation_is_over(data: TrainingData) -> None:
    told = TrainSettings(shards=(), batch_size=4, samples=40, augment_for=0.7)
    loader = Loader(data, told, model="roclip-rn-64", ranks=Ranks(), device=CPU)
    rows = np.arange(4)
    view = as_they_are(rows, "mild")
    plain = loader.plain(rows)
    assert not loader.batch(view, step=6)[0].equal(plain[0])
    for step in (7, 9):
        assert all(map(torch.equal, loader.batch(view, step=step), plain))


class Numbered:
    """Pairs whose pictures and captions say their row; as many as one likes."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def read(
        self, row_B: NDArray[np.int64], caption_row_B: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        captions = row_B if caption_row_B is None else caption_row_B
        images = np.broadcast_to((row_B % 251).astype(np.uint8)[:, None, None, None], (len(row_B), 2, 2, 3))
        return np.array(images), np.stack([captions, -captions], axis=1)


def test_all_rows_are_moved_however_many_there_are() -> None:
    rows = 2 * MOVED_AT_ONCE + 3
    source = OnDevice(Numbered(rows), CPU)
    forwards = np.arange(rows)
    forwards.setflags(write=False)  # as the rows of a table are
    pixels, tokens = source.batch(forwards, forwards[::-1])
    assert pixels[:, 0, 0, 0].tolist() == [row % 251 for row in range(rows)]
    assert pixels.shape == (rows, 3, 2, 2)
    assert tokens[:, 0].tolist() == list(range(rows))[::-1]


@pytest.mark.parametrize(
    ("resident", "device", "rows", "kind"),
    [
        pytest.param("auto", "cpu", 10, FromFiles, id="a-processor-reads-files"),
        pytest.param("auto", "cuda", 11, FromFiles, id="more-than-a-fifth"),
        pytest.param("never", "cuda", 1, FromFiles, id="not-wanted"),
        pytest.param("always", "cpu", 10, OnDevice, id="wanted"),
    ],
)
def test_a_gpu_holds_pairs_that_take_little_of_it(
    resident: Resident, device: str, rows: int, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10 * (2 * 2 * 3 + 2 * 8) / MOST_SHARE  # ten pairs are just a fifth
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    data: Readable = Numbered(rows)
    assert isinstance(open_source(data, torch.device(device), resident=resident), kind)


def test_every_choice_is_known() -> None:
    for resident in get_args(Resident):
        assert TrainSettings(shards=(), resident=resident).resident == resident


def test_moving_on_a_processor_changes_nothing() -> None:
    values = torch.arange(6.0).view(2, 3).T
    assert moved(values, CPU) is values
    assert Coming(torch.tensor(2.5)).item() == 2.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_is_waited_for_on_a_gpu(data: TrainingData) -> None:
    device = torch.device("cuda")
    sources = [open_source(data, device, resident=resident) for resident in ("always", "never")]
    rows = np.array([39, 0, 25, 0])
    wanted = FromFiles(data, CPU).batch(rows, rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [source.batch(rows, rows) for source in sources]
        loss = Coming(torch.ones((), device=device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.item() == 1.0
    for batch in found:
        assert all(each.cpu().equal(other) for each, other in zip(batch, wanted, strict=True))
