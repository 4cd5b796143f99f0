"""What a training is made of, by content: its pairs, the weights that it starts from, its tables.

All of it may be made anew under its old name: what went on with it would be of both, and what is done
would be taken for a result of the new. See held.py. No torch here: the driver asks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from roclip_sanitize.encoder_facts import MODEL_FILE, OPEN_CLIP, WEIGHTS_FILE, weights_folder
from roclip_sanitize.runfiles import StageFolder, fingerprint, read_told, sha256_of
from roclip_sanitize.sources import missing_sources
from roclip_sanitize.storage import exists, names_in
from roclip_sanitize.training.data import known_content
from roclip_sanitize.training.settings import TrainSettings

WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
ReadShards = Callable[[tuple[Path, ...]], str]


def inputs_of(settings: TrainSettings, *, cache: Path, read: ReadShards) -> dict[str, str]:
    """Everything that the settings name, by what people call it.

    What is gone tells nothing: a finished training is what it was without it.

    Args:
        settings: of the training.
        cache: folder of decoded caches, which tell what shards hold.
        read: tells it of shards that none of them is of.
    """
    named = {"training pairs": settings.shards, "held-out pairs": settings.val_shards}
    told = {
        name: known_content(shards, root=cache) or read(shards)
        for name, shards in named.items()
        if shards and not missing_sources(shards)
    }
    told["pretrained weights"] = _weights_content(settings.pretrained)
    told["matches of the pair table"] = _table_content(settings.pairs)
    told["synonyms"] = _synonyms_content(settings.synonyms)
    return {name: content for name, content in told.items() if content}


def _weights_content(spec: str) -> str:
    """Of a training's folder or a file of weights. A tag of open_clip names its weights for good."""
    if spec.startswith(OPEN_CLIP):
        _, _, weights = spec.partition("/")
        return sha256_of(Path(weights)) if weights and Path(weights).is_file() else ""
    if not spec or (folder := weights_folder(Path(spec))) is None:
        return ""
    return str(read_told(folder / MODEL_FILE).get("digest") or sha256_of(folder / WEIGHTS_FILE))


def _table_content(pairs: Path | None) -> str:
    return StageFolder(pairs).content if pairs and StageFolder(pairs).finished else ""


def _synonyms_content(path: Path | None) -> str:
    """Of a table, or of a folder of WordNet."""
    if path is None:
        return ""
    files = [path / name for name in names_in(path) if name in WORDNET_FILES]
    if not files and exists(path) and not path.is_dir():
        files = [path]
    return fingerprint([sha256_of(file) for file in files]) if files else ""
