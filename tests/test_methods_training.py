"""Every way of training through the real loop: a killed run goes on, and two ranks make the steps of one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.training.data import build_cache
from roclip_sanitize.training.settings import METHOD, TrainSettings
from roclip_sanitize.training.uses import is_read
from tests.squares import write_square_shards
from tests.trainings import VIT, make_steps, make_trainer, rank_member, require_same_steps
from tests.trainings import settings_for as settings_for_more

if TYPE_CHECKING:
    from roclip_sanitize.training.loop import Trainer

pytestmark = pytest.mark.slow
PAIRS, BATCH, EPOCHS = 48, 8, 2
STEPS = PAIRS // BATCH * EPOCHS
CLEANERS = {"cleanclip", "par"}


def settings_for(shards: tuple[Path, ...], **told: Any) -> TrainSettings:
    pool = {"pool_size": 12} if is_read("pool_size", {"method": METHOD, **told}) else {}
    return settings_for_more(shards, **{"batch_size": BATCH, "epochs": EPOCHS, **pool, **told})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_square_shards(tmp_path_factory.mktemp("squares"), shards=2, pairs=PAIRS // 2)


@pytest.fixture(scope="module")
def cache(shards: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    return build_cache(shards, model=VIT, side=64, fit="squash", root=root, executor=LocalExecutor())


@pytest.fixture(scope="module")
def poisoned(shards: tuple[Path, ...], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model for the cleaners to begin with."""
    out = tmp_path_factory.mktemp("poisoned")
    make_trainer(settings_for(shards, method="clip", samples=BATCH), cache=cache, out=out).run()
    return str(out / "model")


def kept(trainer: Trainer) -> bytes:
    """All that a run keeps of its past."""
    file, state = io.BytesIO(), trainer.state
    parts = (state.step, *(each.state_dict() for each in (state.model, state.optimizer, state.method)))
    torch.save(parts, file)
    return file.getvalue()


def go_on(trainer: Trainer, past: bytes) -> None:
    """Put a fresh run where another was."""
    state = trainer.state
    state.step, model, optimizer, method = torch.load(io.BytesIO(past), weights_only=True)
    state.model.load_state_dict(model)
    state.optimizer.load_state_dict(optimizer)
    state.method.load_state_dict(method)


def tensors(value: Any) -> list[torch.Tensor]:
    """All of them, and all numbers, in a nest of whatever there is."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [each for part in value for each in tensors(part)]
    return [torch.as_tensor(value)] if isinstance(value, torch.Tensor | int | float) else []


KILLED: dict[str, tuple[dict[str, Any], dict[int, str]]] = {
    "phases before RoCLIP": (
        {
            "warm_up_for": 0.25,
            "gentle_for": 0.16,
            "match_from": 0.5,
            "match_every": 32,
            "match_for": 16,
            "match_last": "matching",
            "exclude_copies": True,
        },
        {2: "unimodal", 3: "gentle", 5: "ordinary", 7: "matching"},
    ),
    "SafeCLIP": (
        {"method": "safeclip", "warm_up_for": 0.25, "gentle_for": 0.085},
        {3: "gentle", 4: "unimodal", 5: "unimodal", 9: "ordinary", 10: "unimodal"},
    ),
    "released RoCLIP": (
        {"method": "roclip_released", "wd": 0.5},
        {5: "ordinary", 7: "matching"},
    ),
    "consensus": ({"method": "consensus", "doubtful": 0.2}, {1: "ordinary", 3: "ordinary", 5: "ordinary"}),
    "PAR": ({"method": "par"}, {1: "ordinary"}),
}
FOLLOWED = 2  # steps after which nothing may differ: then nothing ever will


@pytest.mark.parametrize("name", KILLED)
def test_a_run_killed_in_any_phase_goes_on_bit_for_bit_as_an_undisturbed_one(
    name: str, shards: tuple[Path, ...], cache: Path, poisoned: str, tmp_path: Path
) -> None:
    told, killed = KILLED[name]
    pretrained = poisoned if told.get("method") in CLEANERS else ""
    settings = settings_for(shards, **told, pretrained=pretrained)

    def fresh() -> Trainer:
        return make_trainer(settings, cache=cache, out=tmp_path)

    whole, pasts, kinds = fresh(), dict[int, bytes](), list[str]()
    for step in range(max(killed) + FOLLOWED + 1):
        if {step, step - FOLLOWED} & killed.keys():
            pasts[step] = kept(whole)
        kinds.append(whole.step().kind if step < STEPS else "")
    assert {step: kinds[step] for step in killed} == killed
    for step in killed:
        resumed = fresh()
        go_on(resumed, pasts[step])
        for _ in range(FOLLOWED):
            resumed.step()
        found, wanted = (
            tensors(torch.load(io.BytesIO(past))) for past in (kept(resumed), pasts[step + FOLLOWED])
        )
        assert len(found) == len(wanted)
        assert all(map(torch.equal, found, wanted)), f"killed before step {step}"


RANK_CASES: dict[str, dict[str, Any]] = {
    "unimodal": {"method": "unimodal"},
    "no copies": {"pairing": "both", "exclude_copies": True, "match_from": 0.0, "match_for": 64},
    "released": {"method": "roclip_released", "pool_size": 30, "batch_size": 24},  # the third step matches
    "safeclip": {"method": "safeclip", "warm_up_for": 0.0, "gentle_for": 0.0},
    "safeclip in parts": {
        "method": "safeclip",
        "warm_up_for": 1 / 12,
        "gentle_for": 1 / 12,
        "accum_freq": 3,
    },
    "consensus": {"method": "consensus"},
    "cleanclip": {"method": "cleanclip"},
    "par": {"method": "par"},
}


def test_two_ranks_make_the_steps_of_one(
    shards: tuple[Path, ...], cache: Path, poisoned: str, tmp_path: Path
) -> None:
    cases = {
        name: settings_for(shards, lr=1e-5, **told, pretrained=poisoned if name in CLEANERS else "")
        for name, told in RANK_CASES.items()
    }
    spawn(rank_member, (2, cases, cache, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2)]
    for name, told in cases.items():
        alone = make_steps(told, cache, tmp_path)
        for rank in ranks:
            require_same_steps(rank[name], alone)
    assert ranks[0]["released"]["kinds"] == ["ordinary", "ordinary", "matching"]
    assert ranks[0]["no copies"]["kinds"] == ["ordinary", "matching", "matching"]
    assert ranks[0]["safeclip in parts"]["kinds"][:2] == ["unimodal", "gentle"]
    splits = [rank["safeclip"]["kept"]["safe_N"] for rank in ranks]
    assert splits[0].any()
    assert torch.equal(*splits)
