"""Every command that works through the pairs ends by telling what bounded it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roclip_sanitize.cli import run
from tests.squares import write_square_shards, write_squares

SHARDS, PAIRS = 2, 40
COMMANDS = {
    "poison": "--shards {0}/clean/{{00000..00001}}.tar --test-shards {0}/clean/test.tar --label colour "
    "--classes 4 --attacks targeted:targets=3,captions=5 --attacks patch:rate=0.05",
    "embed": "--shards {0}/poison/shards/{{00000..00001}}.tar",
    "index": "--store {0}/embed --modality image --transform pca8",
    "index text": "--store {0}/embed --modality text",
    "scan": "--store {0}/embed --index {0}/index",
    "rewrite": "--store {0}/embed --verdicts {0}/scan",
    "pair": "--store {0}/embed --index-text {0}/index_text --index-image {0}/index",
    "train": "--train-data {0}/rewrite/kept/{{00000..00001}}.tar --model roclip-vit-64 --batch-size 16 "
    "--epochs 1 --warmup 2",
}
STEPS = {
    "poison": ["census", "headers", "copy", "write", "hash"],
    "embed": ["read", "decode", "model", "write"],
    "index": ["learn", "read", "add", "write", "measure"],  # one part: its hashing is never told
    "scan": ["columns", "cross", "traces", "search", "evidence", "score", "judge"],
    "rewrite": ["look up", "copy", "write", "hash"],
    "pair": ["pool", "text search", "image search", "write", "hash"],
    "train": ["read", "augment", "model", "optimiser"],
}


def roclip(command: str, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """Stdout and stderr of a command that works."""
    out = folder / command.replace(" ", "_")
    options = COMMANDS[command].format(folder).split()
    with pytest.raises(SystemExit) as caught:
        run([command.partition(" ")[0], *options, "--out", str(out), "--executor", "local", *more])
    said = capsys.readouterr()
    assert caught.value.code == 0, said.err
    return said.out, said.err


@pytest.mark.slow
def test_the_table_and_the_json_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_square_shards(tmp_path / "clean", shards=SHARDS, pairs=PAIRS)
    write_squares(tmp_path / "clean" / "test.tar", first=1_000, pairs=20)
    for command in COMMANDS:
        out, table = roclip(command, tmp_path, capsys)
        assert "pairs/s" not in out, "results alone are on stdout"
        told = json.loads(roclip(command, tmp_path, capsys, "--json")[0])["limits"]
        rates, steps = told["pairs_per_second"], STEPS[command.partition(" ")[0]]
        assert set(rates) == set(steps), command
        assert told["bound"] == min(rates, key=rates.__getitem__)
        assert 0 < told["share"] <= 1
        header, *lines, reached = table.splitlines()
        assert header == "pairs/s of a worker"
        assert [line.split(maxsplit=1)[1].removesuffix(", which bounds") for line in lines] == steps
        assert reached.endswith(f"of what {told['bound']} allows")
        assert float(reached.split()[0].replace(",", "")) == pytest.approx(told["reached"], abs=0.6)
