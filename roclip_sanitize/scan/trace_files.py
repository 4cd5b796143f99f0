"""Where the rounds of traces lie, under a scan's work folder, and how their steps are marked done.

Folders and files:

    traces/weights.npz                rows with a rank below 1/2, and what they weigh
    traces/seed_0/suspects.npz        from the weights; then those who stand out, and those with evidence
    traces/seed_0/sums_00000.npy      of one lot; goes when the round is over
    traces/seed_0/likeness_00000.npz  of one lot, pair by pair; goes, too
    traces/seed_0/traced.npz          traces that many carry, and the rows that have evidence of one
    traces/growth_0/…                 the same; each round's traced.npz has all that is known by then
    traces/even/…                     the same rounds, of pictures of the same length
    traces/textures/…                 the same rounds, of textures
    traces/traced.npz                 what the last ones knew, together
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roclip_sanitize.limits import Laps
from roclip_sanitize.runfiles import Marker
from roclip_sanitize.scan.looks import Look
from roclip_sanitize.scan.parts import Places

STEP = "traces"


@dataclass(frozen=True, slots=True)
class TraceFiles:
    """Where the rounds of a look lie; ``even``: in which all pictures are brought to the same length."""

    places: Places
    look: Look
    even: bool = False

    @property
    def name(self) -> str:
        """Of their folder, "" for the first ones."""
        return "even" if self.even else self.look.name

    @property
    def weights(self) -> Path:
        """Those of all looks."""
        return self.places.work / "traces" / "weights.npz"

    @property
    def _folder(self) -> Path:
        return self.places.work / "traces" / self.name

    def marked(self, name: str) -> str:
        """What a step's marker is called."""
        return f"traces_{self.name}_{name}" if self.name else f"traces_{name}"

    def commit(self, name: str, *files: Path, laps: Laps, workers: int = 1) -> Marker:
        """Declare a step done, and book its time."""
        laps.lap(STEP)
        return self.places.commit(self.marked(name), *files, rows=0, laps=laps, workers=workers)

    def suspects(self, name: str) -> Path:
        """Whom a round suspects."""
        return self._folder / name / "suspects.npz"

    def sums(self, name: str, lot: str) -> Path:
        """A round's, of one lot."""
        return self._folder / name / f"sums_{lot}.npy"

    def likeness(self, name: str, lot: str) -> Path:
        """A round's, of one lot."""
        return self._folder / name / f"likeness_{lot}.npz"

    def traced(self, name: str) -> Path:
        """What a round judged."""
        return self._folder / name / "traced.npz"
