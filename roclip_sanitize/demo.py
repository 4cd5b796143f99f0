"""The closed loop: every stage, one after the other, in one run folder.

    poison ─▶ embed ─▶ index ─▶ scan ─▶ rewrite ─▶ pair ─▶ train × 3 ─▶ evaluate ─▶ report

    RUN/corpus/      only where the demo renders its own
    RUN/poison/      shards with attacks planted, and the ledger
    RUN/store/ RUN/textures/ RUN/index/ RUN/scan/ RUN/rewrite/
    RUN/kept_store/ RUN/kept_index_image/ RUN/kept_index_text/ RUN/pairs/
    RUN/arms/NAME/   three trainings
    RUN/evaluate/
    RUN/results.json  curves.json  manifest.json  gallery.json  report.html

Every stage resumes by itself, so a demo that was killed goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roclip_sanitize.encoders import PLAIN, TEXTURES
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.evaluation.results import Result, read_results, write_results
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.machine import Watch, describe_machine, package_versions
from roclip_sanitize.outcome import ARMS, SANITISED, UNDEFENDED, novelty, scan_results, why_void
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.shards import expand_shards
from roclip_sanitize.storage import exists, names_in
from roclip_sanitize.store import Towers
from roclip_sanitize.training.settings import DEFAULT_AUGMENTATION, EPOCHS, TrainSettings

GENERATED_PAIRS = {"train": 7_000, "test": 1_200}
GENERATED_SHARDS = {"train": 4, "test": 1}
GENERATED_LABEL = "object"
PATCH_RATE = 0.01
GENERATED_PATCHES = 160  # literature counts poisons, not shares: 1 % of so few pairs would not take
GENERATED_EPOCHS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What to run the loop on.

    Attributes:
        shards: brace range of training shards; "" renders a corpus first.
        test_shards: brace range of held-out shards.
        label: JSON field that holds a pair's class.
        epochs: passes over the poisoned pairs; every arm trains on so many samples, also the one
            that has fewer pairs left.
        seed: of everything.
        train: further training settings for all arms, by name.
        scan: further scan settings, by name.
    """

    shards: str = ""
    test_shards: str = ""
    label: str = ""
    epochs: int = 0
    seed: int = 0
    train: dict[str, Any] = field(default_factory=dict)
    scan: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("seed", "epochs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 0 or more")
        if not self.shards and (self.test_shards or self.label):
            raise ConfigError("test-shards and label go with --shards: a rendered corpus brings its own")
        if self.shards and not (self.test_shards and self.label):
            raise ConfigError(
                "shards need test-shards (held-out pairs) and label (the JSON field with the class)"
            )


