"""Shards in, kept and quarantined shards out: the stages that clean a dataset, in one folder.

    shards ─▶ embed ─▶ index ─────────────▶ scan ─▶ rewrite
                ├─▶ embed textures ───────────┤
                └─▶ train ─▶ embed again ─────┘        (once for each young CLIP)

    OUT/store/ OUT/index/ OUT/scan/
    OUT/textures/                     what small patterns its pictures have, where triggers may show
    OUT/young_1/ OUT/young_1_store/   a CLIP that saw little, and the pairs in its vectors
    OUT/young_2/ …                    another one, of another seed
    OUT/rewrite/                      kept/*.tar, quarantined/*.tar, keep.npy, manifest.json

Each stage is the public one, with its folder, and resumes by itself: the same call goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.encoders import PLAIN, TEXTURES
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.index_tuning import with_what_varies
from roclip_sanitize.machine import Watch
from roclip_sanitize.records import Tally
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.scan.settings import ScanSettings, with_textures
from roclip_sanitize.scan.stage import scan_store
from roclip_sanitize.storage import remove_tree
from roclip_sanitize.store import EmbeddingStore, Towers
from roclip_sanitize.trained import model_folder
from roclip_sanitize.training.settings import JudgeBy, TrainSettings
from roclip_sanitize.training.train import train_all

YOUNG: Mapping[str, Any] = {  # it sees the trusted half of the pairs, and each of them twice at the most
    "method": "consensus",
    "epochs": 1,
    "doubtful": 0.5,
    "rewritten": 0.0,
    "augmentation": "mixing",
}
BATCH_PAIRS, LEAST_PAIRS = 64, 2  # of a step, and at the least where there are not as many
YOUNG_CLIPS = 2  # one judges worse; a third gains less than the second, for an epoch more (benchmarks/LOG.md)
HELD_IN_MEMORY = 500_000  # pairs; beyond, scans judge which ones the young CLIP sees


@dataclass(frozen=True, slots=True, kw_only=True)
class SanitizeSettings:
    """What to clean, and how.

    Attributes:
        shards: WebDataset shards.
        young_clips: CLIPs of one epoch, of seeds of their own, that look again at what the first look saw;
            what counts is the mean. They find triggers that cover whole pictures, and leave clean pairs
            alone; each costs an epoch of training and another embedding. 0 looks once.
        seed: of the index's sample, and of the first young CLIP; those after it count on.
        scan: further settings of the scan, by the names of ScanSettings.
    """

    shards: tuple[Path, ...]
    young_clips: int = YOUNG_CLIPS
    seed: int = 0
    scan: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.young_clips < 0:
            raise ConfigError(f"young_clips is {self.young_clips}, wanted 0 (look once) or more")
        self.scan_settings(Path())  # refuses what makes no sense, before anything is embedded

    @property
    def young(self) -> list[str]:
        """Names of the young CLIPs' folders."""
        return [f"young_{n}" for n in range(1, self.young_clips + 1)]

    def scan_settings(self, out: Path) -> ScanSettings:
        """What the scan of a run in ``out`` is told.

        Raises:
            ConfigError: one of its settings is out of range.
        """
        second = tuple(out / f"{name}_store" for name in self.young)
        told = with_textures({"second_look": second, **self.scan}, out / "textures")
        return ScanSettings(store=out / "store", index=out / "index", **told)


def sanitize_shards(
    settings: SanitizeSettings, *, out: Path, executor: Executor, say: Callable[[str], None]
) -> Tally:
    """Run all stages, or those that are not done.

    Args:
        settings: what and how.
        out: folder of all stages.
        executor: where they run.
        say: told a line when a stage begins, and one when it ends.

    Returns:
        What became of the pairs: seen, kept, quarantined and failed by reason.

    Raises:
        RoclipError: a stage could not be done; call again to go on from there.
    """
    tally = Tally(seen=0)
    for name, stage in _stages(settings, out, executor).items():
        say(f"{name} …")
        with Watch() as watch:
            done = stage()
        say(f"{name}: {watch.seconds:.1f} s")
        tally = done if isinstance(done, Tally) else tally
    return tally


def train_young(
    shards: tuple[Path, ...], *, pairs: int, seeds: Mapping[Path, int], executor: Executor
) -> None:
    """Train the CLIPs in whose vectors a scan looks again; each is in its folder's model/.

    Args:
        shards: what they see.
        pairs: how many there are, to choose who judges them, and how many a step shows.
        seeds: of each one's weights, by its folder.
        executor: where.
    """
    judge_by: JudgeBy = "scan" if pairs > HELD_IN_MEMORY else "memory"
    as_many = 1 << (max(pairs, LEAST_PAIRS).bit_length() - 1)  # a power of two, which ranks can share
    batch = min(BATCH_PAIRS, as_many)
    runs = {
        out: TrainSettings(shards=shards, seed=seed, judge_by=judge_by, batch_size=batch, **YOUNG)
        for out, seed in seeds.items()
    }
    decoded = next(iter(runs)).with_name("young_cache")
    train_all(runs, executor=executor, cache=decoded)
    remove_tree(decoded)  # as large as the shards, and of no more use


def _stages(settings: SanitizeSettings, out: Path, executor: Executor) -> dict[str, Callable[[], Any]]:
    """The stages by name, in their order. The last one gives the tally of all."""
    store = out / "store"

    embed = partial(_embed, settings, out, executor)

    def index() -> None:
        told = IndexSettings(store=store, transform="pca96", seed=settings.seed)
        told = with_what_varies(told, out=out / "index", executor=executor)  # of few pairs, or all alike
        build_index(told, out=out / "index", executor=executor)

    def train() -> None:
        pairs = EmbeddingStore.open(store).rows
        seeds = {out / name: seed for seed, name in enumerate(settings.young, start=settings.seed)}
        train_young(settings.shards, pairs=pairs, seeds=seeds, executor=executor)

    def scan() -> Tally:
        return scan_store(settings.scan_settings(out), out=out / "scan", executor=executor)

    def rewrite() -> Tally:
        told = RewriteSettings(store=store, verdicts=out / "scan")
        return rewrite_shards(told, out=out / "rewrite", executor=executor)

    stages: dict[str, Callable[[], Any]] = {"embed": partial(embed, PLAIN, "store")}
    if textures := settings.scan_settings(out).textures:
        stages["embed textures"] = partial(embed, TEXTURES, textures.name, "image")
    stages["index"] = index
    if settings.young:
        stages[f"train {', '.join(settings.young)}"] = train
    for name in settings.young:
        stages[f"embed by {name}"] = partial(embed, str(model_folder(out / name)), f"{name}_store")
    return {**stages, "scan": scan, "rewrite": rewrite}


def _embed(
    settings: SanitizeSettings,
    out: Path,
    executor: Executor,
    encoder: str,
    name: str,
    towers: Towers = "both",
) -> Tally:
    told = EmbedSettings(shards=settings.shards, encoder=encoder, seed=settings.seed, towers=towers)
    return embed_shards(told, out=out / name, executor=executor)
