"""What strangers write gives a value or one of the package's own errors: a part of benchmarks/fuzzing.py."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz_targets import Target, all_targets
from benchmarks.fuzzing import judge
from benchmarks.mutations import mutate
from roclip_sanitize.errors import ConfigError

PARSERS = (
    *("tar", "shard", "fields", "caption", "picture", "shard_names", "attack", "run_file", "marker"),
    *("stage", "ledger", "ledger_table", "keep_list", "vectors", "pairs", "failures"),
    *("urls_text", "urls_lines", "urls_table", "hashes_text", "hashes_table"),
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return all_targets(tmp_path_factory.mktemp("fuzz"))


def test_every_parser_is_tried(targets: dict[str, Target]) -> None:
    assert tuple(targets) == PARSERS


@pytest.mark.parametrize("name", PARSERS)
def test_good_inputs_are_read(name: str, targets: dict[str, Target]) -> None:
    read, wrong = judge(targets[name], targets[name].seeds[0])
    assert (read, wrong) == (name != "shard_names", "")  # there are no such shards


@pytest.mark.parametrize("name", PARSERS)
@given(seed=st.integers(0, 2**32))
def test_good_inputs_with_something_wrong(name: str, seed: int, targets: dict[str, Target]) -> None:
    assert judge(targets[name], mutate(targets[name].seeds, random.Random(seed)))[1] == ""


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=600))
def test_any_bytes(name: str, data: bytes, targets: dict[str, Target]) -> None:
    assert judge(targets[name], data)[1] == ""


# The judge itself


def never_ends(data: bytes) -> Iterator[int]:
    while True:
        time.process_time()


def two_lines(data: bytes) -> None:
    class Talkative(ConfigError):
        def __str__(self) -> str:
            return "one\ntwo"

    raise Talkative


@pytest.mark.parametrize(
    ("parse", "wrong"),
    [
        (lambda data: data.decode("ascii"), "UnicodeDecodeError at "),
        (two_lines, "2 lines: "),
        (never_ends, "more than 0.05 processor seconds"),
    ],
)
def test_the_judge_finds_what_it_should(parse: object, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fuzzing.SECONDS", 0.05)
    target = Target(parse=parse, seeds=(), turn=1)  # type: ignore[arg-type]
    assert judge(target, b"\xff")[1].startswith(wrong)


def test_mutations_are_seeded_and_various(targets: dict[str, Target]) -> None:
    seeds = targets["tar"].seeds
    made = [mutate(seeds, random.Random(seed)) for seed in range(50)]
    assert made == [mutate(seeds, random.Random(seed)) for seed in range(50)]
    assert len(set(made)) == 50
