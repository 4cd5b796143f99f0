"""What each part of the defence contributes: the same poisoned shards, trained in seven ways.

    python -m benchmarks.robustness --shards 'data/{00000..00002}.tar' --test-shards … --label …

    undefended          plain CLIP on all pairs
    augmentation        plain CLIP with augmentation on all pairs
    roclip_first        RoCLIP, first version's pairing, same augmentation, all pairs
    roclip_final        RoCLIP, final version's pairing, same augmentation, all pairs
    scan                plain CLIP on the pairs that the scan kept
    scan_augmentation   the same with augmentation
    all                 RoCLIP (final) with augmentation on the pairs that the scan kept

One training says little about a difference of two points, so --trainings repeats every arm with
other weights, order and augmentation on the same poisons; the table then shows means, and claims
are judged by them. Resumes by itself in --run, also that of a demo, whose shards it then shares.
Without --shards it renders the demo's corpus. --quick trains each arm for one epoch, so that its
attacks need not take.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, report
from roclip_sanitize import demo
from roclip_sanitize.evaluation.evaluate import evaluate_arms
from roclip_sanitize.evaluation.results import Result, find
from roclip_sanitize.evaluation.seeds import Merged, merge
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.train import train_all

ARMS: dict[str, tuple[bool, dict[str, Any]]] = {  # name → (only what the scan kept, settings)
    "undefended": (False, {"method": "clip", "augmentation": "none"}),
    "augmentation": (False, {"method": "clip"}),
    "roclip_first": (False, {"method": "roclip", "pairing": "first"}),
    "roclip_final": (False, {"method": "roclip", "pairing": "final"}),
    "scan": (True, {"method": "clip", "augmentation": "none"}),
    "scan_augmentation": (True, {"method": "clip"}),
    "all": (True, {"method": "roclip", "pairing": "final"}),
}
COLUMNS = (
    (None, "zero_shot_top1", "zero-shot"),
    (None, "retrieval_r1", "R@1"),
    ("targeted", "attack_success", "targeted"),
    ("patch", "attack_success", "patch"),
    ("patch", "clean_target_rate", "clean rate"),
    ("patch", "true_class_accuracy", "true class"),
)


def main() -> None:
    """Measure all arms and print the table."""
    told = _arguments()
    executor = open_executor(told.executor)
    settings = demo.DemoSettings(
        shards=told.shards, test_shards=told.test_shards, label=told.label, seed=told.seed
    )
    loop = demo.Demo(settings, run=told.run, executor=executor)
    loop.prepare()
    seeds = range(told.seed, told.seed + told.trainings)
    results = measure(loop, told.run, executor, epochs=told.epochs, seeds=seeds)
    table = Table(results, seeds)
    table.show()
    report("robustness", _claims(table))


def measure(
    loop: demo.Demo, run: Path, executor: Executor, *, epochs: int, seeds: Sequence[int]
) -> list[Result]:
    """Train and evaluate all arms, once per seed, on a prepared run folder."""
    folders = {training(arm, seed): run / "ablation" / training(arm, seed) for seed in seeds for arm in ARMS}
    runs = {
        folders[training(arm, seed)]: TrainSettings(
            shards=loop.kept() if only_kept else loop.poisoned(),
            samples=loop.samples(epochs),
            seed=seed,
            **told,
        )
        for seed in seeds
        for arm, (only_kept, told) in ARMS.items()
    }
    train_all(runs, executor=executor, cache=run / "cache")
    evaluation = EvaluateSettings(
        arms=folders,
        test_shards=loop.test_shards,
        label=loop.label,
        ledger=run / "poison",
        curves=False,
        seed=seeds[0],  # of the trigger's places; the same for all
    )
    name = f"evaluate_{seeds[0]}_{len(seeds)}"
    return evaluate_arms(evaluation, out=run / "ablation" / name, executor=executor)


def training(arm: str, seed: int) -> str:
    """Name of one training of an arm."""
    return f"{arm}_{seed}"


class Table:
    """Results by arm, over all its trainings."""

    def __init__(self, results: list[Result], seeds: Sequence[int]) -> None:
        self._results, self._seeds = results, seeds

    def merged(self, arm: str, attack: str | None, metric: str) -> Merged:
        """All trainings of an arm together."""
        found = [
            find(self._results, arm=training(arm, seed), attack=attack, metric=metric) for seed in self._seeds
        ]
        return merge([result for result in found if result])

    def mean(self, arm: str, attack: str | None, metric: str) -> float:
        """The mean over an arm's trainings."""
        return self.merged(arm, attack, metric).mean

    def show(self) -> None:
        """Print a row per arm, and below it the range where there are several trainings."""
        print(f"{'':18}" + "".join(f"{title:>15}" for _, _, title in COLUMNS))
        for arm in ARMS:
            cells = [self.merged(arm, attack, metric) for attack, metric, _ in COLUMNS]
            print(f"{arm:18}" + "".join(f"{cell.mean:>15.1%}" for cell in cells))
            if len(self._seeds) > 1:
                ranges = [f"{cell.lowest:.1%}–{cell.highest:.1%}" for cell in cells]
                print(f"{'':18}" + "".join(f"{text:>15}" for text in ranges))


def _claims(table: Table) -> list[Claim]:
    claims = []
    for attack, most in (("targeted", 0.0), ("patch", 0.05)):
        plain = table.mean("undefended", attack, "attack_success")
        best = table.mean("all", attack, "attack_success")
        claims += [
            Claim(name=f"{attack}, undefended", value=plain, target=">= 0.8", holds=plain >= 0.8),
            Claim(name=f"{attack}, all parts", value=best, target=f"<= {most}", holds=best <= most),
        ]
    useful = [table.mean(arm, None, "zero_shot_top1") for arm in ("undefended", "all")]
    lost = useful[0] - useful[1]
    return [*claims, Claim(name="zero-shot lost", value=lost, target="<= 0.03", holds=lost <= 0.03)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/robustness"))
    parser.add_argument("--shards", default="")
    parser.add_argument("--test-shards", default="")
    parser.add_argument("--label", default="")
    parser.add_argument("--epochs", type=int, default=0, help="passes; 0 for the demo's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainings", type=int, default=1, help="of each arm, with seeds of their own")
    parser.add_argument("--executor", default="ray")
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    if told.trainings < 1:
        parser.error(f"--trainings is {told.trainings}, wanted 1 or more")
    if told.quick:
        told.epochs = 1
    return told


if __name__ == "__main__":
    main()
