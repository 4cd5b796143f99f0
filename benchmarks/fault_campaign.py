"""A hundred SIGKILLs, each at a random moment of some stage, and each followed by the same command again.

    python -m benchmarks.faults --campaign 100 [--scratch runs/faults] [--seed 0]

    corpus ─▶ every stage, undisturbed ─▶ trial: one stage anew, killed, run to its end, compared

Trials take turns at the stages, from poisoning to evaluation, on a few hundred rendered scenes. A moment is
so many processor seconds into the stage's own work: a busy machine stretches seconds, but not those. A kill
that comes too late is drawn again. Each trial is a line of SCRATCH/campaign.jsonl, and the same command goes
on after the last one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.claims import Claim
from benchmarks.same_bytes import tree
from roclip_sanitize.corpus.render import render_corpus
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import read_json, write_json

PROJECT = Path(__file__).resolve().parent.parent
PAIRS, SHARDS, TEST_PAIRS = 360, 4, 60
LOOK_SECONDS = 0.002  # between two looks at how long a process has been at work
DRAWS = 20  # of a moment, until one comes before the command ends
POISONED = "poison/shards/{00000..00003}.tar"
KEPT = "rewrite/kept/{00000..00003}.tar"
COMMANDS = {  # by the folder that each fills
    "poison": "poison --shards clean/{00000..00003}.tar --test-shards test/00000.tar --label object "
    "--classes 6 --attacks targeted:targets=3,captions=5 --attacks patch:rate=0.05",
    "store": f"embed --shards {POISONED}",
    "index": "index --store store --modality image --transform pca96 --parts 3",
    "index_text": "index --store store --modality text --parts 3",
    "scan": "scan --store store --index index",
    "rewrite": "rewrite --store store --verdicts scan",
    "pairs": "pair --store store --index-text index_text --index-image index --method first",
    "trained": f"train --train-data {KEPT} --model roclip-vit-64 --batch-size 32 --epochs 2 --warmup 2 "
    "--match-from 0.2 --match-every 128 --match-for 96 --checkpoint-seconds 0",
    "evaluated": "evaluate --arm trained --test-shards test/00000.tar --label object --ledger poison",
}
START = "import sys; from roclip_sanitize.cli import run; run(sys.argv[1:])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One kill and what came of it.

    Attributes:
        number: which trial, from 0.
        stage: the folder that was to be filled.
        moment_seconds: processor seconds after which it was killed.
        files: how many the stage left behind.
        differing: those that an undisturbed run leaves otherwise.
    """

    number: int
    stage: str
    moment_seconds: float
    files: int
    differing: tuple[str, ...]


def run_campaign(trials: int, *, scratch: Path, seed: int) -> list[Claim]:
    """Run the trials that are still to run, and say what came of all.

    Raises:
        MismatchError: a command fails that nobody killed, or none of its moments comes in time.
    """
    whole = scratch / "undisturbed"
    times = _undisturbed(whole)
    log = scratch / "campaign.jsonl"
    done = list(_logged(log))
    for number in range(len(done), trials):
        stage = list(COMMANDS)[number % len(COMMANDS)]
        trial = _trial(number, stage, whole=whole, times=times[stage], seed=seed)
        with log.open("a") as lines:
            lines.write(json.dumps(asdict(trial)) + "\n")
        print(f"trial {number:3} {stage:10} killed after {trial.moment_seconds:5.2f} s: {_outcome(trial)}")
        done.append(trial)
    same = sum(not trial.differing for trial in done)
    stages = len({trial.stage for trial in done})
    return [
        Claim(
            name=f"of {len(done)} kills in {stages} stages, those that ended with the same bytes",
            value=same,
            target=str(len(done)),
            holds=same == len(done),
        )
    ]


def _undisturbed(whole: Path) -> dict[str, tuple[float, float]]:
    """Every stage once; its processor seconds when there is nothing to do, and when there is all."""
    noted = whole / "times.json"
    if not noted.exists():
        shutil.rmtree(whole, ignore_errors=True)
        for name, pairs, shards, split in (
            ("clean", PAIRS, SHARDS, "train"),
            ("test", TEST_PAIRS, 1, "test"),
        ):
            render_corpus(
                whole / name, pairs=pairs, shards=shards, seed=0, executor=LocalExecutor(), split=split
            )
        work = {name: _to_its_end(name, whole) for name in COMMANDS}
        idle = {name: _to_its_end(name, whole) for name in COMMANDS}
        write_json(noted, {name: [idle[name], work[name]] for name in COMMANDS})
    return {name: (idle, work) for name, (idle, work) in read_json(noted).items()}


def _trial(number: int, stage: str, *, whole: Path, times: tuple[float, float], seed: int) -> Trial:
    """Fill one stage's folder anew beside links to all others."""
    dice = random.Random(f"{seed}/{number}")
    folder = whole.parent / "killed"
    for _ in range(DRAWS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for other in whole.iterdir():
            if other.name != stage:
                (folder / other.name).symlink_to(other.resolve())
        moment = dice.uniform(*times)
        if _killed(stage, folder, moment):
            break
    else:
        raise MismatchError(f"roclip {COMMANDS[stage]} ended before each of {DRAWS} moments in {times}")
    _to_its_end(stage, folder)
    found, wanted = tree(folder / stage), tree(whole / stage)
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return Trial(
        number=number,
        stage=stage,
        moment_seconds=round(moment, 3),
        files=len(found),
        differing=tuple(differing),
    )


def _killed(stage: str, folder: Path, moment: float) -> bool:
    """Whether the command was still at work when it had used so many processor seconds, and was killed."""
    process = _start(stage, folder)
    while process.poll() is None and _used_seconds(process.pid) < moment:
        time.sleep(LOOK_SECONDS)
    process.kill()
    return process.wait() < 0


def _to_its_end(stage: str, folder: Path) -> float:
    """Processor seconds that the command takes.

    Raises:
        MismatchError: it fails.
    """
    process = _start(stage, folder)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MismatchError(f"roclip {COMMANDS[stage]} ended with {process.returncode} in {folder}")
    return used.ru_utime + used.ru_stime


def _start(stage: str, folder: Path) -> subprocess.Popen[bytes]:
    words = [*COMMANDS[stage].split(), "--out", stage, "--executor", "local"]
    with (folder.parent / "campaign.stderr").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", START, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def _used_seconds(pid: int) -> float:
    """Processor seconds of a process so far, its threads included: fields 14 and 15 of proc(5)'s stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _logged(log: Path) -> Iterator[Trial]:
    for line in log.read_text().splitlines() if log.exists() else ():
        told = json.loads(line)
        yield Trial(**told | {"differing": tuple(told["differing"])})


def _outcome(trial: Trial) -> str:
    if not trial.differing:
        return f"{trial.files} files, the same bytes"
    return f"{len(trial.differing)} of {trial.files} files differ: {', '.join(trial.differing[:3])}"
