"""How to scan: what the ``scan`` stage is told, and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.verdicts import Thresholds
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.whereabouts import store_of

DETECTORS = ("cross_prediction", "traces", "kin", "agreement", "repetition", "collisions")
LEAN = ("traces", "kin")  # on cross prediction
BESIDE = ("second_look", "textures")  # other stores of the same pairs
TABLES = 11  # of this layout: a scan does not go on in a folder of another


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """How to scan. There is no seed: nothing is drawn.

    Attributes:
        store: the embedding store.
        index: index of all its pictures, over features that never saw a caption.
        detectors: which of DETECTORS to run.
        neighbours: pictures that agreement and repetition ask about each caption.
        budget: share of all pairs, from 0 to 1, that all detectors but collisions may quarantine together.
        times_mismatched: they may not quarantine more than so many times the share of pairs that are
            estimated not to belong together, with some care, or than carry a trace, see estimate.py; 0 asks
            for no estimate.
        captions_per_picture: so many different captions of one picture, near-copies included, are
            a collision. Two or three are what shops do with their own photos.
        pictures_per_caption: so many near-identical pictures under one caption are a collision, and so many
            similar ones a repetition.
            A photo series of one product has five or so; a natural backdoor has hundreds.
        near_copy_cosine: pictures closer than this are copies. Among 12,000 catalogue photos in
            half-whitened pixel space, JPEG quality 75 and halving the size leave 99 % of pictures
            above 0.998, while 0.05 % of clean pairs reach four captions there (0.25 % at 0.995).
        label: JSON field of the shards that tells a pair's class, of which none shall lose too much, see
            long_tail.py; "" for no such guard.
        times_per_label: of the share of all pairs that is set aside, what a label may lose.
        second_look: embedding stores of the same pairs, each made by a CLIP that was trained for an epoch or
            less on pairs that are trusted: cross prediction looks at them again in the vectors of each.
        textures: embedding store of their textures, see textures.py: traces are looked for in them, too.
    """

    store: Path
    index: Path
    detectors: tuple[str, ...] = DETECTORS
    neighbours: int = 40
    budget: float = 0.06
    times_mismatched: float = 3.0
    captions_per_picture: int = 4
    pictures_per_caption: int = 8
    near_copy_cosine: float = 0.998
    label: str = ""
    times_per_label: float = 3.0
    second_look: tuple[Path, ...] = ()
    textures: Path | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.detectors) - set(DETECTORS))
        if unknown or not self.detectors:
            raise ConfigError(
                f"detectors are {', '.join(self.detectors) or 'none'}, wanted some of {', '.join(DETECTORS)}"
            )
        self._require_ranges()
        lean = {"second-look": self.second_look, **{name: name in self.detectors for name in LEAN}}
        for what, asked in lean.items():
            if asked and "cross_prediction" not in self.detectors:
                raise ConfigError(
                    f"{what} goes with the detector cross_prediction, but detectors are "
                    f"{', '.join(self.detectors)}"
                )
        if self.textures and "traces" not in self.detectors:
            raise ConfigError(
                f"textures go with the detector traces, but detectors are {', '.join(self.detectors)}"
            )
        for store, count in Counter(self.second_look).items():
            if count > 1:
                raise ConfigError(f"second-look names {store} {count} times, wanted a store once")

    def _require_ranges(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"neighbours is {self.neighbours}, wanted 1 or more")
        if not 0 <= self.budget <= 1:
            raise ConfigError(f"budget is {self.budget}, wanted a share from 0 to 1")
        if not 0 <= self.times_mismatched < math.inf:
            raise ConfigError(f"times-mismatched is {self.times_mismatched}, wanted 0 or more")
        if not 0 < self.times_per_label < math.inf:
            raise ConfigError(f"times-per-label is {self.times_per_label}, wanted more than 0")
        for name in ("captions_per_picture", "pictures_per_caption"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 2 or more: every pair has one")
        if not 0 < self.near_copy_cosine <= 1:
            raise ConfigError(
                f"near_copy_cosine is {self.near_copy_cosine}, wanted more than 0 and at most 1"
            )

    @property
    def looks(self) -> int:
        """How often cross prediction looks."""
        return 1 + len(self.second_look)

    @property
    def thresholds(self) -> Thresholds:
        """From which count on a collision is one."""
        return Thresholds(
            captions_per_picture=self.captions_per_picture, pictures_per_caption=self.pictures_per_caption
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values, with the store's and the index's content."""
        told = {
            **asdict(self),
            "store": str(self.store),
            "index": str(self.index),
            "detectors": sorted(self.detectors),
            "tables": TABLES,
            "store_content": _content(self.store, "embed"),
            "index_content": _content(self.index, "index"),
        }
        if not self.label:  # a scan from before there were labels goes on
            del told["label"], told["times_per_label"]
        del told["textures"]
        if self.textures:
            told |= {"textures": str(self.textures), "textures_content": _content(self.textures, "embed")}
        if not self.second_look:  # a scan from before there was one goes on
            del told["second_look"]
            return told
        seen = [_content(store, "embed") for store in self.second_look]
        return {**told, "second_look": list(map(str, self.second_look)), "second_look_content": seen}


def scanned_store(scan: StageFolder) -> EmbeddingStore:
    """The store that a finished scan is of. One from before its content was noted is taken as it is.

    Raises:
        DataError: the store is gone.
        MismatchError: it is unfinished, or holds something else than was scanned: pairs that nobody judged.
    """
    store, wanted = EmbeddingStore.open(store_of(scan)), scan.settings.get("store_content")
    if wanted is not None and (found := _content(store.path, "embed")) != wanted:
        raise MismatchError(
            f"{store.path} holds {found}, wanted {wanted}, of which {scan.path} was made: "
            "index and scan it again, each into another folder"
        )
    return store


def _content(path: Path, stage: str) -> str:
    return StageFolder.open(path, stage=stage).content


def with_textures(told: Mapping[str, Any], textures: Path) -> dict[str, Any]:
    """Some of the settings by name, and a store of textures where traces are looked for."""
    asked = "traces" in told.get("detectors", DETECTORS)
    return {**told, "textures": textures} if asked else dict(told)
