"""Shards, ledgers and checkpoints may come from anybody: what they must not do."""

from __future__ import annotations

import ast
import io
import pickle
import re
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from roclip_sanitize.artefacts import map_array, read_table
from roclip_sanitize.attacks.ledger import picture_file, target_file
from roclip_sanitize.braces import MAX_NAMES, expand_braces, most_names
from roclip_sanitize.errors import (
    BadPair,
    ConfigError,
    ConfigProblems,
    DataError,
    MismatchError,
    ShardMissing,
    ShardUnreadable,
)
from roclip_sanitize.records import FailureReason
from roclip_sanitize.runfiles import StageFolder, read_json, write_json
from roclip_sanitize.scan.keep_list import read_keep_list
from roclip_sanitize.shards import MAX_FIELDS_BYTES, expand_shards
from roclip_sanitize.tars import MAX_LONG_NAME_BYTES, member_blocks, walk_members
from roclip_sanitize.told import Told
from tests.corpora import pair_members, read_shard, tar_header, write_tar

ROOT = Path(__file__).parent.parent
CODE = sorted(
    path for folder in ("roclip_sanitize", "jobs", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def told(call: ast.Call, name: str) -> object:
    return next((ast.literal_eval(each.value) for each in call.keywords if each.arg == name), None)


# Nothing is unpickled, and nothing is run


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_unpickled_and_no_shell_is_asked(path: Path) -> None:
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno} calls {name}()"
        head, _, last = name.rpartition(".")
        assert head not in UNPICKLERS or last not in {"load", "loads", "Unpickler"}, where
        assert name != "torch.load" or told(call, "weights_only") is True, where
        assert not name.endswith("read_pickle"), where
        assert name not in {"eval", "exec", *SHELLS}, where
        if last == "load" and head in {"np", "numpy"}:
            assert not told(call, "allow_pickle"), where
        assert told(call, "shell") in {None, False}, where


def test_the_walk_through_the_code_sees_what_it_should(tmp_path: Path) -> None:
    for line in (
        "pickle.load(f)",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "os.system('x')",
        "run(shell=True)",
    ):
        (tmp_path / "bad.py").write_text(line)
        with pytest.raises(AssertionError, match=r"bad\.py:1 calls"):
            test_nothing_is_unpickled_and_no_shell_is_asked(tmp_path / "bad.py")


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_arrays_of_objects_are_refused_unopened(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    np.save(tmp_path / "keep.npy", np.array([Trap(trap)], dtype=object), allow_pickle=True)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Trap(trap)))
    for name in ("keep.npy", "bare.npy"):
        with pytest.raises(DataError, match=r"is no \.npy"):
            read_keep_list(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize(
    "name", ["pipe:touch {}", "pipe:touch {} |", "|touch {}", "$(touch {})", "`touch {}`"]
)
def test_a_shard_s_name_is_a_name_and_no_command(name: str, tmp_path: Path) -> None:
    with pytest.raises((ShardMissing, ConfigError)):
        expand_shards(name.format(tmp_path / "ran"))
    assert not (tmp_path / "ran").exists()


def test_nobody_s_home_is_no_crash() -> None:
    with pytest.raises(ConfigError, match="the home of nobody known here"):
        expand_shards("~nobody-is-called-so/0.tar")


def test_protocols_without_files_are_refused() -> None:
    with pytest.raises(ConfigError, match="its protocol has no files"):
        expand_shards("data:/0.tar")


@pytest.mark.parametrize("name", ["pipe://x/0.tar", "exec://x/0.tar", "php://filter/0.tar"])
def test_protocols_that_nobody_knows_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read here"):
        expand_shards(name)


# Nothing leads out of a folder


def test_members_that_lead_elsewhere_are_keys_and_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = write_tar(folder / "0.tar", [*pair_members("../../out", 1), *pair_members("/etc/out", 2)])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("3.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("3.txt"), io.BytesIO())
    pairs, failures = read_shard(path)
    assert [pair.key for pair in pairs] == ["../../out", "/etc/out"]
    assert [(failure.key, failure.reason) for failure in failures] == [("3", FailureReason.NO_IMAGE)]
    assert [found.name for found in tmp_path.rglob("*")] == ["in", "0.tar"]


@pytest.mark.parametrize("uid", ["../../x", "/etc/passwd", "", "A" * 32, "0" * 31])
def test_a_ledger_s_pictures_are_named_by_uids(uid: str, tmp_path: Path) -> None:
    for file in (target_file, picture_file):
        with pytest.raises(DataError, match="wanted 32 lower-case hex digits"):
            file(tmp_path, uid)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_a_marker_s_files_lie_in_its_folder(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / "done" / "00000.json", {"files": {name: ""}, "facts": {}})
    with pytest.raises(DataError, match="names a file outside its folder"):
        StageFolder(tmp_path).markers()


# Nothing is allocated because a header says so


def peak_bytes(what: object) -> int:
    tracemalloc.start()
    try:
        what()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_array_lies_whole_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
        np.lib.format.write_array_header_1_0(file, header)

    def refuse() -> None:
        with pytest.raises(DataError, match="mmap length is greater than file"):
            map_array(path)

    assert peak_bytes(refuse) < 1 << 20


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with path.open("wb") as file:  # sparse: it takes no room on the disk
        file.write(tar_header("0.jpg", 1 << 30))
        file.seek((1 << 30) + 512)
        file.write(
            member_blocks("0.txt", b"a hat") + member_blocks("1.jpg", b"") + tar_header("1.txt", 1 << 28)
        )
        file.seek(file.tell() + (1 << 28))
        file.write(member_blocks("2.jpg", b"") + member_blocks("2.txt", b"x") + tar_header("2.json", 1 << 28))
        file.seek(file.tell() + (1 << 28))
        file.write(bytes(1024))
    found = list[FailureReason]()
    peak = peak_bytes(lambda: found.extend(failure.reason for failure in read_shard(path)[1]))
    assert found == ["image_too_large", "caption_too_long", "bad_json"]
    assert peak < MAX_FIELDS_BYTES


def test_names_of_members_have_a_limit() -> None:
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, MAX_LONG_NAME_BYTES + 512
    data = long.tobuf(tarfile.GNU_FORMAT) + bytes(long.size)
    with pytest.raises(ShardUnreadable, match=r"has a name of 1,049,088 bytes, at most 1,048,576"):
        list(walk_members(data, tar="0.tar"))


def test_pax_records_that_overlap_take_no_time() -> None:
    """Each said that it was two bytes long, and looked a megabyte ahead for its end."""
    records = tarfile.TarInfo("x")
    records.type, records.size = tarfile.XHDTYPE, 1 << 20
    data = records.tobuf(tarfile.GNU_FORMAT) + b"2 " * (1 << 19)
    started = time.process_time()
    with pytest.raises(ShardUnreadable):
        list(walk_members(data, tar="0.tar"))
    assert time.process_time() - started < 0.5


def test_members_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roclip_sanitize.tars.MAX_MEMBERS", 2)
    members = walk_members(member_blocks("a", b"") * 3, tar="0.tar")
    assert [next(members).name, next(members).name] == ["a", "a"]
    with pytest.raises(ShardUnreadable, match="more than 2 files"):
        next(members)


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..99999999}",
        "{0..9999}{0..9999}",
        "{a,b{0..9999}{0..9999}}",
        "{a..z}" * 9,
        "{" * 5_000,
        "{1..%s}" % ("9" * 4_000),
    ],
)
def test_ranges_are_counted_before_they_are_expanded(pattern: str) -> None:
    with pytest.raises(ConfigError):
        expand_braces(pattern)


