"""How many pairs a second one GPU trains on: the product's own steps, its pairs lying on the device.

    python -m benchmarks.gpu_training [--most-seconds 75] [--quick]

    clip            method clip, augmentation none, bfloat16
    roclip          every step a matching one, final version, against a pool of 32 batches at most
    clip paper      clip with the RoCLIP paper's augmentation
    clip compiled   clip with --compile, which takes most of a minute to begin
    clip files      clip, its pairs read from the cache's files at each step; only where --variants names it

All in one process, in turns, one Trainer each; a round is a few steps after which the GPU is waited for, and
what counts is the median over rounds. Compiled steps come last, since they may not come in time: then they
take turns with clip alone. Beside each rate stands how often a step makes the host wait for the GPU, as
torch's own detector sees it, and where. What fails says why, and the others go on; at the end of its
time the benchmark ends with what it has.

Pictures are noise and captions random tokens: the speed of training does not depend on what they show, but
the speed of reading and decoding, which is not measured here, would.

--quick is for trying it out: a small model on 32 pairs, without compiling, on whatever there is.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claims import Claim, report
from roclip_sanitize.encoder import image_side, tokenizer_for
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.training.data import write_rows
from roclip_sanitize.training.loop import Member, Trainer
from roclip_sanitize.training.settings import TrainSettings

NEEDED = 3_000  # pairs/s of clip, on an H100
MOST_SLOWER = 1.05  # of roclip against clip, by time
WARM_STEPS = 3
FIRST_TOKEN, END_TOKEN = 49_406, 49_407  # of CLIP's tokenizer
PLANNED, NEVER_ENDS = 10**6, 10**9  # pairs: of the training that these are the first steps of
EVERYWHERE: dict[str, Any] = {"match_from": 0.0, "match_every": NEVER_ENDS, "match_for": NEVER_ENDS}
CLIP, ROCLIP, COMPILED, FILES = "clip", "roclip", "clip compiled", "clip files"
VARIANTS: dict[str, dict[str, Any]] = {
    CLIP: {"method": "clip"},
    ROCLIP: {"method": "roclip", **EVERYWHERE},
    "clip paper": {"method": "clip", "augmentation": "paper"},
    COMPILED: {"method": "clip", "compile": True},
    FILES: {"method": "clip", "resident": "never"},
}

Rates = dict[str, list[float]]


def main() -> None:
    """Measure, and print what came of it."""
    told = _arguments()
    rates: Rates = {}
    timer = _end_in_time(told, rates)
    _say(f"{_device_name()}, torch {torch.__version__}, {told.model}, batch {told.batch_size}, bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        cache = _noise_cache(Path(folder) / "cache", told)
        _measure(told, cache, Path(folder), rates)
    timer.cancel()
    _conclude(told, rates)


def _measure(told: argparse.Namespace, cache: Path, folder: Path, rates: Rates) -> None:
    plain = [name for name in told.variants if not VARIANTS[name].get("compile")]
    trainers = _opened(plain, told, cache, folder)
    _take_turns(trainers, told, rates)
    for name in [name for name in told.variants if name not in plain]:
        beside = _opened([name], told, cache, folder)
        if beside:
            again = {each: trainer for each, trainer in trainers.items() if each == CLIP}
            _take_turns({**again, **beside}, told, rates)


def _opened(names: Sequence[str], told: argparse.Namespace, cache: Path, folder: Path) -> dict[str, Trainer]:
    """Trainers that have made their first steps; those that cannot say why."""
    trainers = {}
    for name in names:
        _forget()
        try:
            trainers[name], facts = _warmed_up(name, told, cache, folder)
        except Exception as error:  # noqa: BLE001  # whatever it is: the others are measured all the same
            reason = next(iter(str(error).splitlines()), "")
            facts = f"cannot be measured: {type(error).__name__}: {reason}"
        _say(f"{name:<14} {facts}")
    return trainers


def _warmed_up(name: str, told: argparse.Namespace, cache: Path, folder: Path) -> tuple[Trainer, str]:
    """A trainer after its first steps, and what is to be said of them."""
    started = time.perf_counter()
    trainer = _trainer(name, told, cache, folder)
    for _ in range(WARM_STEPS):
        loss = trainer.step().loss
    _wait()
    seconds = time.perf_counter() - started
    return (
        trainer,
        f"ready after {seconds:.1f} s, loss {loss:.3f}, {_peak()}, waits a step: {_waits(trainer)}",
    )


def _trainer(name: str, told: argparse.Namespace, cache: Path, folder: Path) -> Trainer:
    known: dict[str, Any] = {
        "shards": (),
        "model": told.model,
        "batch_size": told.batch_size,
        "precision": "bfloat16",
        "augmentation": "none",
        "samples": PLANNED,
        "resident": "always",
    }
    settings = TrainSettings(**{**known, **VARIANTS[name]})
    return Trainer(Member(settings=settings, cache=cache, out=folder / name, fit="crop"), rank=0, size=1)


def _take_turns(trainers: Mapping[str, Trainer], told: argparse.Namespace, rates: Rates) -> None:
    for number in range(told.rounds if trainers else 0):
        for name, trainer in trainers.items():
            started = time.perf_counter()
            for _ in range(told.steps):
                trainer.step()
            _wait()
            rate = told.steps * told.batch_size / (time.perf_counter() - started)
            rates.setdefault(name, []).append(rate)
        newest = ", ".join(f"{name} {rates[name][-1]:,.0f}" for name in trainers)
        _say(f"round {number + 1}: {newest} pairs/s")


def _waits(trainer: Trainer) -> str:
    """How often the host waits for the GPU in a step, and on which lines.

    The loss is not among them: what it waits for is an event in the middle of the step's work.
    """
    if not torch.cuda.is_available():
        return "no GPU"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{Path(each.filename).name}:{each.lineno}"
        for each in caught
        if "synchroniz" in str(each.message).lower()
    )
    shown = ", ".join(f"{count} at {place}" for place, count in places.most_common(4))
    return f"{places.total()} ({shown})" if places else "0"


def _noise_cache(path: Path, told: argparse.Namespace) -> Path:
    """Noise in the layout of a decoded cache."""
    side, pairs, rng = image_side(told.model), told.pairs, np.random.default_rng(0)
    context = tokenizer_for(told.model)(["a"]).shape[1]
    folder = StageFolder.create(path, stage="cache", settings={"of": "noise"})
    pixels = np.frombuffer(rng.bytes(pairs * side * side * 3), np.uint8)
    token_NL = rng.integers(1, FIRST_TOKEN, (pairs, context), dtype=np.int32)
    length_N = rng.integers(5, context, pairs)  # words and the two tokens around them
    token_NL[:, 0] = FIRST_TOKEN
    token_NL[np.arange(pairs), length_N] = END_TOKEN
    token_NL[np.arange(context) > length_N[:, None]] = 0
    files = write_rows(
        path,
        "00000",
        uids=[f"{number:032x}" for number in range(pairs)],
        image_NSS3=pixels.reshape(pairs, side, side, 3),
        token_NL=token_NL,
    )
    folder.commit("00000", files=files, facts={"rows": pairs})
    folder.finish({})
    _say(f"{pairs:,} pairs of noise, {side} pixels a side, written")
    return path


def _end_in_time(told: argparse.Namespace, rates: Rates) -> threading.Timer:
    """Conclude with what there is when time is up: a compiler cannot be asked to stop."""

    def conclude() -> None:
        _say(f"{told.most_seconds:g} seconds are over; what is missing was not measured")
        _conclude(told, {name: list(measured) for name, measured in rates.items()})
        os._exit(0)

    timer = threading.Timer(told.most_seconds, conclude)
    timer.daemon = True
    timer.start()
    return timer


def _conclude(told: argparse.Namespace, rates: Rates) -> None:
    _say(f"\n{'':<14}{'pairs/s':>9}{'least':>9}{'most':>9}{'ms a step':>11}{'rounds':>8}")
    middle = {name: statistics.median(measured) for name, measured in rates.items()}
    for name, measured in rates.items():
        step = 1_000 * told.batch_size / middle[name]
        _say(
            f"{name:<14}{middle[name]:>9,.0f}{min(measured):>9,.0f}{max(measured):>9,.0f}"
            f"{step:>11.1f}{len(measured):>8}"
        )
    claims = []
    if CLIP in middle:
        best = max(rate for name, rate in middle.items() if name in (CLIP, COMPILED))
        claims.append(_at_least("clip, the quicker way, pairs/s", best))
        claims.append(_at_least("clip, not compiled, pairs/s", middle[CLIP]))
    if CLIP in middle and ROCLIP in middle:
        slower = middle[CLIP] / middle[ROCLIP]
        claims.append(
            Claim(
                name="time of a roclip step, of a clip step",
                value=slower,
                target=f"<= {MOST_SLOWER}",
                holds=slower <= MOST_SLOWER,
            )
        )
    if claims:
        report("gpu_training", claims)
    sys.stdout.flush()


def _at_least(name: str, value: float) -> Claim:
    return Claim(name=name, value=value, target=f">= {NEEDED}", holds=value >= NEEDED)


def _say(line: str) -> None:
    print(line, flush=True)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forget() -> None:
    """Give back what a trainer that failed, for want of memory maybe, has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> str:
    if not torch.cuda.is_available():
        return "no GPU"
    return f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=4_096)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="by default all but the last")
    parser.add_argument("--most-seconds", type=float, default=75.0, help="from when imports are done")
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    if told.quick:
        told.model, told.batch_size, told.pairs, told.steps, told.rounds = "roclip-rn-64", 8, 32, 2, 3
    told.variants = told.variants or [
        name for name in VARIANTS if name != FILES and not (told.quick and name == COMPILED)
    ]
    return told


if __name__ == "__main__":
    main()
