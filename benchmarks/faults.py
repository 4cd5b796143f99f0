"""What it costs to be killed: embed, index and pair over real shards, with SIGKILL at random moments.

    python -m benchmarks.faults [--shards 'data/{00000..00009}.tar'] [--kills 12] [--seed 0] [--quick]
    python -m benchmarks.faults --campaign 100    one kill each, over all stages: fault_campaign.py

First each command runs undisturbed, and once more, which does no work. Then all run again elsewhere,
each killed some times at moments drawn from between those two, and started again to end. What counts:

    bytes       every file equals the undisturbed run's, but for those that tell times
    repeated    shards that a killed embed had opened and its successor opened again, at most, in one kill
    overhead    processor seconds of all starts beyond the undisturbed run's; printed, not judged

Each command runs in one process, so that one worker is meant; starting a process and its libraries is part of
the overhead, and most of it where shards are few. --quick kills a few times over two shards. The shards are
$ROCLIP_DATA/fashion/train (../shared/data where that is not set), or pairs of noise where there are none.
Exits with 1 if a byte differs, or if more was repeated than is promised.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.claims import Claim, report
from benchmarks.fault_campaign import run_campaign
from benchmarks.reading import DATA, noise_shard
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import RECORDS, sha256_of
from roclip_sanitize.shards import expand_shards

PROJECT = Path(__file__).resolve().parent.parent
IN_HAND = 3  # shards that one worker may have open: one written, one in the model, one read

# A command that logs the tars it opens: an audit hook changes nothing about the program that it watches.
COMMAND = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def watch(event, told):
    if event == "open" and str(told[0]).endswith(".tar"):
        os.write(log, os.fsencode(str(told[0])) + b"\\n")
sys.addaudithook(watch)
from roclip_sanitize.cli import run
run(sys.argv[2:])
"""

COMMANDS = {  # by the folder that each fills
    "store": "embed --shards {shards}",
    "index": "index --store store --modality image --transform pca96 --parts 4",
    "index_text": "index --store store --modality text --parts 4",
    "pairs": "pair --store store --index-text index_text --index-image index --method first",
}


@dataclass(slots=True, kw_only=True)
class Run:
    """All commands in one folder, one after the other.

    Attributes:
        folder: where.
        shards: what the first one reads.
        idle: seconds that each took when all was done.
        wall: seconds that each took to do it, without being killed.
        processor: seconds of all starts of each that had work to do.
        repeated: shards opened again after a kill, one entry for each kill of embed.
        kills: starts that were killed.
    """

    folder: Path
    shards: str
    idle: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    kills: int = 0

    def undisturbed(self) -> None:
        """Run every command to its end, twice."""
        for name in COMMANDS:
            spent = _processor_seconds()
            self.wall[name] = self._to_its_end(name)
            self.processor[name] = _processor_seconds() - spent
            self.idle[name] = self._to_its_end(name)

    def killed(self, times: int, *, like: Run, dice: random.Random) -> None:
        """Run every command to its end, killed at ``times`` moments of the work that ``like`` measured.

        Longer commands are killed more often.
        """
        for name, share in _shares(like.wall, times).items():
            spent, opened = _processor_seconds(), list[set[str]]()
            for _ in range(share):
                self._killed_once(name, dice.uniform(like.idle[name], like.wall[name]))
                opened.append(self._opened())
            self._to_its_end(name)
            opened.append(self._opened())
            self.processor[name] = _processor_seconds() - spent
            if name == "store":
                self.repeated = [len(before & after) for before, after in pairwise(opened)]

    def tree(self) -> dict[str, str]:
        """Every file and its hash, but for those that tell times and those that killed writers leave."""
        return {
            path.relative_to(self.folder).as_posix(): sha256_of(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not _tells_times(path)
        }

    def _killed_once(self, name: str, seconds: float) -> None:
        process = self._start(name)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            self.kills += 1
            process.wait()

    def _to_its_end(self, name: str) -> float:
        """Seconds that it takes.

        Raises:
            MismatchError: it fails.
        """
        started = time.perf_counter()
        if code := self._start(name).wait():
            raise MismatchError(f"roclip {COMMANDS[name]} ended with {code} in {self.folder}")
        return time.perf_counter() - started

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        self._log.unlink(missing_ok=True)
        words = COMMANDS[name].format(shards=self.shards).split()
        command = [
            sys.executable,
            "-c",
            COMMAND,
            str(self._log),
            *words,
            "--out",
            name,
            "--executor",
            "local",
        ]
        path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _opened(self) -> set[str]:
        """Tars that the last start opened."""
        return set(self._log.read_text().splitlines()) if self._log.exists() else set()

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".opened")


