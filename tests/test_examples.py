"""The Python that the README shows, run as it stands there; and what shells complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.squares import write_square_shards

ROOT = Path(__file__).parent.parent
INTRODUCTION = "From Python it is the same run:"


def example_after(introduction: str) -> str:
    """The indented block that follows a sentence of the README."""
    _, _, rest = (ROOT / "README.md").read_text("utf-8").partition(introduction)
    block = re.match(r"\n\n((?:    .*\n|\n)+)", rest)
    assert block, introduction
    return "\n".join(line[4:] for line in block[1].splitlines())


@pytest.mark.slow
def test_the_example_in_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_square_shards(tmp_path / "squares", shards=2, pairs=80)
    Path("run.toml").write_text("[sanitize]\nshards = 'squares/{00000..00001}.tar'\nexecutor = 'local'\n")
    names: dict[str, Any] = {}
    exec(example_after(INTRODUCTION), names)
    assert names["found"]["seen"] == 160
    assert Path("runs/again/run.toml").exists()


@pytest.mark.parametrize(
    ("typed", "completed"), [("roclip sani", "sanitize"), ("roclip sanitize --bud", "--budget")]
)
def test_shells_complete_commands_and_options(typed: str, completed: str) -> None:
    told = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
        "_ROCLIP_COMPLETE": "complete_bash",
    }
    command = [sys.executable, "-m", "roclip_sanitize.cli"]
    done = subprocess.run(
        command, env={**os.environ, **told}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [completed]
