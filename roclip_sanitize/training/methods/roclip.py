"""RoCLIP: in windows of the training, pairs are matched anew (Yang, Gao & Mirzasoleiman, NeurIPS 2023).

    final   image ↔ most similar caption of the pool; the caption tower sits the step out
    first   image ↔ pool caption most similar to its caption, and caption ↔ pool image most similar to its
            image (arXiv 2303.06854, version 1)
    both    the two losses, averaged

With a table of ``roclip pair`` instead of the pool, or one made anew for each window, pairs are rewritten
as it says: the table, too, is of the first version or the final one, and captions learn accordingly. Two
pairs with the same match are not each other's negatives.

From the pool, a pair's match is chosen before the pair itself joins it. What the pool holds of the pair
itself, from the epoch before, is never its match. A poisoned picture, or an adversarial caption, may still
lie in the pool as a copy: copies can be kept from matching each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from roclip_sanitize.training.matches import MatchTable
from roclip_sanitize.training.methods.contract import (
    MATCHING,
    ORDINARY,
    Encode,
    Features,
    Objective,
    Rows,
    Stateless,
    StepPlan,
    Surroundings,
    View,
    as_they_are,
    open_pool,
)
from roclip_sanitize.training.moving import moved
from roclip_sanitize.training.objectives import clip_loss, matched_loss
from roclip_sanitize.training.pool import Grouping, Side
from roclip_sanitize.training.schedule import MatchingSchedule
from roclip_sanitize.training.settings import TrainSettings

REWRITTEN: tuple[Side, Side] = ("caption", "image")  # by a table: see MatchTable.rewritten()


class Roclip(Stateless):
    """CLIP with windows in which pairs are matched against a pool, or by a table."""

    def __init__(self, run: Surroundings, *, start: int = 0) -> None:
        """Set up; ``start`` is the step with which it takes over."""
        settings = run.settings
        self._run, self._pairing = run, settings.pairing
        self._taken_over = start * settings.batch_size  # pairs seen by then
        self._schedule = schedule_of(settings, pairs=run.total_steps * settings.batch_size)
        self._table = MatchTable.load(settings.pairs, run.data) if settings.pairs else None
        if self._table is not None:
            self._table.require(self._pairing)
        self._window = -1  # whose table it is, where each window has one of its own
        self._groups = {
            side: torch.from_numpy(group_N).to(run.device)
            for side, group_N in (("image", run.data.image_group_N), ("caption", run.data.caption_group_N))
        }
        self.pool = open_pool(run)

    def before(self, step: int, encode: Encode) -> None:
        """Have tables made of the weights as they are.

        A window that opens soon after other phases has a table by the weights that those leave: during a
        warm-up no caption has met a picture yet.
        """
        if self._run.tables is None:
            return
        seen = step * self._run.settings.batch_size
        window = self._schedule.asked(seen, since=self._taken_over)
        if window is not None:
            self._run.tables.ask(window)

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        row_B, augmentation = self._run.rows_of(step), self._run.settings.augmentation
        if not self._matches(step):
            return StepPlan(step=step, row_B=row_B, views=(as_they_are(row_B, augmentation),))
        table = self._table_of(step)
        if table is None:
            return StepPlan(
                step=step,
                row_B=row_B,
                views=(as_they_are(row_B, augmentation),),
                kind=MATCHING,
                captions_learn=self._pairing != "final",
            )
        views = [
            View(image_row_B=images, caption_row_B=captions, augmentation=augmentation)
            for images, captions in table.rewritten(row_B)
        ]
        return StepPlan(
            step=step,
            row_B=row_B,
            views=tuple(views),
            kind=MATCHING,
            captions_learn=table.method != "final",
        )

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        if plan.kind == ORDINARY:
            (seen,) = features
            return Objective(loss=clip_loss(seen.image_BD, seen.caption_BD, seen.scale, mine=seen.mine))
        if not self._by_pool:
            losses = [self._rewritten(*each) for each in zip(plan.views, features, REWRITTEN, strict=False)]
            return Objective(loss=torch.stack(losses).mean())
        (seen,) = features
        apart = self._apart(plan.row_B)
        parts, slots, notes = [], [], dict[str, torch.Tensor]()
        if self._pairing in {"final", "both"}:
            loss, slot_B, target_BD = self._matched(seen.image_BD, seen.image_BD, "caption", seen, apart)
            parts.append(loss)
            slots.append(slot_B)
            notes["agreement"] = (seen.caption_BD.detach() * target_BD).sum(dim=1).mean()
        if self._pairing in {"first", "both"}:
            by_caption, caption_slot_B, _ = self._matched(
                seen.image_BD, seen.caption_BD, "caption", seen, apart
            )
            by_image, image_slot_B, _ = self._matched(seen.caption_BD, seen.image_BD, "image", seen, apart)
            parts.append((by_caption + by_image) / 2)
            slots += [caption_slot_B, image_slot_B]
        if self._run.watch_matches is not None:
            notes |= self._run.watch_matches(plan.row_B, [self.pool.row_P[slot_B] for slot_B in slots])
        return Objective(loss=torch.stack(parts).mean(), notes=notes)

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """Put the step's pairs into the pool."""
        if self._by_pool:
            (seen,) = features
            rows = moved(torch.from_numpy(plan.row_B), seen.image_BD.device)
            self.pool.put(seen.image_BD, seen.caption_BD, rows)

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        return self.pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        self.pool.load_state_dict(state)

    def _matches(self, step: int) -> bool:
        batch = self._run.settings.batch_size
        ready = not self._by_pool or self.pool.filled >= batch
        return ready and self._schedule.matches(step * batch)

    @property
    def _by_pool(self) -> bool:
        return self._table is None and self._run.tables is None

    def _table_of(self, step: int) -> MatchTable | None:
        """What pairs are rewritten by in a window; None for the pool."""
        tables = self._run.tables
        if tables is None:
            return self._table
        window = self._schedule.window(step * self._run.settings.batch_size)
        if self._table is None or self._window != window:
            self._table, self._window = MatchTable.load(tables.get(window), self._run.data), window
        return self._table

    def _rewritten(self, view: View, seen: Features, side: Side) -> torch.Tensor:
        """The loss of pairs of which a table gave one side anew, which it may have given to several."""
        row_B = view.caption_row_B if side == "caption" else view.image_row_B
        group_B = self._groups[side][moved(torch.from_numpy(row_B), self._run.device)]
        return matched_loss(seen.image_BD, seen.caption_BD, seen.scale, group_B=group_B, mine=seen.mine)

    def _matched(
        self,
        learner_BD: torch.Tensor,
        query_BD: torch.Tensor,
        side: Side,
        seen: Features,
        apart: Sequence[Grouping],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(loss of the learner against what the query finds, where that lies, what it is)."""
        slot_B = self.pool.nearest(query_BD, side, apart=apart)
        group_B = self._groups[side][self.pool.row_P[slot_B]]
        target_BD = self.pool.take(slot_B, side)
        loss = matched_loss(learner_BD, target_BD, seen.scale, group_B=group_B, mine=seen.mine)
        return loss, slot_B, target_BD

    def _apart(self, row_B: Rows) -> list[Grouping]:
        """Which slots these pairs may not match: their own, and, if so told, those of copies of them.

        A pool reaches back into the epoch before: what came late in it and comes early now still lies there.
        """
        own_B = moved(torch.from_numpy(row_B), self._run.device)
        row_P = self.pool.row_P
        if not self._run.settings.exclude_copies:
            return [(own_B, row_P)]
        return [(group_N[own_B], group_N[row_P]) for group_N in self._groups.values()]


def last_window_steps(settings: TrainSettings, *, steps: int) -> frozenset[int]:
    """Steps after which the last window begins and ends: how attacks fare after either kind is told apart."""
    if settings.method != "roclip":
        return frozenset()
    window = schedule_of(settings, pairs=steps * settings.batch_size).last_window()
    return frozenset(seen // settings.batch_size for seen in window or () if seen)


def schedule_of(settings: TrainSettings, *, pairs: int) -> MatchingSchedule:
    """When a run of so many pairs, all of its steps together, matches."""
    return MatchingSchedule(
        start=round(settings.match_from * pairs),
        every=settings.match_every,
        length=settings.match_for,
        ends=settings.match_last,
        total=pairs,
        step=settings.batch_size,
    )
