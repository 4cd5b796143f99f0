"""Lists of uids that others made: every format says the same, and what is no uid is refused by its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.errors import DataError
from roclip_sanitize.scan.keep_list import read_keep_list
from roclip_sanitize.scan.uid_lists import UidList, read_uids, sort_uid_lists
from roclip_sanitize.scan.uids import uid_records

UIDS = [f"{number:032x}" for number in (7, 3, 0x00FF << 64, 3)]
BAD = f"{7:031x}G"


def as_npy(path: Path, uids: Sequence[str]) -> Path:
    np.save(path.with_suffix(".npy"), uid_records(uids))
    return path.with_suffix(".npy")


def as_parquet(path: Path, uids: Sequence[str]) -> Path:
    polars.DataFrame({"uid": uids, "why": ["copy"] * len(uids)}).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_text(path: Path, uids: Sequence[str]) -> Path:
    path.with_suffix(".txt").write_text("\n".join([*uids, ""]))
    return path.with_suffix(".txt")


def as_column(path: Path, uids: Sequence[str]) -> Path:
    path.with_suffix(".csv").write_text("\r\n".join(["\ufeffuid", "", *uids]), "utf-8")
    return path.with_suffix(".csv")


@pytest.mark.parametrize("write", [as_npy, as_parquet, as_text, as_column])
def test_every_format_says_the_same(write: Callable[[Path, Sequence[str]], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "list", UIDS)
    assert [uid for batch in read_uids(path) for uid in batch] == UIDS


def test_several_lists_become_a_sorted_one(tmp_path: Path) -> None:
    lists = [as_text(tmp_path / "a", UIDS), as_npy(tmp_path / "b", [UIDS[0], f"{1:032x}"])]
    assert sort_uid_lists(lists, tmp_path / "all.npy") == 4
    assert read_keep_list(tmp_path / "all.npy") == sorted({*UIDS, f"{1:032x}"})


@given(st.sets(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_a_list_holds_what_is_on_it(
    tmp_path_factory: pytest.TempPathFactory, listed: set[int], asked: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    sort_uid_lists([as_text(folder / "a", [f"{number:032x}" for number in listed])], folder / "all.npy")
    found = UidList(folder / "all.npy").holds([f"{number:032x}" for number in asked])
    assert found.tolist() == [number in listed for number in asked]


@pytest.mark.parametrize(
    ("write", "where"), [(as_parquet, "row 1"), (as_text, "line 2"), (as_column, "line 4")]
)
def test_what_is_no_uid_is_refused(
    write: Callable[[Path, Sequence[str]], Path], where: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "list", [UIDS[0], BAD])
    with pytest.raises(DataError, match=f"{where}: '{BAD}' is no uid, wanted 32 lower-case hex digits"):
        sort_uid_lists([path], tmp_path / "all.npy")
    assert not (tmp_path / "all.npy").exists()


def test_what_is_no_list_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "endless").write_bytes(b"a" * 5_000_000)
    with pytest.raises(DataError, match=r"line 1: 'a{39}… is no uid"):
        list(read_uids(tmp_path / "endless"))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_uids(tmp_path / "none"))
    np.save(tmp_path / "numbers.npy", np.arange(3))
    with pytest.raises(DataError, match="is no keep-list: int64"):
        list(read_uids(tmp_path / "numbers.npy"))
