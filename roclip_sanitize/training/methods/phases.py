"""What may come before a method: a warm-up without captions, and a gentle first acquaintance.

    unimodal, for --warm-up-for of the training ─▶ plain CLIP at a low rate, for --gentle-for ─▶ the method

Both are SafeCLIP's (ICML 2024), there 5 and 1 of 32 epochs: towers that know their own modality pull
apart what does not belong together, and one slow pass of CLIP says which pairs agree before any wrong
one has been learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from roclip_sanitize.training.methods.clip import Clip
from roclip_sanitize.training.methods.contract import (
    Encode,
    Features,
    Method,
    Objective,
    StepPlan,
    Surroundings,
)
from roclip_sanitize.training.methods.unimodal import Unimodal

GENTLE = "gentle"


class Phased:
    """Runs phases before a method."""

    def __init__(self, run: Surroundings, method: Method, *, gentle_from: int, method_from: int) -> None:
        """Say when the phases change.

        Args:
            run: what the run is told.
            method: what comes last.
            gentle_from: step with which the low rate begins; before it, training is unimodal.
            method_from: step with which the method takes over.
        """
        self.keeps_beginning = method.keeps_beginning
        self._gentle_from, self._method_from = gentle_from, method_from
        self._rate = run.settings.gentle_rate
        self._unimodal = Unimodal(run) if gentle_from else None
        self._clip, self.method = Clip(run), method

    def plan(self, step: int) -> StepPlan:
        """See Method.plan."""
        plan = self._at(step).plan(step)
        gentle = self._gentle_from <= step < self._method_from
        return replace(plan, kind=GENTLE, rate=self._rate) if gentle else plan

    def before(self, step: int, encode: Encode) -> None:
        """See Method.before."""
        self._at(step).before(step, encode)

    def loss(self, plan: StepPlan, features: Sequence[Features]) -> Objective:
        """See Method.loss."""
        return self._at(plan.step).loss(plan, features)

    def after(self, plan: StepPlan, features: Sequence[Features]) -> None:
        """See Method.after."""
        self._at(plan.step).after(plan, features)

    def state_dict(self) -> dict[str, Any]:
        """See Method.state_dict."""
        warm = self._unimodal.state_dict() if self._unimodal else {}
        return {"warm_up": warm, "method": self.method.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Method.load_state_dict."""
        if self._unimodal:
            self._unimodal.load_state_dict(state["warm_up"])
        self.method.load_state_dict(state["method"])

    def _at(self, step: int) -> Method:
        if self._unimodal and step < self._gentle_from:
            return self._unimodal
        return self._clip if step < self._method_from else self.method


def phase_starts(total_steps: int, *, warm_up: float, gentle: float) -> tuple[int, int]:
    """(step with which the low rate begins, step with which the method does).

    Args:
        total_steps: of the run.
        warm_up: share of them that is unimodal, 0 to 1.
        gentle: share of them that follows at a low rate.
    """
    return round(warm_up * total_steps), round((warm_up + gentle) * total_steps)