class Demo:
    """One run of the loop."""

    def __init__(self, settings: DemoSettings, *, run: Path, executor: Executor) -> None:
        self._settings, self._run, self._executor = settings, run, executor
        self._stages: list[dict[str, Any]] = []
        self._shards: tuple[Path, ...] = ()
        self.test_shards: tuple[Path, ...] = ()
        self.label = settings.label or GENERATED_LABEL

    def __call__(self) -> list[Result]:
        """Run all stages.

        Returns:
            The records of results.json.

        Raises:
            RoclipError: a stage could not be done; run again to go on from there.
        """
        self.prepare()
        self._measure("train", self._train)
        self._measure("evaluate", self._evaluate)
        results = self._write_results()
        self._measure("report", self._report)
        self._write_manifest(results)
        return results

    def prepare(self) -> None:
        """Everything before training: poison a copy, scan and rewrite it, pair what was kept."""
        self._find_shards()
        stages: dict[str, Callable[[], Tally | None]] = {
            "poison": self._poison,
            "embed": lambda: self._embed(self.poisoned(), "store"),
            "embed textures": lambda: self._embed(self.poisoned(), "textures", TEXTURES, "image"),
            "index": lambda: self._index("store", "index", modality="image", transform="pca96"),
            "scan": self._scan,
            "rewrite": self._rewrite,
            "pair": self._pair,
        }
        for name, stage in stages.items():
            self._measure(name, stage)

    def _measure(self, name: str, stage: Callable[[], Tally | None]) -> None:
        _say(f"{name} …")
        with Watch() as watch:
            tally = stage()
        entry = {
            "name": name,
            "seconds": round(watch.seconds, 2),
            "peak_memory_bytes": watch.peak_memory_bytes,
        }
        if tally is not None:
            entry["tally"] = tally.to_json()
        self._stages.append(self._remembered(name, entry))
        _say(f"{name}: {watch.seconds:.1f} s, peak {watch.peak_memory_bytes / 2**30:.2f} GiB")

    def _remembered(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        """The entry of the run that did the work: a resumed stage takes no time and proves nothing."""
        path = self._run / "timings" / f"{name.replace(' ', '_')}.json"
        if exists(path) and read_json(path)["seconds"] > entry["seconds"]:
            return {**entry, **read_json(path)}
        write_json(path, entry)
        return entry

    def _find_shards(self) -> None:
        settings = self._settings
        if settings.shards:
            self._shards = tuple(expand_shards(settings.shards))
            self.test_shards = tuple(expand_shards(settings.test_shards))
            return
        _say(f"no --shards given: rendering {sum(GENERATED_PAIRS.values()):,} captioned scenes to learn from")
        self._measure("render corpus", self._render)
        corpus = self._run / "corpus"
        self._shards, self.test_shards = (
            tuple(corpus / split / name for name in names_in(corpus / split) if name.endswith(".tar"))
            for split in ("train", "test")
        )

    def _render(self) -> Tally:
        from roclip_sanitize.corpus.render import render_corpus

        return Tally.total(
            render_corpus(
                self._run / "corpus" / split,
                pairs=GENERATED_PAIRS[split],
                shards=GENERATED_SHARDS[split],
                seed=self._settings.seed,
                executor=self._executor,
                split=split,
            )
            for split in ("train", "test")
        )

    def _poison(self) -> Tally:
        from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards

        settings = PoisonSettings(
            shards=self._shards,
            test_shards=self.test_shards,
            label=self.label,
            seed=self._settings.seed,
            attacks=("targeted", f"patch:rate={PATCH_RATE if self._settings.shards else GENERATED_PATCHES}"),
        )
        return poison_shards(settings, out=self._run / "poison", executor=self._executor)

    def poisoned(self) -> tuple[Path, ...]:
        """The shards with attacks in them."""
        from roclip_sanitize.attacks.poison import poisoned_shards

        return tuple(poisoned_shards(self._run / "poison"))

    def kept(self) -> tuple[Path, ...]:
        """The shards that the scan left."""
        from roclip_sanitize.rewrite import kept_shards

        return tuple(kept_shards(self._run / "rewrite"))

    def samples(self, epochs: int = 0) -> int:
        """Pairs that each arm trains on in all: so many passes over the poisoned pairs, 0 for the default."""
        from roclip_sanitize.store import EmbeddingStore

        default = EPOCHS if self._settings.shards else GENERATED_EPOCHS
        return (epochs or default) * EmbeddingStore.open(self._run / "store").rows

    def _embed(
        self, shards: tuple[Path, ...], store: str, encoder: str = PLAIN, towers: Towers = "both"
    ) -> Tally:
        from roclip_sanitize.embed import EmbedSettings, embed_shards

        settings = EmbedSettings(shards=shards, encoder=encoder, seed=self._settings.seed, towers=towers)
        return embed_shards(settings, out=self._run / store, executor=self._executor)

    def _index(self, store: str, index: str, *, modality: str, transform: str = "") -> None:
        from roclip_sanitize.index import IndexSettings, build_index
        from roclip_sanitize.index_tuning import with_what_varies

        settings = IndexSettings(
            store=self._run / store,
            modality=modality,  # type: ignore[arg-type]
            transform=transform,
            seed=self._settings.seed,
        )
        settings = with_what_varies(settings, out=self._run / index, executor=self._executor)
        build_index(settings, out=self._run / index, executor=self._executor)

    def _scan(self) -> Tally:
        from roclip_sanitize.scan.settings import ScanSettings, with_textures
        from roclip_sanitize.scan.stage import scan_store

        told = with_textures(self._settings.scan, self._run / "textures")
        settings = ScanSettings(store=self._run / "store", index=self._run / "index", **told)
        return scan_store(settings, out=self._run / "scan", executor=self._executor)

    def _rewrite(self) -> Tally:
        from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards

        settings = RewriteSettings(store=self._run / "store", verdicts=self._run / "scan")
        return rewrite_shards(settings, out=self._run / "rewrite", executor=self._executor)

    def _pair(self) -> Tally:
        from roclip_sanitize.pairing import PairSettings, pair_store

        self._embed(self.kept(), "kept_store")
        self._index("kept_store", "kept_index_image", modality="image", transform="pca96")
        self._index("kept_store", "kept_index_text", modality="text")
        settings = PairSettings(
            store=self._run / "kept_store",
            index_text=self._run / "kept_index_text",
            index_image=self._run / "kept_index_image",
            method="first",
        )
        return pair_store(settings, out=self._run / "pairs", executor=self._executor)

    def _train(self) -> None:
        from roclip_sanitize.training.train import train_all

        runs = {self._run / "arms" / arm: self._train_settings(arm) for arm in ARMS}
        train_all(runs, executor=self._executor, cache=self._run / "cache", progress=sys.stderr)

    def _train_settings(self, arm: str) -> TrainSettings:
        told: dict[str, Any] = {
            "shards": self.kept() if arm == SANITISED else self.poisoned(),
            "method": "consensus" if arm == SANITISED else "clip",
            "augmentation": "none" if arm == UNDEFENDED else DEFAULT_AUGMENTATION,
            "seed": self._settings.seed,
            **self._settings.train,
        }
        told.setdefault("samples", self.samples(self._settings.epochs))
        return TrainSettings(**told)

    def _evaluate(self) -> None:
        from roclip_sanitize.evaluation.evaluate import evaluate_arms
        from roclip_sanitize.evaluation.settings import EvaluateSettings

        settings = EvaluateSettings(
            arms={arm: self._run / "arms" / arm for arm in ARMS},
            test_shards=self.test_shards,
            label=self.label,
            ledger=self._run / "poison",
            store=self._run / "store",  # to say how new the test pictures are
            seed=self._settings.seed,
        )
        evaluate_arms(settings, out=self._run / "evaluate", executor=self._executor)

    def _write_results(self) -> list[Result]:
        trained = read_results(self._run / "evaluate" / "results.json")
        results = trained + scan_results(self._run, seed=self._settings.seed)
        write_results(self._run / "results.json", results)
        write_json(self._run / "curves.json", read_json(self._run / "evaluate" / "curves.json"))
        self._write_manifest(results)
        return results

    def _write_manifest(self, results: list[Result]) -> None:
        settings = self._settings
        write_json(
            self._run / "manifest.json",
            {
                "title": "RoCLIP sanitisation run",
                "corpus": settings.shards or "rendered scenes",
                "command": " ".join(["roclip", *sys.argv[1:]]),
                "machine": describe_machine(),
                "versions": package_versions(),
                "seeds": {"run": settings.seed},
                "settings": {"epochs": settings.epochs, "train": settings.train, "scan": settings.scan},
                "executor": {"name": self._executor.name, "workers": self._executor.size},
                "test_set": novelty(self._run),
                "stages": self._stages,
                "void": why_void(results),
            },
        )

    def _report(self) -> None:
        from roclip_sanitize.report import collect_gallery, write_gallery, write_report

        items = collect_gallery(self._run / "scan", list(self.poisoned()), ledger=self._run / "poison")
        write_gallery(self._run, items)
        write_report(self._run)


def _say(line: str) -> None:
    print(f"demo: {line}", file=sys.stderr, flush=True)  # noqa: T201
