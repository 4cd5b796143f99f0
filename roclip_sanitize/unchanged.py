"""Whether shards still hold what was embedded of them: looked at from outside, read again where in doubt.

Shards are written anew under old names, but nobody reads terabytes again to hear that a store is done. So
each part's marker notes its shard's size, its digest if its store tells one, and a hash of a few blocks of it
if it lies on a disk. In doubt is a shard

    whose size or digest is another,
    that has no digest and was written since the marker was, or
    that was moved or copied to its place since then, and has other blocks.

What is in doubt is read again and held against the names, captions and hashes of its part. If it says the
same, the marker notes how it looks now. No note says when anything was: times are those of the files.

What this cannot see: other bytes of the same size whose time is older than the marker's, if none of the few
blocks differs; what was written before the markers themselves were copied, and has as many bytes; and what is
behind URLs that tell neither digests nor times, if it has as many bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

from roclip_sanitize.embed_parts import SHARD_KEY
from roclip_sanitize.errors import MismatchError, ShardMissing
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Tally
from roclip_sanitize.remote import DIGEST_FIELDS, TIME_FIELDS, file_system, is_url, patiently, source_name
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.shards import Shard, ShardTask
from roclip_sanitize.sources import UNLISTED
from roclip_sanitize.splitting import known_pairs
from roclip_sanitize.store import EmbeddingStore

BLOCKS, BLOCK_BYTES = 16, 4096  # spread over a file: one that is a little longer somewhere differs behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a file looks like from outside.

    Attributes:
        path: where it lies.
        size: in bytes.
        digests: what its store calls these bytes, by the store's own words; {} where it does not tell.
        written: when its bytes were written, in seconds since 1970; 0 where nobody tells.
        placed: when it was put where it is, which copies do not keep; the same where nobody tells.
    """

    path: Path
    size: int
    digests: Mapping[str, str]
    written: float
    placed: float

    def note(self) -> dict[str, Any]:
        """What a marker notes: the same on every machine."""
        blocks = {} if is_url(self.path) else {"blocks": _blocks(self.path)}
        return {"bytes": self.size, **self.digests, **blocks}

    def seems(self, noted: Mapping[str, Any], *, since: float) -> bool:
        """Whether it is what was noted.

        Args:
            noted: what note() said.
            since: when that was written down; 0 where nobody tells.
        """
        if self.size != noted["bytes"]:
            return False
        if shared := self.digests.keys() & noted.keys():  # lists tell fewer than single files, or more
            return any(self.digests[name] == noted[name] for name in shared)
        if not since or self.placed < since:
            return True
        return self.written < since and self.note() == noted


def look_at(path: Path, retries: Counter[str] | None = None) -> Look:
    """Look at one file.

    Args:
        path: where it lies.
        retries: counts what its store is asked again for, by kind of failure.

    Raises:
        ShardMissing: it does not exist.
        ShardUnreadable: its store does not answer.
    """
    if is_url(path):
        system, name = file_system(path)
        system.invalidate_cache(name.rpartition("/")[0])
        return _told(path, patiently(path, system.info, name, retries=retries))
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ShardMissing(f"shard {path} does not exist") from error
    placed = max(found.st_mtime, found.st_ctime)
    return Look(path=path, size=found.st_size, digests={}, written=found.st_mtime, placed=placed)


def looks_at(paths: Sequence[Path]) -> dict[Path, Look]:
    """Look at many files: those that exist. Behind URLs each folder is listed once, if its protocol lists.

    Raises:
        ShardUnreadable: a store does not answer.
    """
    listed = {path for path in paths if is_url(path) and not source_name(path).startswith(UNLISTED)}
    told = {folder: _listed(folder) for folder in {path.parent for path in listed}}
    found = {
        path: _told(path, told[path.parent][path.name]) for path in listed if path.name in told[path.parent]
    }
    for path in paths:
        if path not in listed:
            with suppress(ShardMissing):
                found[path] = look_at(path)
    return found


