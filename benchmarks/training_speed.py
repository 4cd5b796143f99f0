"""How quickly steps are made: ours, open_clip's own trainer's, and RoCLIP's matching ones.

    python -m benchmarks.training_speed [--shards 'data/{00000..00002}.tar'] [--quick]

    clip        `roclip train --method clip`: cache, augmentation none, both towers, AdamW
    open_clip   open_clip_train.train.train_one_epoch on the same model, pairs and batch size, as its main()
                sets it up on one device: pictures in files, a worker process that loads them, AdamW (its
                WebDataset loader does not run with webdataset after 0.2.86)
    roclip      every step a matching one, final version, against a pool of 2 % of the pairs

All in one process, in turns; what counts is the median over rounds, and ratios of it. Ours reads decoded
pictures from its cache, which is made once; what that takes is told beside, and over how many epochs it
pays for itself. open_clip decodes each picture in each epoch; its own resizing for evaluation is
used, which is cheaper than that for training.

The default corpus is $ROCLIP_DATA/fashion/train/00000.tar (../shared/data where that is not set).
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims import Claim, report
from roclip_sanitize.encoder import image_side, new_clip, own_transform, tokenizer_for
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.shards import Shard, expand_shards, shard_tasks
from roclip_sanitize.training.data import build_cache, cache_tally
from roclip_sanitize.training.loop import Member, Trainer
from roclip_sanitize.training.settings import TrainSettings

DATA = Path(os.environ.get("ROCLIP_DATA", "../shared/data")) / "fashion" / "train" / "00000.tar"
POOL_SHARE = 0.02
MOST_SLOWER = 1.05  # of roclip against clip, by time
WARM_STEPS = 5


def main() -> None:
    """Measure, and print what came of it."""
    told = _arguments()
    shards = tuple(expand_shards(told.shards))
    with tempfile.TemporaryDirectory() as folder:
        sides, making = _sides(shards, told, Path(folder))
        rates = {name: list[float]() for name in sides}
        for _ in range(told.rounds):
            for name, make_steps in sides.items():
                rates[name].append(told.steps * told.batch_size / make_steps())
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<10} {middle[name]:>8,.0f} pairs/s   {min(values):,.0f} to {max(values):,.0f}")
    gained = 1 / middle["open_clip"] - 1 / middle["clip"]
    pays = f"pays after {making / gained:.1f} epochs" if gained > 0 else "never pays"
    print(f"the cache took {1 / making:,.0f} pairs/s to make: {pays}")
    report("training_speed", _claims(middle))


def _sides(
    shards: Sequence[Path], told: argparse.Namespace, folder: Path
) -> tuple[dict[str, Callable[[], float]], float]:
    """Name → makes steps and returns the seconds that they took; and seconds per pair of the cache."""
    started = time.perf_counter()
    side = image_side(told.model)
    cache = build_cache(
        shards, model=told.model, side=side, fit="squash", root=folder, executor=LocalExecutor()
    )
    pairs = cache_tally(cache).kept
    making = (time.perf_counter() - started) / pairs
    common: dict[str, Any] = {
        "shards": tuple(shards),
        "model": told.model,
        "batch_size": told.batch_size,
        "augmentation": "none",
        "samples": 10**9,
    }
    everywhere: dict[str, Any] = {"match_from": 0.0, "match_every": 10**9, "match_for": 10**9}
    pool = max(told.batch_size, round(POOL_SHARE * pairs))
    ours = {
        "clip": TrainSettings(method="clip", **common),
        "roclip": TrainSettings(method="roclip", pool_size=pool, **everywhere, **common),
    }
    sides: dict[str, Callable[[], float]] = {
        name: _ours(settings, cache, folder / name, steps=told.steps) for name, settings in ours.items()
    }
    sides["open_clip"] = _theirs(shards, told, folder / "open_clip")
    return sides, making


def _ours(settings: TrainSettings, cache: Path, out: Path, *, steps: int) -> Callable[[], float]:
    trainer = Trainer(Member(settings=settings, cache=cache, out=out, fit="squash"), rank=0, size=1)
    for _ in range(WARM_STEPS):
        trainer.step()

    def make_steps() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        return time.perf_counter() - started

    return make_steps


def _theirs(shards: Sequence[Path], told: argparse.Namespace, folder: Path) -> Callable[[], float]:
    """open_clip's trainer, called as its main() calls it; the loader's start-up is not counted."""
    from open_clip_train import data, distributed, main, params, train

    logging.disable(logging.INFO)
    table = _unpacked(shards, folder, pairs=told.steps * told.batch_size)
    args = params.parse_args(
        [
            *("--train-data", str(table), "--dataset-type", "csv"),
            *("--csv-img-key", "image", "--csv-caption-key", "caption"),
            *("--model", told.model, "--batch-size", str(told.batch_size), "--workers", "1"),
            *("--precision", "fp32", "--device", "cuda" if torch.cuda.is_available() else "cpu"),
            *("--log-every-n-steps", "1000000", "--skip-scheduler"),
        ]
    )
    distributed.init_distributed_device(args)
    args.distill = args.wandb = args.save_logs = False
    model = new_clip(told.model, seed=0).to(args.device)
    loss = main.create_loss(args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)
    preprocess, tokenize = own_transform(image_side(told.model)), tokenizer_for(told.model)
    model.output_dict = True
    clocked = _Clocked(data.get_csv_dataset(args, preprocess, is_train=True, tokenizer=tokenize))

    def make_steps() -> float:
        train.train_one_epoch(model, {"train": clocked}, loss, 0, optimizer, None, None, None, args)
        return clocked.seconds()

    return make_steps


def _unpacked(shards: Sequence[Path], folder: Path, *, pairs: int) -> Path:
    """Pictures as files, and the table of them that open_clip's trainer reads."""
    folder.mkdir()
    lines = ["image\tcaption"]
    for task in shard_tasks(shards):
        with Shard(task.path) as shard:
            for pair in islice(shard.pairs(), pairs + 1 - len(lines)):
                path = folder / f"{pair.uid}.jpg"
                path.write_bytes(pair.image)
                lines.append(f"{path}\t{' '.join(pair.caption.replace(chr(34), ' ').split())}")
    table = folder / "pairs.tsv"
    table.write_text("\n".join(lines) + "\n", "utf-8")
    return table


