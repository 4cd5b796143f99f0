"""How results reach the disk: whole or not at all, and provably done.

A stage writes into one folder:

    stage.json            what the folder was made with: stage, settings, inputs, format version
    done/00000.json       one completion marker per shard, written last: files, hashes, tally
    failures/…            pairs that could not be used, by shard
    …                     the stage's own files, named after the shard

The marker is what counts. Files without one are leftovers of a killed run and are written
again; files with one are never touched. So the same command again does no work, and after a
kill it does only what is missing, with the same bytes.

A folder may be behind a URL, see storage.py: an object store has no renames, but a marker stands for one. Two
drivers at one folder, here or there, end with the same bytes; commands keep to one, see cli/alone.py.

This module knows files, not pairs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from roclip_sanitize.errors import DataError, MismatchError
from roclip_sanitize.redaction import unsigned
from roclip_sanitize.remote import is_url
from roclip_sanitize.storage import atomic_file, exists, folders_in, here, names_in, storage_errors
from roclip_sanitize.told import Told

FORMAT_VERSION = 1
HASH_BLOCK_BYTES, MAX_JSON_BYTES = 1 << 20, 256 << 20
STAGE_FILE, RUN_FILE, EVENTS_FILE, LOCK_FILE = "stage.json", "run.toml", "events.jsonl", ".roclip.lock"
RECORDS = frozenset({RUN_FILE, EVENTS_FILE, LOCK_FILE})  # of runs: no two that make the same have the same


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: sorted keys, so that equal values are equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON written by write_json().

    Raises:
        DataError: the file is missing, is not JSON, or is larger than any that was written.
    """
    try:
        local = here(path)
        if (size := local.stat().st_size) > MAX_JSON_BYTES:
            raise DataError(f"{path} has {size:,} bytes, at most {MAX_JSON_BYTES:,}")
        return json.loads(local.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def read_told(path: Path) -> Told:
    """Read a JSON file of names with values. Raises DataError as read_json() and Told do."""
    return Told(read_json(path), where=str(path))


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with here(path).open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(value: object) -> str:
    """Sixteen hex digits that name a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Proof that one shard of a stage is done.

    Attributes:
        name: the shard's name in this stage, five digits or more.
        files: path relative to the stage folder → sha256 of its bytes.
        facts: what the stage says of the shard: rows, tally, widths; JSON-able.
    """

    name: str
    files: Mapping[str, str]
    facts: Mapping[str, Any]


class StageFolder:
    """One stage's folder: what it was made with, and which of its shards are done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: Path, *, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str] | None = None
    ) -> StageFolder:
        """Open the folder for writing, making it if need be.

        Args:
            path: the folder.
            stage: the command that fills it.
            settings: everything that decides its bytes, inputs included; JSON-able.
            inputs: what each of them holds, by what people call it, for those whose names do not tell. A
                folder that says nothing of one, since it is older, is taken as it is.

        Raises:
            MismatchError: it was made by another stage, or holds what was made with other settings or of
                other inputs.
        """
        folder = cls(path)
        told = {"stage": stage, "format": FORMAT_VERSION, "settings": settings}
        wanted = unsigned(json.loads(json.dumps(told)))
        found = read_told(path / STAGE_FILE) if exists(path / STAGE_FILE) else {}
        fresh = not found or (found.get("stage") == stage and _is_bare(path))
        if not fresh:
            _require_same(path, found={**found, "inputs": 0}, wanted={**wanted, "inputs": 0})
        held = {} if fresh else folder.inputs
        for name, content in (inputs or {}).items():
            if held.setdefault(name, content) != content:
                raise MismatchError(
                    f"{path} was made of other {name} than are there now: choose another folder or remove it"
                )
        wanted |= {"inputs": held} if held else {}
        if found != wanted and not folder.finished:  # what is finished says no more than it did
            write_json(path / STAGE_FILE, wanted)
        return folder

    @classmethod
    def open(cls, path: Path, *, stage: str) -> StageFolder:
        """Open a finished folder for reading.

        Raises:
            DataError: there is no such folder.
            MismatchError: it was made by another stage, or never finished.
        """
        if not exists(path / "stage.json"):
            raise DataError(f"{path} is no folder made by 'roclip {stage}': it has no stage.json")
        found = read_told(path / "stage.json")
        if found["stage"] != stage:
            raise MismatchError(f"{path} was made by 'roclip {found['stage']}', wanted 'roclip {stage}'")
        if not exists(path / "complete.json"):
            raise MismatchError(f"{path} is unfinished: run 'roclip {stage}' again to complete it")
        return cls(path)

    @property
    def settings(self) -> dict[str, Any]:
        """What the folder was made with."""
        return Told(read_told(self.path / "stage.json")["settings"], where=f"settings of {self.path}")

    @property
    def inputs(self) -> dict[str, str]:
        """What it was made of, by content; nothing of what an older version made."""
        held = read_told(self.path / STAGE_FILE).get("inputs", {})
        return Told(held, where=f"inputs of {self.path}")

    def marker(self, name: str) -> Marker | None:
        """The completion marker of one shard, or None while it is not done."""
        path = self.marker_file(name)
        try:
            here(path).stat()
        except FileNotFoundError:
            return None
        told = read_told(path)
        files, facts = (Told(told[name], where=f"{name} in {path}") for name in ("files", "facts"))
        if outside := [
            file for file in files if PurePath(file).is_absolute() or ".." in PurePath(file).parts
        ]:
            raise DataError(f"{path} names a file outside its folder: {outside[0]}")
        return Marker(name=name, files=files, facts=facts)

    def markers(self) -> list[Marker]:
        """All completion markers, in the order of their names; ordinals of any length as numbers."""
        names = [
            name.removesuffix(".json") for name in names_in(self.path / "done") if name.endswith(".json")
        ]
        in_order = sorted(names, key=lambda name: (len(name), name))  # 100000 comes after 99999
        return [marker for name in in_order if (marker := self.marker(name)) is not None]

    @property
    def content(self) -> str:
        """Names what the folder holds, whatever it is called: sixteen hex digits of all its files' hashes."""
        return fingerprint({marker.name: dict(marker.files) for marker in self.markers()})

    def commit(self, name: str, *, files: Sequence[Path], facts: Mapping[str, Any]) -> Marker:
        """Declare one shard done. Call it last, from the worker that wrote the files.

        Raises:
            StorageError: the files cannot be read back, or the marker cannot be written.
        """
        hashes = dict[str, str]()
        for path in files:
            with storage_errors(path):
                hashes[path.relative_to(self.path).as_posix()] = sha256_of(path)
        for folder in {path.parent for path in files}:
            _flush_names(folder)
        return self.declare(Marker(name=name, files=hashes, facts=facts))

    def declare(self, marker: Marker) -> Marker:
        """Write a marker down; its files are known to be what it says."""
        marker = replace(marker, facts=unsigned(dict(marker.facts)))
        write_json(self.marker_file(marker.name), {"files": dict(marker.files), "facts": marker.facts})
        return marker

    def marker_file(self, name: str) -> Path:
        """Where the completion marker of one shard lies."""
        return self.path / "done" / f"{name}.json"

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Declare the whole stage done. Readers refuse a folder without this."""
        if not is_url(self.path):
            for leftover in self.path.rglob(".*.part"):  # of writers that were killed
                leftover.unlink(missing_ok=True)
        write_json(self.path / "complete.json", facts)

    @property
    def finished(self) -> bool:
        """Whether the stage was declared done."""
        return exists(self.path / "complete.json")

    @property
    def facts(self) -> dict[str, Any]:
        """What finish() declared."""
        return read_told(self.path / "complete.json")

    def verify(self) -> None:
        """Compare every file with its marker.

        Raises:
            MismatchError: a file is missing or its bytes changed since it was declared done.
        """
        for marker in self.markers():
            for name, digest in marker.files.items():
                path = self.path / name
                if os.path.isdir(path) or not exists(path):
                    raise MismatchError(f"{path} is missing, though its shard is marked done")
                if sha256_of(path) != digest:
                    raise MismatchError(f"{path} has changed since it was written")


def _flush_names(folder: Path) -> None:
    """Bring a folder's names to the device, so that no power cut leaves a marker without its files."""
    if is_url(folder):
        return
    with storage_errors(folder):
        try:
            handle = os.open(folder, os.O_RDONLY)
        except PermissionError:
            return  # Windows, which opens no folders
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_bare(path: Path) -> bool:
    """Whether a stage has made nothing in its folder yet, so that other settings may have it.

    Markers alone would not tell: plans and checkpoints, which a run goes on from, come before any. Folders of
    stages within compare settings of their own.
    """
    names = {name for name in names_in(path) if not name.endswith(".part")} - RECORDS - {STAGE_FILE}
    return not names - set(folders_in(path)) and all(_is_of_stages(path / name) for name in names)


def _is_of_stages(folder: Path) -> bool:
    """Whether all that is in a folder is a stage's that has one of its own there, or there is nothing."""
    if exists(folder / STAGE_FILE):
        return True
    folders = folders_in(folder)
    return set(names_in(folder)) == set(folders) and all(_is_of_stages(folder / name) for name in folders)


def _require_same(path: Path, *, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if unsigned(found) == wanted:  # earlier versions wrote down how URLs were signed
        return
    if found.get("stage") != wanted["stage"]:
        raise MismatchError(f"{path} was made by 'roclip {found.get('stage')}': choose another folder")
    have, want = Told(found.get("settings", {}), where=f"settings in {path}"), wanted["settings"]
    names = sorted(set(have) | set(want))
    differing = [
        f"{name} was {have.get(name)!r}, now {want.get(name)!r}"
        for name in names
        if have.get(name) != want.get(name)
    ]
    what = "; ".join(differing) or f"format was {found.get('format')}, now {wanted['format']}"
    raise MismatchError(f"{path} was made with other settings ({what}): choose another folder or remove it")