def tasks_left(folder: StageFolder, tasks: Sequence[ShardTask], *, executor: Executor) -> list[ShardTask]:
    """Shards that are to be embedded yet; those that are done must hold what was embedded of them.

    One that is gone tells nothing, and a part that notes nothing of its shard, since it is older, is taken
    as it is.

    Args:
        folder: the store, finished or not.
        tasks: its shards.
        executor: where shards in doubt are read.

    Raises:
        MismatchError: names the first of them.
        ShardUnreadable: a store does not answer.
    """
    done = {marker.name: marker for marker in folder.markers()}
    noted = [task for task in tasks if task.name in done and SHARD_KEY in done[task.name].facts]
    doubtful, changed = _doubtful(folder, noted, done), list[ShardTask]()
    for task, note in zip(doubtful, executor.map(partial(_Reader, folder.path), doubtful), strict=True):
        if note is None:
            changed.append(task)
        else:
            marker = done[task.name]
            folder.declare(replace(marker, facts={**marker.facts, SHARD_KEY: note}))
    if changed:
        raise MismatchError(_refusal(folder, changed, done))
    return [task for task in tasks if task.name not in done]


def _doubtful(folder: StageFolder, tasks: Sequence[ShardTask], done: Mapping[str, Marker]) -> list[ShardTask]:
    notes = {task.name: folder.marker_file(task.name) for task in tasks}
    now = looks_at([*(task.path for task in tasks), *notes.values()])
    found = list[ShardTask]()
    for task in tasks:
        since = now[notes[task.name]].written if notes[task.name] in now else 0.0
        if task.path in now and not now[task.path].seems(done[task.name].facts[SHARD_KEY], since=since):
            found.append(task)
    return found


def _refusal(folder: StageFolder, changed: Sequence[ShardTask], done: Mapping[str, Marker]) -> str:
    first, more = changed[0], f" ({len(changed)} shards do)" if len(changed) > 1 else ""
    failed = Tally.from_json(done[first.name].facts["tally"]).failed
    mended = f"; if failed pairs were mended, run 'roclip retry-failed {folder.path}'" if failed else ""
    return (
        f"{source_name(first.path)} holds other pairs than {folder.path} was made of{more}: "
        f"choose another folder or remove it{mended}"
    )


class _Reader:
    """Reads one shard after the other again: what to note of it now, or None where it holds other pairs."""

    def __init__(self, store: Path) -> None:
        self._store = EmbeddingStore(StageFolder(store))  # it may be unfinished

    def __call__(self, task: ShardTask) -> dict[str, Any] | None:
        note, known = look_at(task.path).note(), known_pairs(self._store, task.name)
        order, left = iter(known.items()), 0
        with Shard(task.path) as shard:
            for pair in shard.pairs():
                if pair.key not in known:  # its picture could not be decoded
                    left += 1
                    continue
                key, expected = next(order)
                if (key, expected.uid) != (pair.key, pair.uid) or expected.changed_half(pair):
                    return None
            left += len(shard.failures)
        complete = next(order, None) is None and left == len(self._store.failures(task.name))
        return note if complete else None


def _blocks(path: Path) -> str:
    """Hash of a few blocks, spread evenly; "" where they cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb", buffering=0) as file:
            last = max(0, file.seek(0, 2) - BLOCK_BYTES)
            for number in range(BLOCKS):
                file.seek(last * number // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    except OSError:
        return ""  # whoever reads the shard says why
    return digest.hexdigest()


def _told(path: Path, facts: Mapping[str, Any]) -> Look:
    """What a store says of a file."""
    digests = {
        name.lower(): str(value).strip('"')
        for name, value in facts.items()
        if name.lower() in DIGEST_FIELDS and value
    }
    when = max((_seconds(value) for name, value in facts.items() if name.lower() in TIME_FIELDS), default=0.0)
    return Look(path=path, size=int(facts.get("size") or 0), digests=digests, written=when, placed=when)


def _seconds(value: object) -> float:
    """Seconds since 1970, in whatever words a store says them; 0 where it makes no sense."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = parsedate_to_datetime(value)  # as web servers say it
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else 0.0


def _listed(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What a store says of all that lies in a folder, by name."""
    system, name = file_system(folder)
    system.invalidate_cache(name)
    try:
        found = patiently(folder, system.ls, name, detail=True)
    except ShardMissing:
        return {}
    return {each["name"].rstrip("/").rpartition("/")[2]: each for each in found}
