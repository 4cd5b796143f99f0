"""Checkpoints: whole or not there, the newest good one counts, and stores that fail are no exception.

A line of numbers stands for the model, so that nothing here takes time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
import torch
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from roclip_sanitize import remote
from roclip_sanitize.errors import ConfigError, DataError, MismatchError, StorageError
from roclip_sanitize.sources import source_path
from roclip_sanitize.training.checkpoints import CheckpointFolder, TrainState
from roclip_sanitize.training.methods.contract import Stateless
from roclip_sanitize.training.ranks import Ranks
from tests.faulty import RefusingDisk

if TYPE_CHECKING:
    from roclip_sanitize.training.methods.contract import Method

WIDTH = 5


class Remembers(Stateless):
    """As much of a method as a checkpoint needs."""

    def __init__(self) -> None:
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class BrittleStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store in memory. What is asked of it fails as often as it is told to, by kind of request."""

    protocol = "brittle"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[dict[str, int]] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(re.sub(r"^brittle:", "memory:", str(path))))

    def put_file(self, local: str, path: str, **told: Any) -> None:
        self._may_fail("put")
        super().put_file(local, path, **told)
        if self._due("cut"):  # half of it is kept, and nobody is told
            with self.open(path, "rb") as file:
                half = file.read()[: Path(local).stat().st_size // 2]
            self.pipe_file(path, half)

    def ls(self, path: str, detail: bool = True, **told: Any) -> Any:
        self._may_fail("ls")
        return super().ls(path, detail=detail, **told)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **told: Any) -> bytes:
        self._may_fail("cat")
        return bytes(super().cat_file(path, start=start, end=end, **told))

    def rm_file(self, path: str) -> None:
        self._may_fail("rm")
        super().rm_file(path)

    def _may_fail(self, what: str) -> None:
        if self._due(what):
            raise ConnectionResetError("connection reset by peer")

    def _due(self, what: str) -> bool:
        self.failures[what] = self.failures.get(what, 0) - 1
        return self.failures[what] >= 0


register_implementation(BrittleStore.protocol, BrittleStore, clobber=True)