@pytest.mark.parametrize(
    "pattern", ["a", "{00..31}", "{b..d}", "a{0..8..2}{x,y{1..3},}", r"\{0..9\}", "{x}", "{9..0}", "{,}"]
)
def test_the_count_is_what_there_is_or_more(pattern: str) -> None:
    assert len(expand_braces(pattern)) <= most_names(pattern) <= MAX_NAMES


# Whatever it is, it is one line


def test_what_strangers_wrote_cannot_write_to_a_terminal() -> None:
    error = BadPair("no_image: \x1b]0;owned\x07\r\nroclip: all is well \u202e\ud800 帽子 🎩")
    assert str(error) == r"no_image: \x1b]0;owned\x07\r\nroclip: all is well \u202e\ud800 帽子 🎩"
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_lists_of_problems_keep_their_lines() -> None:
    assert str(ConfigProblems("run.toml: 2 to put right\n  [a]\n  [b] is \x1b[2J")) == (
        "run.toml: 2 to put right\n  [a]\n  [b] is \\x1b[2J"
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("shard s3://AKIA1:s3cret@store/0.tar", "shard s3://REDACTED@store/0.tar"),
        ("https://a/0.tar?sig=s3cret&part=1 of", "https://a/0.tar?sig=REDACTED&part=1 of"),
        ("mail me@home.example: 5 keys=3", "mail me@home.example: 5 keys=3"),
    ],
)
def test_secrets_in_urls_are_left_out(said: str, shown: str) -> None:
    assert str(ShardUnreadable(said)) == shown


def test_values_of_another_kind_are_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    for text, wanted in (
        ("[]", "is a list, wanted names"),
        ("{}", "has no 'stage'"),
        ("[" * 99_999, "no valid|not valid"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=wanted):
            StageFolder.open(tmp_path, stage="embed")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)
    with pytest.raises(DataError, match="is not the table that it should be"):
        read_table(path)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ShardMissing):
        expand_shards("n" * 300)
    long = {"files": {"n" * 300: ""}, "facts": {}}
    write_json(tmp_path / "done" / "00000.json", long)
    with pytest.raises(MismatchError, match="is missing, though its shard is marked done"):
        StageFolder(tmp_path).verify()


def test_text_in_a_table_is_text(tmp_path: Path) -> None:
    """Polars takes the reader's word for that, and panics later."""
    path = tmp_path / "pairs.parquet"
    polars.DataFrame({"caption": ["abcdefgh"]}).write_parquet(path, compression="uncompressed")
    assert read_table(path, schema={"caption": str}).rows() == [("abcdefgh",)]
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xff" * 8))
    with pytest.raises(DataError, match="is not the table that it should be"):
        read_table(path)


def test_a_table_has_the_columns_that_it_should(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    polars.DataFrame({"uid": [1]}).write_parquet(path)
    with pytest.raises(DataError, match="has no column 'caption'"):
        read_table(path, ["caption"])
    with pytest.raises(DataError, match="has 'uid' as Int64, wanted String"):
        read_table(path, schema={"uid": str})


def test_what_a_file_told_travels_between_workers() -> None:
    travelled = pickle.loads(pickle.dumps(Told({"rows": 3}, where="00000.json")))
    assert travelled["rows"] == 3
    with pytest.raises(DataError, match=r"00000\.json has no 'tally'"):
        travelled["tally"]


def test_reports_escape_all_and_run_nothing() -> None:
    templates = sorted((ROOT / "roclip_sanitize").rglob("*.j2"))
    assert templates
    for path in templates:
        text = path.read_text("utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|<script", text), path.name
    environment = (ROOT / "roclip_sanitize" / "report" / "environment.py").read_text("utf-8")
    assert "autoescape=True" in environment
