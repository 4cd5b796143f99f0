"""``roclip embed`` against ``clip-retrieval inference``: the same shards, the same weights, the same layout.

    python -m benchmarks.clip_retrieval [--environment DIR] [--rounds 3] [--quick]

    full-size pictures   ViT-S-32-alt, pictures alone, pictures as large as the web has them: decoding bounds.
                         Ours twice: with open_clip's own pixels, and with --decode fast
    small pictures       ViT-B-32, both towers, thumbnails: the model bounds

Both are commands of their own, with all cores: clip-retrieval's sequential distributor with a reading process
for each core, ours with --executor local. They take turns, there and back. What counts is the median, over
rounds, of the ratio of their rates, by each one's own record from its first batch to its last. Start-up takes
either of them seconds and is left out; the whole command's seconds are printed beside. Weights are random,
from one file. Vectors must agree, pair by pair.

clip-retrieval gets an environment of its own (by default runs/clip-retrieval; several GB), made on the first
run and kept. Pictures are those of $ROCLIP_DATA/samples/cc12m_32.tar, repeated, and of
$ROCLIP_DATA/fashion/test/00000.tar (../shared/data where that is not set); noise where they are missing.
--quick takes one round of few pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from roclip_sanitize.embed import own_cores
from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import EmbeddingStore

DATA = Path(os.environ.get("ROCLIP_DATA", "../shared/data"))
# clip-anytorch, which it requires, imports pkg_resources, and newer setuptools have none.
PACKAGES = ("clip-retrieval==2.45.0", "setuptools<81")
QUIET = {"WANDB_MODE": "disabled", "NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1"}
SHARDS_A_CORE = 2  # each of its reading processes needs a shard of its own, and ours begins one ahead

Way = Literal["theirs", "exact", "fast"]
Vectors = dict[str, NDArray[np.float32]]  # by key, unit rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What both are given.

    Attributes:
        name: of the case.
        model: an open_clip model.
        towers: "both", or only "image".
        pictures: a shard, whose pairs are repeated as often as it takes.
        pairs: how many in all.
        batch_size: encoded at once.
        needed: for each of our ways, how many times their rate.
    """

    name: str
    model: str
    towers: Literal["both", "image"]
    pictures: Path
    pairs: int
    batch_size: int
    needed: dict[Way, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command's result.

    Attributes:
        rate: pairs per second, by its own record.
        seconds: of the whole command, start-up included.
        vectors: of the pictures.
    """

    rate: float
    seconds: float
    vectors: Vectors


def main() -> None:
    """Measure and print."""
    told = _arguments()
    command = install(told.environment)
    claims = list[Claim]()
    for case in cases(quick=told.quick):
        with tempfile.TemporaryDirectory(prefix="roclip-against-") as folder:
            rounds = list(measure(case, command, Path(folder), rounds=1 if told.quick else told.rounds))
        _show(case, rounds)
        claims += _claims(case, rounds)
    report("clip_retrieval", claims)


def cases(*, quick: bool) -> Iterator[Case]:
    """Where decoding bounds, and where the model does."""
    yield Case(
        name="full-size pictures",
        model="ViT-S-32-alt",
        towers="image",
        pictures=DATA / "samples" / "cc12m_32.tar",
        pairs=64 if quick else 768,
        batch_size=32,
        needed={"exact": 1.5, "fast": 1.5},
    )
    yield Case(
        name="small pictures",
        model="ViT-B-32",
        towers="both",
        pictures=DATA / "fashion" / "test" / "00000.tar",
        pairs=64 if quick else 512,
        batch_size=32,
        needed={"exact": 1.1},
    )


def install(environment: Path) -> Path:
    """clip-retrieval's command in an environment of its own, made if need be.

    Raises:
        SystemExit: it cannot be installed; the installer has said why.
    """
    python, command = environment / "bin" / "python", environment / "bin" / "clip-retrieval"
    if command.exists():
        return command
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if not uv:
        raise SystemExit("benchmarks.clip_retrieval needs uv to make an environment: pip install uv")
    print(f"installing {PACKAGES[0]} into {environment}")
    for step in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *PACKAGES],
    ):
        if subprocess.run(step, check=False).returncode:
            raise SystemExit(f"clip-retrieval could not be installed: {' '.join(step[:3])} failed")
    return command


def measure(case: Case, command: Path, folder: Path, *, rounds: int) -> Iterator[dict[Way, list[Run]]]:
    """All ways once there and once back, in each round."""
    shards, weights = _write_shards(case, folder / "shards"), _write_weights(case, folder)
    spec = f"open_clip:{case.model}/{weights}"
    ways: tuple[Way, ...] = ("theirs", *case.needed)
    for number in range(rounds):
        runs: dict[Way, list[Run]] = {way: [] for way in ways}
        for turn, way in enumerate((*ways, *reversed(ways))):
            out = folder / f"{number}-{turn}"
            done = (
                theirs(case, command, shards, spec, out)
                if way == "theirs"
                else ours(case, way, shards, spec, out)
            )
            runs[way].append(done)
            shutil.rmtree(out)
        yield runs


def theirs(case: Case, command: Path, shards: Sequence[Path], spec: str, out: Path) -> Run:
    """One run of clip-retrieval, all in one partition."""
    first, last = shards[0].stem, shards[-1].stem
    options = {
        "input_dataset": f"{shards[0].parent}/{{{first}..{last}}}.tar",
        "output_folder": out,
        "input_format": "webdataset",
        "clip_model": spec,
        "batch_size": case.batch_size,
        "num_prepro_workers": own_cores(),
        "enable_text": case.towers == "both",
        "wds_number_file_per_input_file": -(-case.pairs // len(shards)),
        "output_partition_count": 1,
    }
    told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    seconds = _run([str(command), "inference", *told], out)
    record = json.loads((out / "stats" / "0.json").read_text())
    return Run(
        rate=record["sample_count"] / record["total_duration"],
        seconds=seconds,
        vectors=_vectors(
            _only(out, "metadata", "*.parquet"), "image_path", np.load(_only(out, "img_emb", "*.npy"))
        ),
    )


def ours(case: Case, way: Way, shards: Sequence[Path], spec: str, out: Path) -> Run:
    """One run of ``roclip embed`` in one process."""
    options = {
        "shards": f"{shards[0].parent}/{{{shards[0].stem}..{shards[-1].stem}}}.tar",
        "out": out,
        "encoder": spec,
        "batch-size": case.batch_size,
        "towers": case.towers,
        "decode": way,
        "executor": "local",
    }
    told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    seconds = _run([sys.executable, "-c", "from roclip_sanitize.cli import run; run()", "embed", *told], out)
    from roclip_sanitize.embed import embed_limits

    store = EmbeddingStore.open(out)
    vectors = Vectors()
    for part in store.parts:
        vectors |= _vectors(
            out / "metadata" / f"metadata_{part.name}.parquet", "key", store.vectors(part.name, "image")
        )
    return Run(rate=embed_limits(out).reached, seconds=seconds, vectors=vectors)


def agreement(one: Vectors, other: Vectors) -> tuple[float, float]:
    """Least and mean cosine of the same pairs' vectors; the least is -1 where a pair is missing."""
    if one.keys() != other.keys():
        return -1.0, -1.0
    cosines = [float(one[key] @ other[key]) for key in one]
    return min(cosines), statistics.mean(cosines)


def _run(command: Sequence[str], out: Path) -> float:
    """Seconds that a command took; what it prints is shown only if it fails."""
    out.mkdir()
    started = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, **QUIET},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{Path(command[0]).name} failed with exit code {done.returncode}")
    return seconds


