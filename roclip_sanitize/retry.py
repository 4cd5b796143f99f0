"""Another try for pairs that failed: ``retry-failed``, after a shard was repaired or a decoder upgraded.

A store's rows are numbered by their place, in the order of their shard. A pair that can be used now
belongs between its neighbours, so it cannot simply be appended: the parts that list failures are
embedded again, whole, and all others stay as they are. A part whose pairs fail as before comes out
as it was, byte for byte.

If the run breaks off, parts that were not reached get their markers back. One that was being
written when the process was killed is completed by the same ``embed`` that made the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roclip_sanitize.embed import EmbedSettings, describe_encoder, embed_shards
from roclip_sanitize.errors import MismatchError, ShardMissing
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.records import Tally
from roclip_sanitize.remote import file_name, signed_again, source_name
from roclip_sanitize.runfiles import Marker, StageFolder, sha256_of
from roclip_sanitize.sources import missing_sources
from roclip_sanitize.storage import exists, remove
from roclip_sanitize.store import EmbeddingStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What another try made of one part.

    Attributes:
        part: its name.
        shard: what it was made from.
        rows: before and after.
        failed: pairs, before and after.
    """

    part: str
    shard: str
    rows: tuple[int, int]
    failed: tuple[int, int]

    def line(self) -> str:
        """The change in words."""
        return (
            f"{self.part}  {self.shard}: rows {self.rows[0]:,} → {self.rows[1]:,}, "
            f"failed {self.failed[0]:,} → {self.failed[1]:,}"
        )


def retry_failed(store: Path, *, executor: Executor, threads: int = 0) -> tuple[Tally, list[Change]]:
    """Embed again the parts of a finished store that list failures.

    Returns:
        The tally of the whole store, and what became of each part tried, in order.

    Raises:
        DataError: there is no store.
        MismatchError: it is unfinished, was adopted, or its encoder is not what it was.
        ShardMissing: a shard that is to be read again is gone; nothing was changed.
    """
    folder = StageFolder.open(store, stage="embed")
    before = {marker.name: marker for marker in folder.markers() if _failed(marker)}
    if not before:
        return _whole(folder), []
    if adopted := folder.settings.get("adopted"):
        raise MismatchError(
            f"{store} was not embedded, but adopted of {adopted}: once that or the shards are whole, adopt "
            "it again in another folder"
        )
    settings = _settings_of(folder.settings, threads=threads)
    settings = replace(settings, shards=tuple(map(Path, EmbeddingStore(folder).shards)))
    shards = {name: settings.shards[int(name)] for name in before}
    for shard in missing_sources(list(shards.values())):
        raise ShardMissing(f"shard {source_name(shard)} does not exist: nothing was changed")
    _require_same_encoder(folder, settings, executor)
    _withdraw(folder, before)
    try:
        tally = embed_shards(settings, out=store, executor=executor)
    except BaseException:
        _restore(folder, before)
        raise
    after = {marker.name: marker for marker in folder.markers()}
    changes = [
        Change(
            part=name,
            shard=file_name(shards[name]),
            rows=(old.facts["rows"], after[name].facts["rows"]),
            failed=(_failed(old), _failed(after[name])),
        )
        for name, old in before.items()
    ]
    return tally, changes


def _settings_of(settings: Mapping[str, Any], *, threads: int) -> EmbedSettings:
    """The settings that a store was made with."""
    return EmbedSettings(
        shards=tuple(signed_again(Path(path)) for path in settings["shards"]),
        encoder=settings["encoder"]["name"],
        batch_size=settings["batch_size"],
        seed=settings["seed"],
        decode=settings.get("decode", "exact"),
        towers=settings.get("towers", "both"),
        precision=settings.get("precision", "auto"),
        compiled=settings.get("compiled", False),
        threads=threads,
    )


def _require_same_encoder(folder: StageFolder, settings: EmbedSettings, executor: Executor) -> None:
    """Before anything is withdrawn: with another encoder it could not be made again."""
    was, now = folder.settings["encoder"], describe_encoder(settings, executor).to_json()
    if was != now:
        raise MismatchError(
            f"{folder.path} was made by {was['name']} with weights {was['digest']}, which are now "
            f"{now['digest']}: nothing was changed"
        )


def _withdraw(folder: StageFolder, markers: Mapping[str, Marker]) -> None:
    """Readers refuse the store from here on, until it is complete again."""
    remove(folder.path / "complete.json")
    for name in markers:
        remove(folder.path / "done" / f"{name}.json")


def _restore(folder: StageFolder, markers: Mapping[str, Marker]) -> None:
    """Give parts that are still whole their markers back, and the store its end if they all are."""
    for name, marker in markers.items():
        if folder.marker(name) is None and _untouched(folder, marker):
            folder.commit(name, files=[folder.path / file for file in marker.files], facts=marker.facts)
    if all(folder.marker(name) for name in markers):
        folder.finish({"tally": _whole(folder).to_json(), "encoder": folder.settings["encoder"]})


def _untouched(folder: StageFolder, marker: Marker) -> bool:
    files = {folder.path / file: digest for file, digest in marker.files.items()}
    return all(exists(path) and sha256_of(path) == digest for path, digest in files.items())


def _whole(folder: StageFolder) -> Tally:
    return Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())


def _failed(marker: Marker) -> int:
    return Tally.from_json(marker.facts["tally"]).failed.total()
