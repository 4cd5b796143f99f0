"""URL lists: every format says the same, and what is no list is refused in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars
import pytest

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.ingest.expected import Expected, mismatch
from roclip_sanitize.ingest.optout import opted_out
from roclip_sanitize.ingest.tables import Columns, Row, read_rows, slices, url_tables

URLS = ["http://a/1.jpg", "https://b/2.jpg", "http://c/3.jpg"]
CAPTIONS = ['a "red" bag', "größe, 7", "cap"]
ROWS = [
    Row(url=url, caption=caption, expected=Expected()) for url, caption in zip(URLS, CAPTIONS, strict=True)
]


def written(folder: Path, kind: str) -> Path:
    path, pairs = folder / f"list.{kind}", list(zip(URLS, CAPTIONS, strict=True))
    frame = polars.DataFrame({"URL": URLS, "width": [1, 2, 3], "TEXT": CAPTIONS})
    match kind:
        case "parquet":
            frame.write_parquet(path)
        case "csv":
            frame.write_csv(path)
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n\n" for row in frame.to_dicts()))
        case "tsv":  # as CC3M has it
            path.write_text("".join(f"{caption}\t{url}\n" for url, caption in pairs))
        case "tsv.gz":  # as CC12M has it
            path.write_bytes(gzip.compress("".join(f"{url}\t{caption}\n" for url, caption in pairs).encode()))
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "tsv", "tsv.gz"])
def test_every_format_says_the_same(kind: str, tmp_path: Path) -> None:
    assert list(read_rows([written(tmp_path, kind)], Columns())) == ROWS


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_rows([path], Columns())) == ROWS


def test_folders_and_ranges_are_lists_in_order(tmp_path: Path) -> None:
    written(tmp_path, "csv")
    written(tmp_path, "tsv")
    (tmp_path / "notes.md").write_text("none")
    assert [path.name for path in url_tables(str(tmp_path))] == ["list.csv", "list.tsv"]
    found = url_tables(f"{tmp_path}/list.{{tsv,csv}}")
    assert [path.name for path in found] == ["list.tsv", "list.csv"]
    assert list(slices(read_rows(found, Columns()), 4)) == [(*ROWS, ROWS[0]), (*ROWS[1:],)]


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        url_tables(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match="is no URL list"):
        url_tables(str(tmp_path / "a.txt"))
    (tmp_path / "a.csv").write_text("name,size\nx,1\n")
    with pytest.raises(ConfigError, match=r"no column of URLs \(url or .*\): it has name, size"):
        list(read_rows([tmp_path / "a.csv"], Columns()))
    (tmp_path / "a.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: wanted names with values"):
        list(read_rows([tmp_path / "a.jsonl"], Columns()))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not the table"):
        list(read_rows([tmp_path / "a.parquet"], Columns()))
    (tmp_path / "b.tsv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows([tmp_path / "b.tsv.gz"], Columns()))


def hashed(path: Path, values: list[str | None]) -> list[Row]:
    urls = [f"http://a/{number}" for number in range(len(values))]
    polars.DataFrame({"url": urls, "text": ["x"] * len(values), "sha256": values}).write_parquet(path)
    return list(read_rows([path], Columns(sha256="sha256")))


def test_columns_of_hashes_are_looked_at(tmp_path: Path) -> None:
    good, path = "0A" * 32, tmp_path / "a.parquet"
    rows = hashed(path, [good, None, "xyz", good[:-2] + "bb"])
    assert [row.expected.sha256 for row in rows] == [good.lower(), "", "xyz", good[:-2].lower() + "bb"]
    assert [bool(row.flaw) for row in rows] == [False, False, True, False]
    with pytest.raises(ConfigError, match="holds 'abc', wanted sha256: 64 hex digits"):
        hashed(path, ["abc", "def", good])
    with pytest.raises(ConfigError, match="these are no sha256 of pictures"):
        hashed(path, [good] * 150)


def test_uids_of_the_list_are_kept(tmp_path: Path) -> None:
    polars.DataFrame({"url": URLS, "text": CAPTIONS, "uid": ["ab" * 16, "no", None]}).write_parquet(
        tmp_path / "a.parquet"
    )
    assert [row.uid for row in read_rows([tmp_path / "a.parquet"], Columns())] == ["ab" * 16, "", ""]


def test_a_table_of_failures_brings_its_hashes(tmp_path: Path) -> None:
    row = {"url": URLS[0], "caption": "a", "sha256": "0" * 64, "md5": "", "phash": "odd"}
    told = {**row, "row": 7, "reason": "timeout", "detail": ""}  # as versions before uids wrote it
    polars.DataFrame([told]).write_parquet(tmp_path / "a.parquet")
    (found,) = read_rows([tmp_path / "a.parquet"], Columns())
    assert found.expected == Expected(sha256="0" * 64, phash="odd")
    assert found.flaw == "phash is 'odd', wanted 16 hex digits"
    polars.DataFrame([row]).write_parquet(tmp_path / "b.parquet")
    assert next(read_rows([tmp_path / "b.parquet"], Columns())).expected == Expected()


def test_any_object_may_have_a_uid(tmp_path: Path) -> None:
    objects = [{"url": URLS[0], "text": "a"}, {"url": URLS[1], "text": "b", "uid": "ab" * 16}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, objects)))
    assert [row.uid for row in read_rows([tmp_path / "a.jsonl"], Columns())] == ["", "ab" * 16]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], ""),
        (["none, NOAI"], "noai"),
        (["otherbot: noai", "roclip-sanitize: noimageindex"], "noimageindex"),
        (["otherbot: noai"], ""),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], ""),
        (["noai, noimageai, max-image-preview:large"], "noai"),
        (["max-image-preview: large, noai"], "noai"),
        (["otherbot: nofollow, max-snippet: 20, noai"], ""),
        (["otherbot: nofollow, Roclip-Sanitize: noai"], "noai"),
    ],
)
def test_opt_outs(headers: list[str], found: str) -> None:
    assert opted_out(headers, agent="roclip-sanitize") == found


def test_exact_hashes_excuse_and_perceptual_ones_tolerate() -> None:
    import hashlib

    data, sha = b"picture", hashlib.sha256(b"picture").hexdigest()
    near, far = f"{0b111:016x}", "f" * 16

    def judge(found: str, **expected: str) -> str:
        return mismatch(data, lambda: found, Expected(**expected), tolerance=3)

    assert judge(far) == ""
    assert judge(far, sha256=sha, phash="0" * 16) == ""
    assert judge(near, sha256="0" * 64, phash="0" * 16) == ""
    assert (
        judge(far, sha256="0" * 64, phash="0" * 16)
        == "looks different: 64 of 64 bits of its phash, at most 3"
    )
    assert judge(near, sha256="0" * 64) == f"sha256 is {sha[:12]}…, wanted 000000000000…"
