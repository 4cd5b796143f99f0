"""``roclip index`` builds, ``roclip index inspect`` tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from roclip_sanitize.cli import run
from roclip_sanitize.index import inspect_index
from tests.corpora import pair_members, write_tar
from tests.stores import make_store


@pytest.fixture
def built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """An index of 60 rows, made on the command line."""
    image_ND = np.random.default_rng(0).normal(size=(60, 4))
    make_store(tmp_path / "store", image_ND, image_ND, [60])
    code, out, _ = roclip(
        capsys, "index", "--store", tmp_path / "store", "--kind", "hnsw", "--out", tmp_path / "index",
        "--executor", "local", "--json",
    )  # fmt: skip
    told = json.loads(out)
    assert set(told.pop("limits")["pairs_per_second"]) == {"learn", "read", "add", "write", "measure"}
    assert (code, told) == (0, inspect_index(tmp_path / "index"))
    return tmp_path / "index"


def roclip(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as caught:
        run([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return caught.value.code, said.out, said.err


def test_the_facts_are_an_aligned_table(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = roclip(capsys, "index", "inspect", built)
    assert (code, err) == (0, "")
    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert set(told) == set(inspect_index(built))
    assert (told["kind"], told["rows"], told["transform"], told["nprobe"]) == ("hnsw", "60", "-", "32")
    (column,) = {len(line) - len(line.split(maxsplit=1)[1]) for line in out.splitlines()}
    assert column == max(map(len, told)) + 2


def test_the_facts_are_json_if_asked_for(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = roclip(capsys, "index", "inspect", built, "--json")
    assert (code, json.loads(out)) == (0, inspect_index(built))


def test_what_is_no_index_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = roclip(capsys, "index", "inspect", tmp_path)
    assert (code, out) == (1, "")
    assert err == f"roclip: {tmp_path} is no folder made by 'roclip index': it has no stage.json\n"


@pytest.mark.parametrize(
    ("given", "missing"), [([], "--store"), (["--store", "x"], "--out"), (["--out", "x"], "--store")]
)
def test_building_needs_a_store_and_a_folder(
    given: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = roclip(capsys, "index", *given)
    assert (code, out) == (2, "")
    assert err == f"roclip: Missing option '{missing}'; see 'roclip index --help'\n"


def test_settings_may_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path / "store", np.eye(20), np.eye(20), [20])
    lines = [
        "[index]",
        f'store = "{tmp_path}/store"',
        'executor = "local"',
        'kind = "ivf_flat"',
        "nprobe = 1",
    ]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    code, _, _ = roclip(capsys, "--config", tmp_path / "run.toml", "index", "--out", tmp_path / "index")
    assert (code, inspect_index(tmp_path / "index")["kind"]) == (0, "ivf_flat")


def test_a_store_without_rows_says_what_became_of_its_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [member for member in pair_members("0", 0) if member[0].endswith(".jpg")]
    shard, store = write_tar(tmp_path / "0.tar", [*pictures, ("1.jpg", b"x")]), tmp_path / "store"
    assert roclip(capsys, "embed", "--shards", shard, "--out", store, "--executor", "local")[0] == 3
    index = ("index", "--store", store, "--out", tmp_path / "index", "--executor", "local")
    wanted = (
        f"{store} has no rows to index: 2 of 2 pairs failed: no_caption 2; {store}/failures lists each one"
    )
    assert roclip(capsys, *index)[::2] == (1, f"roclip: {wanted}\n")
