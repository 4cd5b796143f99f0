"""FiftyOne's own format on disk, FiftyOneDataset: what a data set of it declares, and a sample. Pure.

It is that of version 0.23, which later ones bring up to date by themselves: 0.23.8, 0.25.2, 1.0.2 and 1.22.1
were seen to read it. Every sample has every field, lists too where they are empty: older ones cannot ask for
what is in a list that is missing. Fields are declared, since an empty list has no type, and neither has a
score that no pair got.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

FORMAT = "0.23.0"
FIELD = "fiftyone.core.fields."
TEXT, FLAG, NUMBER, COUNT, TEXTS = "StringField", "BooleanField", "FloatField", "IntField", "ListField"
FIELDS: Mapping[str, tuple[str, str]] = {
    "uid": (TEXT, "Name of the pair."),
    "key": (TEXT, "Key in the shard."),
    "shard": (TEXT, "File name of the shard."),
    "label": (TEXT, "Its class, where the scan was told a field of the shards for it."),
    "caption": (TEXT, "What the shard says of the picture."),
    "kept": (FLAG, "Whether the scan keeps the pair."),
    "reasons": (TEXTS, "Why it was set aside; the first counts."),
    "sentence": (TEXT, "The same in words."),
    "suspicion": (NUMBER, "What all detectors say together: orders all pairs, 1 for those that collide."),
    "cross_prediction": (NUMBER, "How little picture and caption tell of each other."),
    "cross_prediction_percentile": (NUMBER, "Share of all pairs of which it says less, in per cent."),
    "agreement": (NUMBER, "How little the captions of similar pictures share with this one."),
    "agreement_percentile": (NUMBER, "Share of all pairs of which it says less, in per cent."),
    "repetition": (NUMBER, "How much pictures like its own have exactly its caption."),
    "word_lift": (NUMBER, "How much oftener than others pairs with its words fail to match."),
    "trace": (NUMBER, "Evidence that its picture has something in common with those that do not match."),
    "trace_word": (TEXT, "The word that those pairs say."),
    "kin": (NUMBER, "How much oftener than chance pairs with pictures much like its own fail to match."),
    "captions_of_picture": (COUNT, "Different captions of this picture, near-copies included."),
    "pictures_of_caption": (COUNT, "Near-identical pictures under this caption."),
    "neighbours": (TEXTS, "Uids of the pairs that speak against it, nearest first."),
    "attack": (TEXT, "Which attack planted the pair, where a ledger says so."),
}
VALUES: Mapping[str, Callable[[Any], Any]] = {
    TEXTS: lambda joined: [one for one in (joined or "").split(";") if one]
}
BUILT_IN: Mapping[str, str] = {
    "id": "ObjectIdField",
    "filepath": TEXT,
    "tags": TEXTS,
    "metadata": "EmbeddedDocumentField",
    "_media_type": TEXT,
    "_rand": NUMBER,
    "_dataset_id": "ObjectIdField",
}
PICTURE_FACTS: Mapping[str, str] = {  # that FiftyOne measures itself: compute_metadata()
    "size_bytes": COUNT,
    "mime_type": TEXT,
    **dict.fromkeys(("width", "height", "num_channels"), COUNT),
}


def sample_of(pair: Mapping[str, Any], *, filepath: str, drawn: bool) -> dict[str, Any]:
    """A pair as FiftyOne has it.

    Args:
        pair: what is known of it by the names of FIELDS, lists joined by ";"; what it lacks is null.
        filepath: of its picture, from the data set's folder.
        drawn: whether it is one of the random ones.
    """
    told = {name: VALUES.get(kind, lambda value: value)(pair.get(name)) for name, (kind, _) in FIELDS.items()}
    side = "kept" if told["kept"] else "quarantined"
    return {
        "filepath": filepath,
        "tags": [side, *told["reasons"], *["drawn"] * drawn],
        "_media_type": "image",
        "_rand": _shuffled_by(told["uid"]),
        **told,
    }


def dataset_document() -> dict[str, Any]:
    """The content of metadata.json. ASCII: some read it in whatever encoding their machine has."""
    told = [_field(name, kind) for name, kind in BUILT_IN.items()]
    told += [_field(name, kind, meaning) for name, (kind, meaning) in FIELDS.items()]
    return {"version": FORMAT, "media_type": "image", "sample_fields": told}


def _field(name: str, kind: str, meaning: str | None = None) -> dict[str, Any]:
    embedded = "fiftyone.core.metadata.ImageMetadata" if name == "metadata" else None
    inner = PICTURE_FACTS.items() if embedded else ()
    return {
        "name": name,
        "ftype": FIELD + kind,
        "subfield": FIELD + TEXT if kind == TEXTS else None,
        "embedded_doc_type": embedded,
        "fields": [_field(each, its_kind) for each, its_kind in inner],
        "db_field": "_id" if name == "id" else name,
        "description": meaning,
        "info": None,
    }


def _shuffled_by(uid: str) -> float:
    """By what FiftyOne shuffles and takes samples, in the range of its own: 0.999 to 1."""
    digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
    return 0.999 + int.from_bytes(digest, "big") / 2**64 / 1_000
