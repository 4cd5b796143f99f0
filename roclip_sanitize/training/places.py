"""A folder of whole files, on a file system or behind a URL: where checkpoints lie.

On a file system a file gets its name when it is whole. A store has no rename, and some keep the first half
of an upload that broke off: there a file is made here, sent, and its size asked for. What was damaged later
shows only to those who compare a digest, so that whoever writes here notes one in a second, small file.

Reading, and being patient with stores, is sources.py's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from roclip_sanitize.errors import ShardMissing, ShardUnreadable, StorageError
from roclip_sanitize.runfiles import atomic_file, is_url, storage_errors
from roclip_sanitize.sources import Bytes, file_system, open_source, patiently, source_name


class ShortWrite(OSError):
    """A store kept less than it was sent."""


class Place:
    """A folder that may be a URL, as a Path; see sources.source_path().

    Whatever is asked of a store is asked again when it fails.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._remote = path, is_url(path)

    def names(self) -> set[str]:
        """Of all files in the folder; none where there is no such folder."""
        if not self._remote:
            return {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        system, name = file_system(self.path)
        system.invalidate_cache(name)
        with _in_words_of_storage(self.path, "listed"):
            try:
                found = patiently(self.path, system.ls, name, detail=False)
            except ShardMissing:
                return set()
        return {each.rpartition("/")[2] for each in found}

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that is there once the block ends well, and else is not.

        Raises:
            StorageError: the disk is full or refuses, or the store keeps failing.
        """
        path = self.path / name
        if not self._remote:
            with atomic_file(path) as file:
                yield file
            return
        with storage_errors(Path(tempfile.gettempdir())), tempfile.NamedTemporaryFile() as copy:
            yield copy
            copy.flush()
            with _in_words_of_storage(path, "written"):
                patiently(path, _send, copy.name, path, copy.tell())

    @contextmanager
    def reading(self, name: str) -> Iterator[Bytes]:
        """All bytes of a file, while the block lasts.

        Raises:
            ShardMissing: there is none of that name.
            StorageError: it cannot be read.
        """
        path = self.path / name
        with _in_words_of_storage(path, "read"), open_source(path) as source:
            yield source.data

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        path = self.path / name
        if not self._remote:
            with storage_errors(path):
                path.unlink(missing_ok=True)
            return
        system, inside = file_system(path)
        with _in_words_of_storage(path, "removed"), suppress(ShardMissing):
            patiently(path, system.rm_file, inside)

    def leave(self) -> None:
        """Remove the folder, if nothing is left in it. Stores have none."""
        if not self._remote:
            with suppress(OSError):
                self.path.rmdir()


def _send(local: str, path: Path, size: int) -> None:
    system, name = file_system(path)
    system.put_file(local, name)
    system.invalidate_cache(name.rpartition("/")[0])
    if (kept := system.info(name)["size"]) != size:
        raise ShortWrite(f"{kept:,} of {size:,} bytes were kept")


@contextmanager
def _in_words_of_storage(path: Path, deed: str) -> Iterator[None]:
    """What sources.py says of shards, said of any file; that one is missing is left to the caller."""
    try:
        yield
    except (ShardMissing, ShardUnreadable) as error:
        if isinstance(error, ShardMissing) and deed != "written":
            raise
        why = " ".join(str(error.__cause__ or error).split())
        raise StorageError(
            f"{source_name(path)} could not be {deed} ({why}): run again once its storage answers"
        ) from error
