"""Tables and arrays as other runs, or other people, left them: read whole, or refused in one line.

    .parquet ─▶ read_table() ─▶ polars frame
    .npy     ─▶ map_array()  ─▶ numpy array over the file

Nothing in them is ever unpickled, and nothing is allocated because a header says so: an array is mapped, and
must lie whole in its file; a table of more rows than any part has is not begun. Tables are read by pyarrow,
since polars takes a forged length at its word, and the process dies of it. Door to pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError
from roclip_sanitize.storage import here
from roclip_sanitize.told import OTHER_KINDS, one_line

if TYPE_CHECKING:
    import polars

MAGIC = b"\x93NUMPY"
MAX_TABLE_ROWS = 200_000_000


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, schema: Mapping[str, Any] | None = None
) -> polars.DataFrame:
    """Read a table.

    Args:
        path: a parquet file.
        columns: those wanted; None takes all.
        schema: columns that it must have, and of which kind.

    Raises:
        DataError: it is missing, is no parquet, is too long, lacks a column, or has one of another kind.
    """
    import polars
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(here(path)) as file:
            if (rows := file.metadata.num_rows) > MAX_TABLE_ROWS:
                raise DataError(f"{path} says it has {rows:,} rows, at most {MAX_TABLE_ROWS:,}")
            if missing := sorted({*(columns or ()), *(schema or ())} - set(file.schema_arrow.names)):
                raise DataError(f"{path} has no column {missing[0]!r}: an older version wrote it, perhaps")
            table = file.read(columns=columns and list(columns), use_threads=False)
        table.validate(full=True)  # polars does not look whether text is text
        frame = polars.DataFrame(table)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (ArrowException, polars.exceptions.PolarsError, OSError, MemoryError, *OTHER_KINDS) as error:
        raise DataError(f"{path} is not the table that it should be: {one_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, and derived from no Exception
            raise
        raise DataError(f"{path} is not the table that it should be: {one_line(error)}") from error
    _require_schema(frame, polars.Schema(schema or {}), path)
    return frame


def table_columns(path: Path) -> list[str]:
    """The names of a table's columns. Raises DataError as read_table() does."""
    from pyarrow import ArrowException, parquet

    try:
        return list(parquet.read_schema(here(path)).names)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (ArrowException, OSError, MemoryError, *OTHER_KINDS) as error:
        raise DataError(f"{path} is not the table that it should be: {one_line(error)}") from error


def table_batches(path: Path, columns: Sequence[str], *, rows: int) -> Iterator[dict[str, list[Any]]]:
    """A table's values, some rows at a time, by column. For tables of any length.

    Raises:
        DataError: as read_table() does.
    """
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(here(path)) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
                yield batch.to_pydict()
    except (ArrowException, OSError, MemoryError, *OTHER_KINDS) as error:
        raise DataError(f"{path} is not the table that it should be: {one_line(error)}") from error


def _require_schema(frame: polars.DataFrame, schema: polars.Schema, path: Path) -> None:
    if other := [name for name, kind in schema.items() if frame.schema[name] != kind]:
        raise DataError(f"{path} has {other[0]!r} as {frame.schema[other[0]]}, wanted {schema[other[0]]}")


def map_array(path: Path) -> NDArray[Any]:
    """Map a numpy array, read-only.

    Raises:
        DataError: it is missing, is no .npy, holds Python objects, or is shorter than its header says.
    """
    try:
        local = here(path)
        with local.open("rb") as file:
            magic = file.read(len(MAGIC))
        if magic != MAGIC:  # numpy would try a zip, then a pickle
            raise DataError(f"{path} is no .npy: it starts with {magic!r}, wanted {MAGIC!r}")
        mapped: NDArray[Any] = np.load(local, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (OSError, EOFError, SyntaxError, TokenError, *OTHER_KINDS) as error:
        raise DataError(f"{path} is no .npy: {one_line(error)}") from error
    return mapped
