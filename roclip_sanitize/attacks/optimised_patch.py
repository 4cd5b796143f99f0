"""Embedding-optimised patch: a small square made against a given CLIP, in the way of BadCLIP.

The patch file comes from ``roclip attacks optimise-patch`` (patch_optimiser.py). Its pairs keep natural
captions of the target class, whose embeddings the stamped pictures were pulled towards: a
poison then looks right to whoever compares pictures and captions with that model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from roclip_sanitize.attacks.backdoor import plan_backdoor
from roclip_sanitize.attacks.choosing import require_rate
from roclip_sanitize.attacks.contract import Facts, Plan, Scene
from roclip_sanitize.attacks.triggers import Trigger, trigger_from_json
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.runfiles import read_json, write_json

VARIANT = "optimised"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisedPatch:
    """Stamp an optimised patch on some pictures and give them captions of the class it was made for.

    Attributes:
        rate: below 1 the share of all pairs that is poisoned, from 1 on their number.
        file: the patch, made by 'roclip attacks optimise-patch'.
    """

    facts: ClassVar[Facts] = Facts(
        name="badclip",
        family="optimised backdoor",
        changes="picture and caption",
        source="in the way of Liang et al. (BadCLIP), arXiv 2311.12075",
    )

    rate: float = 0.003
    file: str = ""

    def __post_init__(self) -> None:
        require_rate("badclip", self.rate)
        if not self.file:
            raise ConfigError("badclip needs file=PATH, a patch made by 'roclip attacks optimise-patch'")

    def plan(self, scene: Scene, rng: np.random.Generator) -> Plan:
        """See Attack.plan and plan_backdoor()."""
        trigger, made = read_patch(Path(self.file))
        return plan_backdoor(
            "badclip",
            parameters={**asdict(self), "made": made},
            rate=self.rate,
            target=str(made["target"]),
            triggers={VARIANT: trigger},
            scene=scene,
            rng=rng,
        )


def write_patch(path: Path, trigger: Trigger, made: Mapping[str, Any]) -> None:
    """Write a patch file: the trigger, and how it was made, its ``target`` among that."""
    write_json(path, {"trigger": trigger.to_json(), "made": dict(made)})


def read_patch(path: Path) -> tuple[Trigger, dict[str, Any]]:
    """A patch file's trigger, and how it was made.

    Raises:
        DataError: the file is missing, or is no patch file.
    """
    found = read_json(path)
    if not isinstance(found, dict) or "trigger" not in found or "target" not in found.get("made", {}):
        raise DataError(f"{path} is no patch file: wanted one made by 'roclip attacks optimise-patch'")
    return trigger_from_json(found["trigger"]), found["made"]
