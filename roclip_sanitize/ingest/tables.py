"""URL lists → rows, a shard's worth at a time, however long the lists are.

    .parquet          LAION, COYO, DataComp
    .tsv .csv         with a first line of names; or, as CC3M and CC12M, of URLs and captions alone
    .jsonl            an object a line; all three may be packed: .tsv.gz

Which columns hold what is told, or found by their usual names. Hashes are looked for only where they are
told, but in a table of failures: what was refused as swapped must not come in as what failed before.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from roclip_sanitize.artefacts import table_batches, table_columns
from roclip_sanitize.braces import expand_braces
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.hashes import DIGITS_OF
from roclip_sanitize.ingest.expected import Expected
from roclip_sanitize.records import is_uid
from roclip_sanitize.remote import file_name, is_url, source_name
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import exists, here, names_in

KINDS = (".parquet", ".tsv", ".csv", ".jsonl")
URL_NAMES = ("url", "image_url", "img_url", "link")
CAPTION_NAMES = ("caption", "text", "alt_text", "alt", "top_caption")
HEX = re.compile(r"[0-9a-f]+")
BATCH_ROWS = 10_000
LONGEST_LINE = 1 << 20
ENOUGH_HASHES = 100  # that are all the same: no column of hashes
MOST_DIGITS = 1 + max(DIGITS_OF.values())  # of what may be anything: enough to be too long
FAILURE_COLUMNS = {
    "url",
    "caption",
    *DIGITS_OF,
    "row",
    "reason",
    "detail",
}  # of the tables that shard.py leaves

Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns hold what; "" where none is named.

    Attributes:
        url: of pictures.
        caption: their captions.
        sha256, md5, phash: hashes that pictures are held against.
    """

    url: str = ""
    caption: str = ""
    sha256: str = ""
    md5: str = ""
    phash: str = ""

    @property
    def hashes(self) -> dict[str, str]:
        """The columns of hashes that are named, by kind."""
        return {kind: name for kind in DIGITS_OF if (name := getattr(self, kind))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a list.

    Attributes:
        url: where the picture is said to be; "" where the list says nothing.
        caption: its text; likewise.
        expected: hashes of the picture, as the list has them.
        uid: the pair's name, where the list has one, or "".
        flaw: why the row is of no use, or "".
    """

    url: str
    caption: str
    expected: Expected
    uid: str = ""
    flaw: str = ""


def url_tables(spec: str) -> list[Path]:
    """The lists that a specification names: paths with ranges, or folders, joined by ``::``.

    Raises:
        ConfigError: there are none, or one is of no known kind.
        DataError: one does not exist.
    """
    parts = [part.strip() for part in spec.split("::") if part.strip()]
    named = [source_path(name.rstrip("/") or name) for part in parts for name in expand_braces(part)]
    found = list(chain.from_iterable(_in_folder(path) if _is_folder(path) else [path] for path in named))
    if not found:
        raise ConfigError(f"no URL lists in {spec!r}: wanted files that end in {', '.join(KINDS)}")
    for path in found:
        if _kind(path) not in KINDS:
            raise ConfigError(f"{path} is no URL list: wanted one of {', '.join(KINDS)}")
        if path.is_dir() or not exists(path):
            raise DataError(f"{source_name(path)} does not exist")
    return found


def read_rows(tables: Sequence[Path], columns: Columns) -> Iterator[Row]:
    """All rows of some lists, in order.

    Raises:
        ConfigError: a column is not there, or holds no hashes.
        DataError: a list is not what its name says.
    """
    for table in tables:
        names, rows = _opened(table)
        found = _resolved(table, names, columns)
        first = list(islice(rows, BATCH_ROWS))
        for kind in columns.hashes:
            _require_hashes(table, first, kind, found.hashes[kind])
        yield from _rows_of(chain(first, rows), found)


def require_lists(tables: Sequence[Path], columns: Columns) -> None:
    """Look at the first rows of each list, before anything is made of any. Raises as read_rows() does."""
    for table in tables:
        next(read_rows([table], columns), None)


def slices(rows: Iterator[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """Rows, as many at a time as a shard has."""
    while some := tuple(islice(rows, size)):
        yield some


def _in_folder(folder: Path) -> list[Path]:
    return [path for name in names_in(folder) if _kind(path := folder / name) in KINDS]


def _is_folder(path: Path) -> bool:
    return path.is_dir() or (is_url(path) and _kind(path) not in KINDS)


def _kind(path: Path) -> str:
    return Path(file_name(path).removesuffix(".gz")).suffix.lower()


def _opened(table: Path) -> tuple[list[str], Iterator[Values]]:
    """A list's column names, and its rows as they stand there."""
    if _kind(table) == ".parquet":
        names = table_columns(table)
        return names, _from_parquet(table, names)
    if _kind(table) == ".jsonl":
        rows = _from_jsonl(table)
        first = next(rows, {})
        return list(first), chain([first] if first else [], rows)
    return _from_text(table, "," if _kind(table) == ".csv" else "\t")


def _from_parquet(table: Path, names: Sequence[str]) -> Iterator[Values]:
    wanted = [name for name in names if name.lower() not in {"embedding", "exif"}]
    for batch in table_batches(table, wanted, rows=BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _from_jsonl(table: Path) -> Iterator[Values]:
    with _text(table) as lines:
        for number, line in enumerate(_lines(lines, table), start=1):
            try:
                values = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                raise DataError(f"{table}, line {number}: no JSON") from error
            if not isinstance(values, dict):
                raise DataError(f"{table}, line {number}: wanted names with values")
            if values:
                yield values


def _from_text(table: Path, delimiter: str) -> tuple[list[str], Iterator[Values]]:
    dialect: Any = csv.excel if delimiter == "," else _Bare

    def cells() -> Iterator[list[str]]:
        with _text(table) as lines:
            try:
                yield from csv.reader(_lines(lines, table), dialect)
            except csv.Error as error:
                raise DataError(f"{table} cannot be read: {error}") from error

    rows = cells()
    first = next(rows, [])
    names, left = first, rows
    if (headless := _headless(first)) is not None:
        names, left = headless, chain([first], rows)
    return names, (dict(zip(names, row, strict=False)) for row in left if row)


class _Bare(csv.excel_tab):
    """Cells between tabs, and nothing else: CC3M's captions hold quotes."""

    quoting = csv.QUOTE_NONE


def _headless(first: list[str]) -> list[str] | None:
    """Names for two columns without any, if the first line is a URL and a caption already."""
    urls = [cell.strip().lower().startswith(("http://", "https://")) for cell in first]
    if len(first) != 2 or sum(urls) != 1:
        return None
    return ["url", "caption"] if urls[0] else ["caption", "url"]


def _text(table: Path) -> IO[str]:
    local = here(table)
    file: Any = gzip.GzipFile(local) if file_name(table).endswith(".gz") else local.open("rb")
    return io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")  # spreadsheets put a mark first


def _lines(file: IO[str], table: Path) -> Iterator[str]:
    try:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
            if len(line) == LONGEST_LINE:
                raise DataError(f"{table}, line {number}: {LONGEST_LINE:,} letters and more")
            yield line.replace("\0", "")
    except (OSError, EOFError) as error:
        raise DataError(f"{table} cannot be read: {error}") from error


def _resolved(table: Path, names: Sequence[str], columns: Columns) -> Columns:
    """The columns as a list spells them."""
    spelled = {name.lower(): name for name in reversed(names)}

    def find(told: str, usual: Sequence[str], what: str) -> str:
        wanted = [told] if told else usual
        for name in wanted:
            if name in names or name.lower() in spelled:
                return name if name in names else spelled[name.lower()]
        has = ", ".join(map(str, names)) or "nothing"
        raise ConfigError(f"{table} has no column of {what} ({' or '.join(wanted)}): it has {has}")

    of_hashes = dict.fromkeys(DIGITS_OF, "")
    if set(names) >= FAILURE_COLUMNS:
        of_hashes = {kind: kind for kind in DIGITS_OF}
    of_hashes |= {kind: find(name, (), f"{kind} hashes") for kind, name in columns.hashes.items()}
    return Columns(
        url=find(columns.url, URL_NAMES, "URLs"),
        caption=find(columns.caption, CAPTION_NAMES, "captions"),
        **of_hashes,
    )


def _rows_of(rows: Iterator[Values], columns: Columns) -> Iterator[Row]:
    for values in rows:
        hashes = {kind: _hash(values.get(name)) for kind, name in columns.hashes.items()}
        odd = [kind for kind, found in hashes.items() if found and not _is_hash(found, kind)]
        uid = values.get("uid")  # which any row of .jsonl may have
        yield Row(
            url=str(values.get(columns.url) or "").strip(),
            caption=str(values.get(columns.caption) or ""),
            expected=Expected(**hashes),
            uid=str(uid) if is_uid(uid) else "",
            flaw=f"{odd[0]} is {hashes[odd[0]][:40]!r}, wanted {DIGITS_OF[odd[0]]} hex digits" if odd else "",
        )


def _hash(value: object) -> str:
    return str(value or "").strip().lower()[:MOST_DIGITS]


def _is_hash(text: str, kind: str) -> bool:
    return len(text) == DIGITS_OF[kind] and HEX.fullmatch(text) is not None


def _require_hashes(table: Path, rows: Sequence[Values], kind: str, column: str) -> None:
    """Refuse a column that holds something else: every picture would be thrown away.

    Raises:
        ConfigError: most values are no hashes, or all are the same.
    """
    where = f"column {column!r} of {table}"
    told = [text for values in rows if (text := _hash(values.get(column)))]
    if 2 * len(odd := [text for text in told if not _is_hash(text, kind)]) > len(told):
        raise ConfigError(f"{where} holds {odd[0][:40]!r}, wanted {kind}: {DIGITS_OF[kind]} hex digits")
    if len(told) >= ENOUGH_HASHES and len(set(told)) == 1:
        raise ConfigError(
            f"{where} holds {told[0][:16]}… {len(told)} times over: these are no {kind} of pictures"
        )