def main() -> None:
    """Measure, print the table, and tell in the exit code whether all was as promised."""
    told = _arguments()
    claims = _campaign(told) if told.campaign else _measure(told)
    report("faults", claims)
    raise SystemExit(0 if all(claim.holds for claim in claims) else 1)


def _campaign(told: argparse.Namespace) -> list[Claim]:
    return run_campaign(told.campaign, scratch=told.scratch or Path("runs/faults"), seed=told.seed)


def _measure(told: argparse.Namespace) -> list[Claim]:
    """Every command once undisturbed and once killed some times."""
    with tempfile.TemporaryDirectory(dir=told.scratch) as folder:
        scratch = Path(folder).resolve()
        shards = _shards(told, scratch)
        runs = [Run(folder=scratch / name, shards=shards) for name in ("undisturbed", "killed")]
        for run in runs:
            run.folder.mkdir()
        runs[0].undisturbed()
        runs[1].killed(3 if told.quick else told.kills, like=runs[0], dice=random.Random(told.seed))
        trees = [run.tree() for run in runs]
    _show(*runs)
    return _claims(runs[1], same=trees[0] == trees[1], files=len(trees[0]))


def _shares(wall: dict[str, float], times: int) -> dict[str, int]:
    """How often each command is killed: by its length, and each at least once."""
    total = sum(wall.values())
    return {name: max(1, round(times * seconds / total)) for name, seconds in wall.items()}


def _tells_times(path: Path) -> bool:
    return path.parent.name == "done" or path.name in RECORDS | {"complete.json"} or path.suffix == ".part"


def _processor_seconds() -> float:
    """Of all processes started and ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _show(undisturbed: Run, killed: Run) -> None:
    print(f"\n{'processor seconds':18}{'undisturbed':>12}{'killed':>12}")
    for name, seconds in undisturbed.processor.items():
        print(f"{name:18}{seconds:>12.1f}{killed.processor[name]:>12.1f}")
    overhead = sum(killed.processor.values()) / sum(undisturbed.processor.values()) - 1
    print(f"{killed.kills} kills, {overhead:.1%} more processor time than undisturbed")
    print(f"shards opened again after each kill of embed: {killed.repeated}")


def _claims(killed: Run, *, same: bool, files: int) -> list[Claim]:
    repeated = max(killed.repeated, default=0)
    return [
        Claim(name=f"bytes of {files} files are the same", value=float(same), target="1", holds=same),
        Claim(
            name="kills that came while a worker held shards",  # else the next line shows nothing
            value=sum(map(bool, killed.repeated)),
            target=">= 1",
            holds=any(killed.repeated),
        ),
        Claim(
            name="shards a worker opened again after a kill, at most",
            value=repeated,
            target=f"<= {IN_HAND}",
            holds=repeated <= IN_HAND,
        ),
    ]


def _shards(told: argparse.Namespace, scratch: Path) -> str:
    """The shards as one specification, absolute."""
    found: Sequence[Path] = expand_shards(told.shards) if told.shards else ()
    found = found or sorted((DATA / "fashion" / "train").glob("*.tar"))
    found = found or [
        noise_shard(scratch / f"{part:05d}.tar", pairs=2_000, side=64, seed=part) for part in range(6)
    ]
    return "::".join(str(path.absolute()) for path in found[: 2 if told.quick else None])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", default="")
    parser.add_argument("--kills", type=int, default=12, help="over all commands")
    parser.add_argument("--campaign", type=int, default=0, help="trials of one kill each, over all stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=None, help="folder for results")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
