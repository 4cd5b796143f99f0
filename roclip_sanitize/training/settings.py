"""What a training run is told. Names follow open_clip's where it has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.training.schedule import Ending
from roclip_sanitize.training.uses import require_read

Method = Literal["clip", "roclip", "roclip_released", "unimodal", "safeclip", "consensus", "cleanclip", "par"]
Pairing = Literal["first", "final", "both"]
Precision = Literal["float32", "bfloat16"]
MatchBy = Literal["pool", "index"]
JudgeBy = Literal["memory", "scan"]
Augmentation = Literal["none", "mild", "strong", "mixing", "paper", "paper_mild"]
Publish = Literal["last", "best"]
Resident = Literal["auto", "always", "never"]

MODEL = "roclip-rn-64"
METHOD: Method = "roclip"
DEFAULT_AUGMENTATION: Augmentation = "mild"
EPOCHS = 4
METHODS = ("clip", "roclip", "roclip_released", "unimodal", "safeclip", "consensus", "cleanclip", "par")
CLEANERS = ("cleanclip", "par")  # of models that were trained before
TWO_VIEWS = ("unimodal", "safeclip", "cleanclip")  # compare two views of each pair, to the end
PAIRINGS = ("first", "final", "both")
PRECISIONS = ("float32", "bfloat16")
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
    "accum_freq": 1,
    "keep_checkpoints": 1,
}
SHARES = ("match_from", "warm_up_for", "gentle_for", "gentle_rate", "augment_for", "doubtful", "rewritten")
# Left out of what identifies a run while they change nothing: a run from before they existed goes on.
NEUTRAL: dict[str, Any] = {
    "precision": "float32",
    "compile": False,
    "accum_freq": 1,
    "warm_up_for": None,
    "gentle_for": None,
    "gentle_rate": 0.01,
    "augment_for": 1.0,
    "doubtful": 0.1,
    "rewritten": 0.5,
    "match_last": "",
    "exclude_copies": False,
    "match_by": "pool",
    "judge_by": "memory",
    "synonyms": "",
    "val_shards": [],
    "publish": "last",
}
# Decide what a kill costs, and who is told of what, but not what comes out.
UNDECIDING = ("checkpoint_seconds", "keep_checkpoints", "checkpoints", "ledger", "wandb", "resident")
AUGMENTATIONS = ("none", "mild", "strong", "mixing", "paper", "paper_mild")
MATCH_BY = ("pool", "index")
JUDGE_BY = ("memory", "scan")
ENDINGS = ("", "matching", "ordinary")
PUBLISHED = ("last", "best")
RESIDENT = ("auto", "always", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
        shards: what to train on.
        model: an open_clip model name, trained from random weights.
        pretrained: start from these weights instead, and with their model: "open_clip:NAME/WEIGHTS"
            (a tag or a file), or a training: its folder, the model/ in it, or the weights there.
        method: how; methods/ has a module on each.
        pairing: what RoCLIP re-matches. "final": an image to the most similar pool caption;
            "first": an image to the pool caption most similar to its caption, and a caption to
            the pool image most similar to its image; "both".
        pairs: a folder made by ``roclip pair``: match by its table instead of the pool, in the way that
            it was made for.
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
        match_last: how the training ends. "matching": with a window; "ordinary": with all the pairs
            between two windows; "": as windows counted from match_from happen to fall.
        match_by: "pool": the most recent pairs, at each step; "index": all pairs, by an index of the
            model's own vectors that is made anew for each window.
        exclude_copies: whether a pair never matches one of the pool that has its very picture or caption.
        warm_up_for: share of the training that begins it without any caption meeting a picture; None
            takes what the method wants, 0 for all but "safeclip".
        gentle_for: share of it that follows as plain CLIP at a low rate; None as above.
        gentle_rate: factor on the learning rate meanwhile.
        augment_for: share of the training after which pairs are shown as they are, 0 to 1.
        doubtful: share of the pairs that "consensus" does not trust, 0 to 1.
        judge_by: who judges pairs for "consensus". "memory": the first rank, which holds about 2 kB of each;
            "scan": scans of the shards, by workers beside the ranks, for more pairs than that goes with.
        rewritten: how often it shows such a pair as its witnesses have it, 0 to 1; else a trusted pair takes
            its place.
        synonyms: table of words or folder of WordNet for the captions of the paper's augmentation.
        seed: of weights, order and augmentation.
        precision: of the products inside the towers: "float32" or "bfloat16".
        compile: let torch.compile make the towers quicker, after a minute or two.
        accum_freq: parts in which a step's pairs go through the towers, so that a batch fits the memory;
            the loss sees the whole of it all the same.
        val_shards: held-out pairs: the loss on them goes into the log after each epoch, and the
            weights with the lowest are kept in OUT/best.
        publish: which weights become OUT/model: the "last", or the "best" of those.
        checkpoint_seconds: time between two checkpoints.
        keep_checkpoints: how many of them, from the newest on.
        checkpoints: folder or URL for them; "" is OUT/checkpoints.
        ledger: folder of ``roclip poison``: tell how many of its poisons are matched away. It is for watching
            only: nothing learns from it.
        wandb: project of Weights & Biases to tell too; "" for none.
        resident: whether the device holds all pairs, instead of reading each step's from files: "always",
            "never", or "auto": where they take less than a fifth of a GPU's free memory.
    """

    shards: tuple[Path, ...]
    model: str = MODEL
    pretrained: str = ""
    method: Method = METHOD
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
    match_last: Ending = ""
    match_by: MatchBy = "pool"
    exclude_copies: bool = False
    warm_up_for: float | None = None
    gentle_for: float | None = None
    gentle_rate: float = 0.01
    augment_for: float = 1.0
    doubtful: float = 0.1
    judge_by: JudgeBy = "memory"
    rewritten: float = 0.5
    synonyms: Path | None = None
    seed: int = 0
    precision: Precision = "float32"
    compile: bool = False
    accum_freq: int = 1
    val_shards: tuple[Path, ...] = ()
    publish: Publish = "last"
    checkpoint_seconds: float = 60.0
    keep_checkpoints: int = 2
    checkpoints: str = ""
    ledger: Path | None = None
    wandb: str = ""
    resident: Resident = "auto"

    def __post_init__(self) -> None:
        _require_one_of("method", self.method, METHODS)
        _require_one_of("pairing", self.pairing, PAIRINGS)
        _require_one_of("precision", self.precision, PRECISIONS)
        _require_one_of("augmentation", self.augmentation, AUGMENTATIONS)
        _require_one_of("match-last", self.match_last, ENDINGS)
        _require_one_of("publish", self.publish, PUBLISHED)
        _require_one_of("resident", self.resident, RESIDENT)
        if self.publish == "best" and not self.val_shards:
            raise ConfigError("publish 'best' needs held-out pairs to tell it by: name some with --val-data")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{_option(name)} is {getattr(self, name)}, wanted {least} or more")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr is {self.lr}, wanted more than 0")
        _require_shares({name: getattr(self, name) for name in SHARES})
        if self.augment_for < (1 if self.method in TWO_VIEWS else self.warm_up_for or 0):
            raise ConfigError(
                f"augment-for is {self.augment_for}, but unimodal steps, which compare two views of a pair, "
                "are still to come then"
            )
        if self.method in CLEANERS and not self.pretrained:
            raise ConfigError(
                f"method {self.method!r} cleans a model that was trained before: name it with --pretrained"
            )
        if 0 < self.pool_size < self.batch_size:  # matching waits until the pool holds a batch
            raise ConfigError(
                f"pool-size is {self.pool_size}, wanted 0 or at least batch-size ({self.batch_size})"
            )
        _require_windows(self)
        _require_matching(self)
        usual = {each.name: each.default for each in fields(self)}
        require_read({name: getattr(self, name) for name in usual}, usual=usual)

    @property
    def asks_for_tables(self) -> bool:
        """Whether somebody beside the ranks makes tables for them: see refresh.py."""
        return self.match_by == "index" or self.judge_by == "scan"

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
            "synonyms": str(self.synonyms) if self.synonyms else "",
            "val_shards": [str(path) for path in self.val_shards],
        }
        told = {name: value for name, value in values.items() if name not in UNDECIDING}
        return {name: value for name, value in told.items() if (name, value) not in NEUTRAL.items()}


