"""A copy of an embedding store in which canaries stand in the place of the pairs they were made of."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from roclip_sanitize.errors import MismatchError
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.storage import exists
from roclip_sanitize.store import (
    MODALITIES,
    EmbeddingStore,
    metadata_file,
    vectors_file,
    write_failures,
    write_parquet,
    write_vectors,
)


def store_with(
    store: EmbeddingStore, canaries: EmbeddingStore, *, without: Collection[str], out: Path
) -> Path:
    """Copy a store, and append another's rows.

    Args:
        store: the one to copy.
        canaries: the other, made by the same encoder.
        without: uids that are left out of the copy.
        out: folder of the new store.

    Returns:
        That folder.

    Raises:
        MismatchError: two encoders made them.

    Memory: one part. Disk: the store once more.
    """
    if store.model != canaries.model:
        raise MismatchError(
            f"{canaries.path} was made by model {canaries.model}, and {store.path} by {store.model}: "
            "name the encoder that made it"
        )
    settings = read_json(store.path / "stage.json")["settings"]
    shards = [*store.shards, *canaries.shards]
    told = {**settings, "shards": shards, "canaries": str(canaries.path)}
    folder = StageFolder.create(out, stage="embed", settings=told)
    if folder.finished:
        return out
    for number, part in enumerate(store.parts):
        _copy(folder, store, part.name, name=f"{number:05d}", without=without)
    for number, part in enumerate(canaries.parts, start=len(store.parts)):
        _copy(folder, canaries, part.name, name=f"{number:05d}")
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in folder.markers())
    folder.finish({"tally": tally.to_json()})
    return out


def _copy(
    folder: StageFolder, store: EmbeddingStore, part: str, *, name: str, without: Collection[str] = ()
) -> None:
    if folder.marker(name) is not None:
        return
    import polars

    names = store.metadata(part)
    kept = (~names["uid"].is_in(list(without))).arg_true().to_numpy()
    out, files = folder.path, [metadata_file(folder.path, name)]
    write_parquet(files[0], names.select(polars.all().gather(kept)))
    for modality in MODALITIES:
        if exists(vectors_file(store.path, part, modality)):
            files.append(vectors_file(out, name, modality))
            write_vectors(files[-1], np.asarray(store.vectors(part, modality)[kept]))
    files.append(write_failures(out, name, ()))
    tally = Tally(seen=len(kept))
    folder.commit(name, files=files, facts={"rows": len(kept), "tally": tally.to_json()})
