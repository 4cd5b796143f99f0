"""A folder of whole files, on a file system or behind a URL: where checkpoints lie.

What was damaged later shows only to those who compare a digest, so that whoever writes here notes one in a
second, small file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from roclip_sanitize.remote import is_url
from roclip_sanitize.sources import Bytes, open_source
from roclip_sanitize.storage import atomic_file, in_words_of_storage, names_in, remove


class Place:
    """A folder that may be a URL, as a Path; see sources.source_path().

    Whatever is asked of a store is asked again when it fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """Of all files in the folder; none where there is no such folder."""
        return set(names_in(self.path))

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that is there once the block ends well, and else is not.

        Raises:
            StorageError: the disk is full or refuses, or the store keeps failing.
        """
        with atomic_file(self.path / name) as file:
            yield file

    @contextmanager
    def reading(self, name: str) -> Iterator[Bytes]:
        """All bytes of a file, while the block lasts.

        Raises:
            ShardMissing: there is none of that name.
            StorageError: it cannot be read.
        """
        path = self.path / name
        with in_words_of_storage(path, "read"), open_source(path) as source:
            yield source.data

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        remove(self.path / name)

    def leave(self) -> None:
        """Remove the folder, if nothing is left in it. Stores have none."""
        if not is_url(self.path):
            with suppress(OSError):
                self.path.rmdir()