def _require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        shown = ", ".join(each or "''" for each in known)
        raise ConfigError(f"{name} is {value!r}, wanted one of {shown}")


def _require_windows(settings: TrainSettings) -> None:
    length, every = settings.match_for, settings.match_every
    if length > every:
        raise ConfigError(f"match-for ({length}) exceeds match-every ({every})")
    steps, period = (math.ceil(pairs / settings.batch_size) for pairs in (length, every))
    if settings.match_last == "ordinary" and steps == period:
        raise ConfigError(
            f"match-last is 'ordinary', but match-for ({length}) leaves no step between two windows"
        )


def _require_matching(settings: TrainSettings) -> None:
    _require_one_of("match-by", settings.match_by, MATCH_BY)
    _require_one_of("judge-by", settings.judge_by, JUDGE_BY)
    if settings.judge_by == "scan" and settings.method != "consensus":
        raise ConfigError(f"judge-by 'scan' goes with method 'consensus', not {settings.method!r}")
    if settings.match_by == "pool":
        return
    if settings.method != "roclip" or settings.pairs is not None or settings.pairing == "both":
        raise ConfigError(
            "match-by 'index' goes with method 'roclip', pairing 'first' or 'final', and no table of pairs"
        )
    if not settings.match_from:
        raise ConfigError("match-from is 0, but match-by 'index' needs a model that has learnt something")
    if settings.match_every < settings.batch_size:
        raise ConfigError(
            f"match-every is {settings.match_every}, wanted at least batch-size ({settings.batch_size}) "
            "for match-by 'index'"
        )


def _require_shares(shares: Mapping[str, float | None]) -> None:
    for name, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"{_option(name)} is {share}, wanted a share from 0 to 1")


def _option(name: str) -> str:
    return name.replace("_", "-")
