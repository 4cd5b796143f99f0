"""What it costs to be killed: embed, index and pair over real shards, with SIGKILL at random moments.

    python -m benchmarks.faults [--shards 'data/{00000..00009}.tar'] [--kills 12] [--seed 0] [--quick]

First each command runs undisturbed. Then all run again elsewhere, each killed some times at a moment drawn
from the time that it took, and started again until it ends. What counts:

    bytes       every file equals the undisturbed run's, but for those that tell times
    repeated    shards that a killed embed had opened and its successor opened again, at most, in one kill
    overhead    processor seconds of all starts beyond the undisturbed run's; printed, not judged

Each command runs in one process, so that one worker is meant; starting a process and its libraries is part of
the overhead, and most of it where shards are few. --quick kills three times over two shards. The shards are
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
from pathlib import Path

from benchmarks.claims import Claim, report
from benchmarks.reading import DATA, noise_shard
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.runfiles import sha256_of
from roclip_sanitize.shards import expand_shards

PROJECT = Path(__file__).resolve().parent.parent
STARTS = 100  # of one command: more, and it makes no headway
IN_HAND = 3  # shards that one worker may have open: one written, one in the model, one read

# A command that logs the tars it opens: an audit hook changes nothing about the program that it watches.
COMMAND = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def watch(event, told):
    if event == "open" and str(told[0]).endswith(".tar") and told[1] == "rb":
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
        wall: seconds that each took without being killed.
        processor: seconds of all starts of each.
        repeated: shards opened again after a kill, one entry for each kill of embed.
        kills: starts that were killed.
    """

    folder: Path
    shards: str
    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    kills: int = 0

    def undisturbed(self) -> None:
        """Run every command to its end."""
        for name in COMMANDS:
            started, spent = time.perf_counter(), _processor_seconds()
            self._require_success(name, self._start(name).wait())
            self.wall[name] = time.perf_counter() - started
            self.processor[name] = _processor_seconds() - spent

    def killed(self, times: int, *, wall: dict[str, float], dice: random.Random) -> None:
        """Run every command to its end, killed at ``times`` moments that ``dice`` draw from ``wall`` seconds.

        Longer commands are killed more often.
        """
        for name, share in _shares(wall, times).items():
            spent, opened = _processor_seconds(), list[str]()
            for start in range(STARTS):
                ended = self._killed_once(name, dice.uniform(0, wall[name])) if start < share else None
                now = self._opened()
                self.repeated += [len(set(opened) & set(now))] if start and name == "store" else []
                opened = now
                if ended is None:
                    self._require_success(name, self._start(name).wait())
                    self.repeated += [len(set(opened) & set(self._opened()))] if name == "store" else []
                    break
                if ended == 0:
                    break  # before its moment came
            self.processor[name] = _processor_seconds() - spent

    def tree(self) -> dict[str, str]:
        """Every file and its hash, but for those that tell times and those that killed writers leave."""
        return {
            path.relative_to(self.folder).as_posix(): sha256_of(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not _tells_times(path)
        }

    def _killed_once(self, name: str, seconds: float) -> int:
        process = self._start(name)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            self.kills += 1
            return process.wait()

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

    def _opened(self) -> list[str]:
        """Tars that the last start opened."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".opened")

    def _require_success(self, name: str, code: int) -> None:
        if code:
            raise MismatchError(f"roclip {COMMANDS[name]} ended with {code} in {self.folder}")


def main() -> None:
    """Measure, print the table, and tell in the exit code whether all was as promised."""
    told = _arguments()
    with tempfile.TemporaryDirectory(dir=told.scratch) as scratch:
        shards = _shards(told, Path(scratch))
        runs = [Run(folder=Path(scratch) / name, shards=shards) for name in ("undisturbed", "killed")]
        for run in runs:
            run.folder.mkdir()
        runs[0].undisturbed()
        runs[1].killed(3 if told.quick else told.kills, wall=runs[0].wall, dice=random.Random(told.seed))
        trees = [run.tree() for run in runs]
    _show(*runs)
    claims = _claims(runs[1], same=trees[0] == trees[1], files=len(trees[0]))
    report("faults", claims)
    raise SystemExit(0 if all(claim.holds for claim in claims) else 1)


def _shares(wall: dict[str, float], times: int) -> dict[str, int]:
    """How often each command is killed: by its length, and each at least once."""
    total = sum(wall.values())
    return {name: max(1, round(times * seconds / total)) for name, seconds in wall.items()}


def _tells_times(path: Path) -> bool:
    return path.parent.name == "done" or path.name == "complete.json" or path.suffix == ".part"


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
        Claim(name="kills", value=killed.kills, target=">= 1", holds=killed.kills >= 1),
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=None, help="folder for results; the system's own")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