class _Clocked:
    """A loader of open_clip's whose clock starts with its second batch, so that its workers are up."""

    def __init__(self, loaded: Any) -> None:
        self._loaded, self.dataloader = loaded, self
        self.num_batches, self.num_samples = loaded.dataloader.num_batches, loaded.dataloader.num_samples
        self._first, self._seen = 0.0, 0.0

    def set_epoch(self, epoch: int) -> None:
        """Of one device, whose order no sampler sets."""

    def __iter__(self) -> Any:
        for number, batch in enumerate(self._loaded.dataloader):
            if number == 1:
                self._first = time.perf_counter()
            yield batch
        self._seen = time.perf_counter()

    def seconds(self) -> float:
        """Of all steps, as the ones after the first took them."""
        whole: float = (self._seen - self._first) * self.num_batches / (self.num_batches - 1)
        return whole


def _claims(rate: dict[str, float]) -> list[Claim]:
    ours, slower = rate["clip"] / rate["open_clip"], rate["clip"] / rate["roclip"]
    return [
        Claim(name="clip of open_clip's trainer, pairs/s", value=ours, target=">= 1", holds=ours >= 1),
        Claim(
            name="time of a roclip step, of a clip step",
            value=slower,
            target=f"<= {MOST_SLOWER}",
            holds=slower <= MOST_SLOWER,
        ),
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", default=str(DATA))
    parser.add_argument("--model", default="roclip-rn-64")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    if told.quick:
        told.steps, told.rounds = 30, 3
    return told


if __name__ == "__main__":
    main()
