"""What a training run is told. Names follow open_clip's where it has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from roclip_sanitize.errors import ConfigError

Method = Literal["clip", "roclip"]
Pairing = Literal["first", "final"]
Augmentation = Literal["none", "mild", "strong", "paper", "paper_mild"]

DEFAULT_AUGMENTATION: Augmentation = "mild"
EPOCHS = 4
METHODS = ("clip", "roclip")
PAIRINGS = ("first", "final")
# a pair alone has no negatives, so a batch has two
LEAST = {
    "epochs": 1,
    "samples": 0,
    "match_every": 1,
    "batch_size": 2,
    "wd": 0,
    "warmup": 0,
    "pool_size": 0,
    "match_for": 0,
    "seed": 0,
}
AUGMENTATIONS = ("none", "mild", "strong", "paper", "paper_mild")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
        shards: what to train on.
        model: an open_clip model name, trained from random weights.
        pretrained: start from these weights instead, and with their model: "open_clip:NAME/WEIGHTS"
            (a tag or a file), or the model/ folder of a training.
        method: "clip", or "roclip": CLIP with windows in which pairs are re-matched.
        pairing: what RoCLIP re-matches. "final": an image to the most similar pool caption;
            "first": an image to the pool caption most similar to its caption, and a caption to
            the pool image most similar to its image.
        pairs: a folder made by ``roclip pair``: match by its table instead of the pool.
        augmentation: "none", "mild" (flip, brightness, contrast, word dropping), "strong" (the same,
            and crops, erasing and blurring), "paper" (the RoCLIP paper's: crops down to 8 %, colours,
            grey, blur, and EDA of captions) or "paper_mild" (the same with crops of 90 % or more).
        epochs: passes over the pairs.
        samples: pairs to train on in all, some more often than others; 0 takes whole epochs. Runs
            on shards of different size compare at equal samples, not at equal epochs.
        batch_size: pairs per step, over all workers together.
        lr: peak learning rate.
        wd: weight decay of AdamW; none on gains, biases and the logit scale.
        warmup: steps until the peak; then a cosine down to 0.
        pool_size: pairs that the pool holds; 0 takes 2 % of the pairs and at least 32 batches, but no
            more than a quarter of an epoch.
        match_from: share of the training after which matching may start, 0 to 1.
        match_every: pairs from the start of one matching window to the start of the next.
        match_for: pairs that a window lasts.
        seed: of weights, order and augmentation.
        checkpoint_seconds: time between two checkpoints.
    """

    shards: tuple[Path, ...]
    model: str = "roclip-rn-64"
    pretrained: str = ""
    method: Method = "roclip"
    pairing: Pairing = "final"
    pairs: Path | None = None
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    epochs: int = EPOCHS
    samples: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    wd: float = 0.1
    warmup: int = 100
    pool_size: int = 0
    match_from: float = 0.5
    match_every: int = 2_560
    match_for: int = 320
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        _require_one_of("method", self.method, METHODS)
        _require_one_of("pairing", self.pairing, PAIRINGS)
        _require_one_of("augmentation", self.augmentation, AUGMENTATIONS)
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{_option(name)} is {getattr(self, name)}, wanted {least} or more")
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}, wanted more than 0")
        if not 0 <= self.match_from <= 1:
            raise ConfigError(f"match-from is {self.match_from}, wanted a share from 0 to 1")
        if 0 < self.pool_size < self.batch_size:  # matching waits until the pool holds a batch
            raise ConfigError(
                f"pool-size is {self.pool_size}, wanted 0 or at least batch-size ({self.batch_size})"
            )
        if self.match_for > self.match_every:
            raise ConfigError(f"match-for ({self.match_for}) exceeds match-every ({self.match_every})")

    def steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps of the whole run."""
        if self.samples:
            return max(1, self.samples // self.batch_size)
        return self.epochs * steps_per_epoch

    def to_json(self) -> dict[str, Any]:
        """The settings that decide the result, as plain values."""
        values = asdict(self) | {
            "shards": [str(path) for path in self.shards],
            "pairs": str(self.pairs) if self.pairs else "",
        }
        del values["checkpoint_seconds"]  # decides how much a kill costs, not what comes out
        return values


def _require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}, wanted one of {', '.join(known)}")


def _option(name: str) -> str:
    return name.replace("_", "-")