@pytest.fixture(params=["a folder", "a file URL", "a store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where checkpoints may lie."""
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    BrittleStore.failures.clear()
    BrittleStore.store.clear()
    local = tmp_path / "checkpoints"
    names = {"a folder": str(local), "a file URL": f"file://{local}", "a store": "brittle://run/checkpoints"}
    yield source_path(names[request.param])
    BrittleStore.store.clear()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    BrittleStore.failures.clear()
    BrittleStore.store.clear()
    yield source_path("brittle://run/checkpoints")
    BrittleStore.store.clear()


def folder_at(place: Path, *, settings: str = "told", keep: int = 2, rank: int = 0) -> CheckpointFolder:
    return CheckpointFolder(place, settings=settings, keep=keep, ranks=Ranks(rank=rank))


def state_at(step: int) -> TrainState:
    """What a run holds after so many steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(WIDTH, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    state = TrainState(step=0, model=model, optimizer=optimizer, method=cast("Method", Remembers()))
    for _ in range(step):
        take_step(state)
    return state


def take_step(state: TrainState) -> None:
    state.optimizer.zero_grad()
    state.model(torch.full((1, WIDTH), float(state.step))).square().sum().backward()
    state.optimizer.step()
    state.step += 1
    state.method.seen += 2  # type: ignore[attr-defined]


def weights(state: TrainState) -> list[float]:
    found: list[float] = state.model.weight[0].tolist()
    return found


def files(place: Path) -> set[str]:
    return folder_at(place)._place.names()


def damage(place: Path, step: int, how: str, *, suffix: str = "pt") -> None:
    """Spoil a checkpoint where it lies."""
    name = f"step_{step:09d}.{suffix}"
    with folder_at(place)._place.reading(name) as data:
        whole = data[:]
    spoilt = {
        "cut short": whole[:-50],
        "emptied": b"",
        "overwritten": b"no checkpoint",
        "one bit": whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
    }
    if how == "gone":
        folder_at(place)._place.remove(name)
        return
    with folder_at(place)._place.writing(name) as file:
        file.write(spoilt[how])


# Saving and going on


def test_a_run_goes_on_as_if_nothing_had_been(place: Path) -> None:
    assert folder_at(place).save(state_at(3))
    resumed = state_at(0)
    assert folder_at(place).load(resumed)
    assert (resumed.step, resumed.method.state_dict()) == (3, {"seen": 6})
    for _ in range(4):
        take_step(resumed)
    assert weights(resumed) == weights(state_at(7)), "moments and all"


def test_a_run_without_any_starts_from_its_beginning(place: Path) -> None:
    fresh = state_at(0)
    folder = folder_at(place)
    assert not folder.load(fresh)
    assert (fresh.step, folder.last, folder.steps()) == (0, "", [])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept(keep: int, place: Path) -> None:
    folder = folder_at(place, keep=keep)
    for step in (8, 9, 10, 11):
        folder.save(state_at(step))
    assert folder.steps() == [8, 9, 10, 11][-keep:]
    assert len(files(place)) == 2 * keep
    assert folder.last.endswith("checkpoints/step_000000011.pt")


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, rank=1)
    assert folder.save(state_at(1))
    assert not files(tmp_path)
    assert folder.last.endswith("step_000000001.pt")


def test_the_end_leaves_what_is_not_a_checkpoint(place: Path, tmp_path: Path) -> None:
    folder = folder_at(place)
    folder.save(state_at(1))
    folder.remove()
    assert not files(place)
    assert not (tmp_path / "checkpoints").exists()
    with folder._place.writing("notes.txt") as file:
        file.write(b"mine")
    folder.save(state_at(1))
    folder.remove()
    assert files(place) == {"notes.txt"}


def test_one_of_other_settings_is_refused(place: Path) -> None:
    folder_at(place).save(state_at(1))
    with pytest.raises(
        MismatchError, match=r"checkpoints/step_000000001\.pt belongs to a run with other settings"
    ):
        folder_at(place, settings="told otherwise").load(state_at(0))


@pytest.mark.parametrize(("saved", "now"), [("", "a"), ("a", ""), ("a", "a"), ("a", "b")])
def test_one_of_other_pairs_is_refused_where_both_are_known(saved: str, now: str, tmp_path: Path) -> None:
    def folder(pairs: str) -> CheckpointFolder:
        return CheckpointFolder(tmp_path, settings="told", keep=2, ranks=Ranks(), pairs=pairs)

    folder(saved).save(state_at(1))
    if (saved, now) != ("a", "b"):
        assert folder(now).load(state_at(0))
        return
    with pytest.raises(
        MismatchError, match=r"000001\.pt is of a run on other pairs than the shards hold now"
    ):
        folder(now).load(state_at(0))


def test_a_protocol_that_is_not_known_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^nowhere://bucket/run cannot be read here"):
        folder_at(source_path("nowhere://bucket/run")).load(state_at(0))


# Damage


@pytest.mark.parametrize(
    ("how", "suffix"),
    [
        ("cut short", "pt"),
        ("emptied", "pt"),
        ("overwritten", "pt"),
        ("one bit", "pt"),
        ("gone", "pt"),
        ("cut short", "json"),
        ("emptied", "json"),
        ("overwritten", "json"),
    ],
)
def test_the_one_before_takes_the_place_of_a_damaged_one(
    how: str, suffix: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_at(place)
    folder.save(state_at(2))
    folder.save(state_at(5))
    damage(place, 5, how, suffix=suffix)
    resumed = state_at(0)
    assert folder_at(place, keep=1).load(resumed)
    assert weights(resumed) == weights(state_at(2))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"roclip: checkpoint .*checkpoints/step_000000005\.pt is damaged: going on from step 2", line
    )
    folder_at(place, keep=1).save(state_at(3))
    assert folder.steps() == [3], "a damaged one does not count among the last few"


@pytest.mark.parametrize("how", ["cut short", "emptied", "overwritten", "one bit", "gone"])
def test_where_no_good_one_is_left_it_is_told_in_one_line(how: str, place: Path) -> None:
    folder = folder_at(place)
    for step in (2, 5):
        folder.save(state_at(step))
        damage(place, step, how)
    message = (
        r"^checkpoint .*checkpoints/step_000000005\.pt is damaged, and no earlier one is whole: "
        r"remove .*checkpoints to start again$"
    )
    for _ in range(2):  # nothing was removed behind anybody's back
        with pytest.raises(DataError, match=message):
            folder_at(place).load(state_at(0))


def test_what_a_killed_writer_left_counts_for_nothing(place: Path) -> None:
    folder = folder_at(place)
    folder.save(state_at(2))
    folder.save(state_at(4))
    damage(place, 4, "gone", suffix="json")
    resumed = state_at(0)
    assert folder_at(place).load(resumed)
    assert resumed.step == 2
    folder_at(place).save(state_at(3))
    assert folder.steps() == [2, 3]
    assert len(files(place)) == 4, "and is cleared away"


@pytest.mark.parametrize("at", range(1, 30))
def test_a_disk_that_refuses_leaves_the_last_one(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_at(tmp_path)
    folder.save(state_at(2))
    with monkeypatch.context() as patch:
        RefusingDisk(tmp_path, code=28, at=at).install(patch)
        try:
            folder.save(state_at(3))
            kept = 3
        except StorageError as error:
            assert "no room left to write" in str(error)  # noqa: PT017
            kept = 2
    resumed = state_at(0)
    assert folder_at(tmp_path).load(resumed)
    assert resumed.step == kept
    assert weights(resumed) == weights(state_at(kept))


# Stores that fail


@pytest.mark.parametrize("what", ["put", "cut", "ls", "cat", "rm"])
def test_a_store_that_fails_now_and_then_is_asked_again(what: str, store: Path) -> None:
    for step in (1, 2, 3):
        BrittleStore.failures[what] = remote.ATTEMPTS - 1
        folder_at(store).save(state_at(step))
    BrittleStore.failures[what] = remote.ATTEMPTS - 1
    resumed = state_at(0)
    assert folder_at(store).load(resumed)
    assert weights(resumed) == weights(state_at(3))
    assert len(files(store)) == 4


@pytest.mark.parametrize("what", ["put", "cut"])
@pytest.mark.parametrize("after", [0, 1], ids=["its checkpoint", "its marker"])
def test_a_store_that_takes_nothing_more_keeps_the_last_one(what: str, after: int, store: Path) -> None:
    """Also where half of a file was kept: its size tells."""
    folder_at(store).save(state_at(2))
    put = BrittleStore.put_file

    def fails_later(self: BrittleStore, local: str, path: str, **told: Any) -> None:
        BrittleStore.failures[what] = 1 if path.endswith(["pt", "json"][after]) else 0
        put(self, local, path, **told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BrittleStore, "put_file", fails_later)
        with pytest.raises(
            StorageError, match=r"^brittle://run/checkpoints/step_000000003\.\w+ could not be"
        ):
            folder_at(store).save(state_at(3))
    BrittleStore.failures.clear()
    resumed = state_at(0)
    assert folder_at(store).load(resumed)
    assert resumed.step == 2


def test_a_store_that_does_not_answer_is_no_damage(store: Path) -> None:
    folder_at(store).save(state_at(2))
    BrittleStore.failures["cat"] = 1_000
    with pytest.raises(StorageError, match=r"could not be read \(connection reset by peer\): run again once"):
        folder_at(store).load(state_at(0))
    BrittleStore.failures.clear()
    assert folder_at(store).load(state_at(0))


# Numbers that are none


@pytest.mark.parametrize("where", ["weight", "moment"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_no_numbers_is_not_kept(
    where: str, value: float, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_at(place)
    folder.save(state_at(2))
    spoilt = state_at(3)
    with torch.no_grad():
        kept = spoilt.optimizer.state[spoilt.model.weight]["exp_avg_sq"]
        (spoilt.model.weight if where == "weight" else kept)[0, 0] = value
    assert spoilt.finite(moments=False) == (where == "moment")
    assert not folder.save(spoilt)
    assert folder.steps() == [2]
    assert folder.last.endswith("step_000000002.pt")
    assert capsys.readouterr().err == (
        "roclip: no checkpoint at step 3: not all weights and moments are numbers\n"
    )


def test_a_marker_says_what_its_checkpoint_is(tmp_path: Path) -> None:
    folder_at(tmp_path).save(state_at(1))
    marker = json.loads((tmp_path / "step_000000001.json").read_text())
    size = (tmp_path / "step_000000001.pt").stat().st_size
    assert marker["name"] == "step_000000001.pt"
    assert (marker["size"], marker["settings"], len(marker["sha256"])) == (size, "told", 64)