def _vectors(names: Path, column: str, vectors_ND: NDArray[Any]) -> Vectors:
    import polars

    keys = polars.read_parquet(names, columns=[column])[column].to_list()
    rows_ND = vectors_ND.astype(np.float32)
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return dict(zip(keys, rows_ND, strict=True))


def _only(out: Path, folder: str, pattern: str) -> Path:
    (path,) = (out / folder).glob(pattern)
    return path


def _write_weights(case: Case, folder: Path) -> Path:
    """Random weights in a file that both can load."""
    from roclip_sanitize.encoder import new_clip, save_clip
    from roclip_sanitize.encoder_facts import WEIGHTS_FILE

    save_clip(folder / "model", new_clip(case.model, seed=0), name=case.model, fit="crop")
    return folder / "model" / WEIGHTS_FILE


def _write_shards(case: Case, folder: Path) -> list[Path]:
    """The case's pairs in shards of equal size, keys and uids their own."""
    count = SHARDS_A_CORE * own_cores()
    paths = [folder / f"{number:05d}.tar" for number in range(count)]
    pairs, number = cycle(_pairs(case.pictures)), 0
    folder.mkdir()
    for path in paths:
        with ShardWriter(path) as writer:
            for image, caption in islice(pairs, case.pairs // count):
                writer.add(f"{number:09d}", image=image, caption=caption, fields={"uid": f"{number:032x}"})
                number += 1
    return paths


def _pairs(shard: Path) -> list[tuple[bytes, str]]:
    if shard.exists():
        with Shard(shard) as opened:
            return [(pair.image, pair.caption) for pair in opened.pairs()]
    print(f"{shard} is not there: measuring on noise blown up")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 24, 32, 3)).astype(np.uint8)
    blocks = np.ones((20, 20, 1), np.uint8)
    return [(encode_jpeg(np.kron(pixels, blocks)), f"picture {n}") for n, pixels in enumerate(noise)]


def _show(case: Case, rounds: Sequence[dict[Way, list[Run]]]) -> None:
    print(
        f"\n{case.name}: {case.model}, {case.towers}, {case.pairs:,} pairs, batches of {case.batch_size}, "
        f"{own_cores()} cores"
    )
    print(f"{'round':>6}{'':>10}{'pairs/s':>10}{'whole command, s':>18}{'times theirs':>14}")
    for number, runs in enumerate(rounds, start=1):
        for way, done in runs.items():
            seconds = statistics.mean(run.seconds for run in done)
            print(
                f"{number:>6}{way:>10}{_rate(done):>10.1f}{seconds:>18.1f}"
                f"{_rate(done) / _rate(runs['theirs']):>14.2f}"
            )


def _claims(case: Case, rounds: Sequence[dict[Way, list[Run]]]) -> Iterator[Claim]:
    for way, needed in case.needed.items():
        times = statistics.median(_rate(runs[way]) / _rate(runs["theirs"]) for runs in rounds)
        least, mean = agreement(rounds[0][way][0].vectors, rounds[0]["theirs"][0].vectors)
        name = f"{case.name}, {way}"
        yield Claim(
            name=f"{name}: times clip-retrieval", value=times, target=f">= {needed:g}", holds=times >= needed
        )
        if way == "exact":
            yield Claim(name=f"{name}: least cosine", value=least, target=">= 0.9999", holds=least >= 0.9999)
        else:
            yield Claim(name=f"{name}: mean cosine", value=mean, target=">= 0.999", holds=mean >= 0.999)


def _rate(runs: Sequence[Run]) -> float:
    """Harmonic mean: pairs over seconds, as if both had been one run."""
    return statistics.harmonic_mean(run.rate for run in runs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", type=Path, default=Path("runs/clip-retrieval"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
