"""Consensus: whom it trusts, and what it shows of whom it does not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from roclip_sanitize.errors import DataError
from roclip_sanitize.training.methods import open_method
from roclip_sanitize.training.methods.consensus import Consensus
from roclip_sanitize.training.methods.contract import Rows, Surroundings, View
from roclip_sanitize.training.trust import WITNESSES, MemoryJudge
from tests.method_runs import KINDS, kinds_of, random_features, surroundings

ROWS = 480
WRONG = np.arange(5, ROWS, 40)  # pairs with the caption of the next kind
KIND_N = np.arange(ROWS) % KINDS


def run_of(**told: Any) -> Surroundings:
    """Of a run of two epochs, with a dozen captions swapped."""
    run = surroundings("consensus", rows=ROWS, batch_size=24, total_steps=80, **told)
    return replace(run, data=with_wrong_captions(run.data))


def with_wrong_captions(data: Any) -> Any:
    def read(row_B: Rows, caption_row_B: Rows | None = None) -> Any:
        caption_row_B = row_B if caption_row_B is None else caption_row_B
        return kinds_of(
            row_B, np.where(np.isin(caption_row_B, WRONG), caption_row_B + 1, caption_row_B), kind_N=KIND_N
        )

    return SimpleNamespace(**{**vars(data), "read": read, "caption_group_N": np.arange(ROWS) // 2})


def encode(row_N: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """A model that knows every kind."""
    rng = np.random.default_rng(2)
    kind_KD = rng.normal(size=(KINDS, 16))
    caption_kind_N = np.where(np.isin(row_N, WRONG), (KIND_N[row_N] + 1) % KINDS, KIND_N[row_N])
    halves = [
        kind_KD[kinds] + 0.1 * rng.normal(size=(len(row_N), 16)) for kinds in (KIND_N[row_N], caption_kind_N)
    ]
    image, caption = (torch.nn.functional.normalize(torch.from_numpy(each).float()) for each in halves)
    return image, caption


def views(method: Consensus, steps: range) -> list[tuple[Rows, View]]:
    """(the step's pairs, what is shown of them)."""
    seen = []
    for step in steps:
        method.before(step, encode)
        plan = method.plan(step)
        seen.append((plan.row_B, plan.views[0]))
    return seen


def test_the_first_epoch_shows_the_trusted_half_as_it_is() -> None:
    shown = set[int]()
    for _, view in views(Consensus(run_of()), range(20)):
        assert (view.image_row_B == view.caption_row_B).all()
        shown |= set(view.image_row_B.tolist())
    assert not shown & set(WRONG.tolist())
    assert len(shown) <= ROWS // 2


def test_later_the_wrong_pairs_are_shown_with_what_belongs_to_either_half() -> None:
    method = Consensus(run_of(doubtful=0.05, rewritten=1.0))
    beside_pictures, beside_captions = 0, 0
    for row_B, view in views(method, range(80))[20:]:
        for row, image, caption in zip(row_B, view.image_row_B, view.caption_row_B, strict=True):
            if row not in WRONG:
                continue
            assert (image == row) != (caption == row), "one half is its own, and one is not"
            if image == row:
                assert KIND_N[caption] == KIND_N[row]
                beside_pictures += 1
            else:
                assert KIND_N[image] == (KIND_N[row] + 1) % KINDS
                beside_captions += 1
    assert beside_pictures > 10
    assert beside_captions > 10


def test_pairs_that_are_trusted_stay_as_they_are_to_the_end() -> None:
    method = Consensus(run_of(doubtful=0.05, rewritten=1.0))
    kept = 0
    for row_B, view in views(method, range(80))[20:]:
        same_B = (view.image_row_B == row_B) & (view.caption_row_B == row_B)
        kept += int(same_B.sum())
        assert same_B.sum() >= len(row_B) - 6
    assert kept == pytest.approx(0.95 * 60 * 24, rel=0.02)


def test_pairs_that_are_not_rewritten_leave_their_places_to_trusted_ones() -> None:
    method = Consensus(run_of(doubtful=0.05, rewritten=0.0))
    for _, view in views(method, range(80))[20:]:
        assert (view.image_row_B == view.caption_row_B).all()
        assert not np.isin(view.image_row_B, WRONG).any()


def test_the_log_says_how_many_are_doubted() -> None:
    method = Consensus(run_of(doubtful=0.1))
    method.before(0, encode)
    plan = method.plan(0)
    noted = method.loss(plan, random_features(plan)).notes["doubted"]
    assert 0.2 < float(noted) < 0.8  # half of all


def test_after_a_warm_up_it_looks_when_it_takes_over() -> None:
    run = run_of(doubtful=0.05, rewritten=0.0, warm_up_for=0.25, pool_size=24)
    method = open_method(run)
    for step in range(80):
        method.before(step, encode)
        plan = method.plan(step)
        if step >= 20:
            assert not np.isin(plan.views[0].image_row_B, WRONG).any()


def test_who_watches_is_told_what_took_the_place_of_either_half() -> None:
    told = list[tuple[Rows, torch.Tensor]]()

    def watch(row_B: Rows, found: Any) -> dict[str, torch.Tensor]:
        told.append((row_B, *found))
        return {"away": torch.tensor(1.0)}

    method = Consensus(replace(run_of(doubtful=0.05, rewritten=1.0), watch_matches=watch))
    for step in range(80):
        method.before(step, encode)
        plan = method.plan(step)
        noted = method.loss(plan, random_features(plan)).notes
    assert set(noted) == {"doubted", "away"}
    stays = [partner == row for rows, found in told[20:] for row, partner in zip(rows, found, strict=True)]
    assert np.mean(stays) == pytest.approx(0.95, abs=0.01)
    for rows, found in told[20:]:
        assert not np.isin(rows[found.numpy() == rows], WRONG).any()


def test_of_several_pairs_with_one_picture_one_is_trusted() -> None:
    run = run_of()
    group_N = np.arange(ROWS)
    group_N[:10] = 0
    data = cast(
        "Any",
        SimpleNamespace(**{**vars(run.data), "image_group_N": np.unique(group_N, return_inverse=True)[1]}),
    )
    trust_N = np.linspace(0.5, 0.999, ROWS).astype(np.float32)
    doubts = MemoryJudge(data, seed=0).doubts(trust_N, share=0.0)
    assert doubts.row_F.tolist() == list(range(9)), "the tenth is the most trusted"


def test_witnesses_are_of_the_better_half_and_no_copies() -> None:
    run = run_of()
    trust_N = (np.random.default_rng(3).permutation(ROWS) / ROWS).astype(np.float32)
    doubts = MemoryJudge(run.data, seed=0).doubts(trust_N, share=0.1)
    assert doubts.by_picture_FK.shape == doubts.by_caption_FK.shape == (48, WITNESSES)
    for table_FK in (doubts.by_picture_FK, doubts.by_caption_FK):
        assert (trust_N[table_FK] >= 0.5).all()
    assert (KIND_N[doubts.by_picture_FK] == KIND_N[doubts.row_F][:, None]).mean() > 0.8
    groups = run.data.caption_group_N
    assert (groups[doubts.by_caption_FK] != groups[doubts.row_F][:, None]).all()


def test_fewer_trusted_pairs_than_witnesses_come_in_turns() -> None:
    run = run_of()
    trust_N = np.full(ROWS, 0.1, np.float32)
    trust_N[:2] = 0.9
    doubts = MemoryJudge(run.data, seed=0).doubts(trust_N, share=0.5)
    assert set(doubts.by_picture_FK.ravel().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"read": partial(kinds_of, kind_N=KIND_N)}, None),
        (
            {
                "read": lambda row_B, caption_row_B=None: (
                    kinds_of(row_B, kind_N=KIND_N)[0],
                    np.ones((len(row_B), 4), np.int64),
                )
            },
            "the 480 captions share no words that tell them apart",
        ),
    ],
)
def test_captions_that_say_nothing_are_refused_in_one_line(
    changed: dict[str, Any], message: str | None
) -> None:
    data = cast("Any", SimpleNamespace(**{**vars(run_of().data), **changed}))
    judge = MemoryJudge(data, seed=0)
    if message is None:
        assert len(judge.first_look()) == ROWS
    else:
        with pytest.raises(DataError, match=message):
            judge.first_look()


def test_nobody_left_to_trust_is_refused() -> None:
    with pytest.raises(DataError, match="no pair can be trusted"):
        MemoryJudge(run_of().data, seed=0).doubts(np.zeros(ROWS, np.float32), share=0.1)
