"""What strangers may write, a million times: every parser gives a value or one of the package's own errors.

    python -m benchmarks.fuzzing [--inputs 1000000] [--log logs/fuzz] [--only tar,picture]

    good inputs ─▶ mutations ─▶ parser ─▶ a value, or a RoclipError of one line

Anything else is a finding: another exception, a message of several lines, more than two processor seconds for
one input, more than 512 MiB beyond what the process had, or its end. Parsers take turns, each in a process of
its own, so that one that is killed costs a turn. Each turn is a line of LOG/turns.jsonl, each finding's input
a file beside it; the same command goes on after the last turn. Exits with 1 if there was a finding.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from benchmarks.claims import Claim, report
from benchmarks.fuzz_targets import Target, all_targets
from benchmarks.mutations import mutate
from roclip_sanitize.errors import RoclipError

SECONDS = 2.0  # processor time of one input
MEMORY_BYTES = 512 << 20  # beyond what a process had before its turn
SILENCE_SECONDS = 300.0  # after which a turn is ended from outside
MOST_FINDINGS = 20  # of one turn


@dataclass(slots=True, kw_only=True)
class Turn:
    """What one parser made of some inputs.

    Attributes:
        target: the parser.
        number: which turn of it, from 0.
        inputs: how many it got.
        values: for how many it gave a value; the others it refused in one line.
        peak_bytes: memory that it took beyond what the process had.
        findings: number of the input, and what was wrong.
    """

    target: str
    number: int
    inputs: int = 0
    values: int = 0
    peak_bytes: int = 0
    findings: list[tuple[int, str]] = field(default_factory=list)


class TooSlow(BaseException):
    """One input took too long. No Exception, so that no parser takes it for its own."""


def judge(target: Target, data: bytes) -> tuple[bool, str]:
    """Whether a parser gave a value, and what was wrong, or ""."""
    try:
        with _time_limit():
            target.parse(data)
    except RoclipError as error:
        lines = str(error).splitlines()
        return False, "" if len(lines) == 1 else f"{len(lines)} lines: {error!s:.200}"
    except TooSlow:
        return False, f"more than {SECONDS:g} processor seconds"
    except BaseException as error:  # Rust's panics among them
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        return False, f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error!s:.200}"
    return True, ""


def input_of(name: str, target: Target, *, turn: int, number: int) -> bytes:
    """One input; what was found can be found again."""
    return mutate(target.seeds, random.Random(f"{name}/{turn}/{number}"))


def run_turn(name: str, number: int, *, progress: Synchronized[int] | None = None) -> Turn:
    """Give one parser its inputs, in this process."""
    turn = Turn(target=name, number=number)
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        target = all_targets(Path(folder))[name]
        judge(target, target.seeds[0])  # what it imports counts for no input
        before = _peak_bytes()
        for at in range(target.turn):
            if progress is not None:
                progress.value = at
            value, wrong = judge(target, input_of(name, target, turn=number, number=at))
            turn.inputs, turn.values = turn.inputs + 1, turn.values + value
            if wrong:
                turn.findings.append((at, wrong))
            turn.peak_bytes = _peak_bytes() - before
            if turn.peak_bytes > MEMORY_BYTES:
                turn.findings.append((at, f"{turn.peak_bytes >> 20:,} MiB"))
                break
            if len(turn.findings) >= MOST_FINDINGS:
                break
    return turn


def main() -> None:
    """Run turns until so many inputs were judged, and say what came of all."""
    told = _arguments()
    told.log.mkdir(parents=True, exist_ok=True)
    log = told.log / "turns.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in all_targets(Path(folder)) if not told.only or name in told.only.split(",")]
    done = [Turn(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    while sum(turn.inputs for turn in done) < told.inputs:
        counts = {name: sum(turn.target == name for turn in done) for name in names}
        name = min(names, key=counts.__getitem__)
        turn = _apart(name, counts[name])
        _keep(turn, told.log)
        done.append(turn)
    claims = _claims(done)
    report("fuzzing", claims)
    raise SystemExit(0 if all(claim.holds for claim in claims) else 1)


def _apart(name: str, number: int) -> Turn:
    """A turn in a process of its own; its end is a finding."""
    methods = multiprocessing.get_context("spawn")
    progress, (receiver, sender) = methods.Value("q", 0), methods.Pipe(duplex=False)
    process = methods.Process(target=_send_turn, args=(name, number, progress, sender))
    process.start()
    sender.close()
    at, since = -1, time.monotonic()
    while process.is_alive() and not receiver.poll(1.0):
        if progress.value != at:
            at, since = progress.value, time.monotonic()
        if time.monotonic() - since > SILENCE_SECONDS:
            process.kill()
    try:
        turn: Turn = receiver.recv()
    except EOFError:
        process.join()
        what = f"the process ended with {process.exitcode}"
        return Turn(target=name, number=number, inputs=progress.value, findings=[(progress.value, what)])
    process.join()
    return turn


def _send_turn(name: str, number: int, progress: Synchronized[int], sender: object) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Rust tells of its panics there, thousands of times
    sender.send(run_turn(name, number, progress=progress))  # type: ignore[attr-defined]


def _keep(turn: Turn, log: Path) -> None:
    """Note a turn, and the inputs that found something."""
    with (log / "turns.jsonl").open("a") as lines:
        lines.write(json.dumps(asdict(turn)) + "\n")
    print(
        f"{turn.target:12} turn {turn.number:3}: {turn.inputs:6,} inputs, {turn.values:6,} values, "
        f"{turn.peak_bytes >> 20:4} MiB, {len(turn.findings)} findings",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        target = all_targets(Path(folder))[turn.target] if turn.findings else None
        for at, wrong in turn.findings:
            assert target is not None
            print(f"    {wrong}", flush=True)
            data = input_of(turn.target, target, turn=turn.number, number=at)
            (log / f"{turn.target}_{turn.number}_{at}").write_bytes(data)


def _claims(done: list[Turn]) -> list[Claim]:
    findings = sum(len(turn.findings) for turn in done)
    peak = max(turn.peak_bytes for turn in done) >> 20
    targets = len({turn.target for turn in done})
    return [
        Claim(
            name=f"inputs, to {targets} parsers",
            value=sum(turn.inputs for turn in done),
            target="all asked for",
            holds=True,
        ),
        Claim(
            name="inputs that were read", value=sum(turn.values for turn in done), target="some", holds=True
        ),
        Claim(
            name="crashes, hangs, messages of several lines", value=findings, target="0", holds=not findings
        ),
        Claim(
            name="MiB that a turn took, at most",
            value=peak,
            target=f"<= {MEMORY_BYTES >> 20}",
            holds=peak <= MEMORY_BYTES >> 20,
        ),
    ]


@contextmanager
def _time_limit() -> Iterator[None]:
    """Processor time: a busy machine changes nothing. What never comes back to Python is ended outside."""

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _memory_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # files that never reach a disk


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all parsers and starts")
    parser.add_argument("--log", type=Path, default=Path("logs/fuzz"))
    parser.add_argument("--only", default="", help="parsers, joined by commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
