"""Uids as numbers, and the lists made of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.errors import DataError
from roclip_sanitize.records import Reason
from roclip_sanitize.scan import keep_list
from roclip_sanitize.scan.keep_list import read_keep_list, write_keep_list
from roclip_sanitize.scan.uids import FlaggedUids, join_uids, split_uids

UIDS = st.lists(st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}"), max_size=20)


def test_high_half_comes_first() -> None:
    assert split_uids([f"{1:016x}{2:016x}"]).tolist() == [[1, 2]]


@given(UIDS)
def test_split_and_join_are_inverse(uids: list[str]) -> None:
    assert join_uids(split_uids(uids)) == uids


@settings(deadline=None)  # it waits for the disk
@given(UIDS)
def test_keep_list_is_what_datacomp_makes(uids: list[str]) -> None:
    # DataComp's own recipe, with each uid once.
    recipe = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in set(uids)], np.dtype("u8,u8"))
    recipe.sort()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "keep.npy"
        assert write_keep_list(path, [uids]) == len(set(uids))
        written = np.load(path)
        assert read_keep_list(path) == sorted(set(uids))
    assert written.dtype == np.dtype([("f0", "<u8"), ("f1", "<u8")])
    assert written.ndim == 1
    assert written.tolist() == recipe.tolist()


@pytest.mark.parametrize("count", [0, 1, 9, 10, 12_345])
def test_a_keep_list_is_what_numpy_saves(tmp_path: Path, count: int) -> None:
    uids = [f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in range(count)]
    write_keep_list(tmp_path / "keep.npy", [uids])
    halves = sorted((int(uid[:16], 16), int(uid[16:], 16)) for uid in uids)
    np.save(tmp_path / "wanted.npy", np.array(halves, np.dtype("u8,u8")))
    assert (tmp_path / "keep.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()


@settings(deadline=None)
@given(st.lists(UIDS, max_size=8), st.integers(1, 12))
def test_a_keep_list_of_many_runs_is_that_of_one(batches: list[list[str]], run: int) -> None:
    uids = [uid for batch in batches for uid in batch]
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setattr(keep_list, "RUN_UIDS", run)
        write_keep_list(folder / "keep.npy", batches)
        assert read_keep_list(folder / "keep.npy") == sorted(set(uids))
        assert [path.name for path in folder.iterdir()] == ["keep.npy"], "runs leave nothing behind"


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.uint64), np.zeros(3)])
def test_other_arrays_are_no_keep_list(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "other.npy", array)
    with pytest.raises(DataError, match=r"other\.npy is no keep-list"):
        read_keep_list(tmp_path / "other.npy")


def test_no_file_is_no_keep_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.npy does not exist"):
        read_keep_list(tmp_path / "absent.npy")


@given(UIDS, UIDS)
def test_flagged_uids_are_found_and_no_others(flagged: list[str], others: list[str]) -> None:
    reasons = [list(Reason)[place % 3] for place in range(len(flagged))]
    wanted = dict(reversed(list(zip(flagged, reasons, strict=True))))  # the first of equal uids counts
    found = FlaggedUids.of(flagged, reasons).reasons(flagged + others)
    assert found == [wanted.get(uid) for uid in flagged + others]


@given(UIDS, UIDS)
def test_joined_lists_of_flagged_uids_are_that_of_all(first: list[str], then: list[str]) -> None:
    reasons = [list(Reason)[place % 3] for place in range(len(first) + len(then))]
    parts = FlaggedUids.of(first, reasons[: len(first)]), FlaggedUids.of(then, reasons[len(first) :])
    whole, joined = FlaggedUids.of(first + then, reasons), FlaggedUids.join(parts)
    assert joined.reasons(first + then) == whole.reasons(first + then)
    assert joined.records.tolist() == whole.records.tolist()
