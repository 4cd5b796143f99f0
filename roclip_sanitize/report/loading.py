"""A run folder ⇄ ReportData: the one place that knows the files of a report.

    results.json    what was measured: one record per arm, attack, metric and seed
    curves.json     the same over training
    manifest.json   what ran: corpus, command, machine, versions, seeds, settings, stages
    gallery.json    chosen pairs with small pictures, written by write_gallery()

Only results.json must be there. Fields that older runs lack are empty, never an error.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from roclip_sanitize.errors import DataError
from roclip_sanitize.report.data import (
    CurvePoint,
    GalleryItem,
    GalleryKind,
    Manifest,
    Neighbour,
    ReportData,
    Result,
    Stage,
)
from roclip_sanitize.runfiles import read_json, write_json
from roclip_sanitize.storage import exists


def load_report_data(run: Path) -> ReportData:
    """Read a run folder.

    Raises:
        DataError: there is no results.json, or a file is not what it should be.
    """
    return ReportData(
        results=tuple(_result(record) for record in _records(run / "results.json")),
        curves=tuple(_curve_point(record) for record in _optional_records(run / "curves.json")),
        manifest=_manifest(run / "manifest.json"),
        gallery=gallery_from_json(_optional_records(run / "gallery.json")),
    )


def write_gallery(run: Path, items: Iterable[GalleryItem]) -> Path:
    """Put chosen pairs beside the results, pictures in base64, for load_report_data() to find."""
    path = run / "gallery.json"
    write_json(path, gallery_to_json(items))
    return path


def gallery_to_json(items: Iterable[GalleryItem]) -> list[dict[str, Any]]:
    """As plain values, pictures in base64."""
    return [_with_text_pictures(asdict(item)) for item in items]


def gallery_from_json(records: Iterable[Mapping[str, Any]]) -> tuple[GalleryItem, ...]:
    """The inverse of gallery_to_json().

    Raises:
        DataError: a record is none of it.
    """
    return tuple(_gallery_item(record) for record in records)


def _with_text_pictures(fields: Mapping[str, Any]) -> dict[str, Any]:
    neighbours = [{**one, "picture": _to_text(one["picture"])} for one in fields["neighbours"]]
    return {**fields, "picture": _to_text(fields["picture"]), "neighbours": neighbours}


def _records(path: Path) -> list[Mapping[str, Any]]:
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{path} holds a {type(found).__name__}, wanted a list of records")
    return found


def _optional_records(path: Path) -> list[Mapping[str, Any]]:
    return _records(path) if exists(path) else []


def _result(record: Mapping[str, Any]) -> Result:
    return Result(
        arm=_required(record, "arm", "results.json"),
        attack=_text(record, "attack") or None,
        metric=_required(record, "metric", "results.json"),
        value=_value(record),
        low=_number(record, "low"),
        high=_number(record, "high"),
        n=_whole(record, "n"),
        seed=_whole(record, "seed"),
    )


def _curve_point(record: Mapping[str, Any]) -> CurvePoint:
    return CurvePoint(
        arm=_required(record, "arm", "curves.json"),
        attack=_text(record, "attack") or None,
        metric=_required(record, "metric", "curves.json"),
        value=_value(record),
        samples=_number(record, "samples") or 0.0,
    )


def _manifest(path: Path) -> Manifest:
    found = read_json(path) if exists(path) else {}
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, wanted an object")
    own = {"title", "corpus", "command", "void", "stages"}
    return Manifest(
        title=_text(found, "title"),
        corpus=_text(found, "corpus"),
        command=_text(found, "command"),
        void=_text(found, "void"),
        facts={name: value for name, value in found.items() if name not in own},
        stages=tuple(_stage(one) for one in found.get("stages") or ()),
    )


def _stage(record: Mapping[str, Any]) -> Stage:
    return Stage(
        name=_text(record, "name"),
        seconds=_number(record, "seconds"),
        peak_memory_bytes=_number(record, "peak_memory_bytes"),
        tally=record.get("tally") or {},
    )


def _gallery_item(record: Mapping[str, Any]) -> GalleryItem:
    kind: Any = record.get("kind")
    if kind not in get_args(GalleryKind):
        raise DataError(f"gallery.json has a pair of kind {kind!r}, wanted one of {get_args(GalleryKind)}")
    neighbours = (
        Neighbour(caption=_text(one, "caption"), picture=_picture(one))
        for one in record.get("neighbours") or ()
    )
    return GalleryItem(
        uid=_text(record, "uid"),
        kind=kind,
        attack=_text(record, "attack"),
        reasons=tuple(str(reason) for reason in record.get("reasons") or ()),
        sentence=_text(record, "sentence"),
        caption=_text(record, "caption"),
        picture=_picture(record),
        neighbours=tuple(neighbours),
    )


def _required(record: Mapping[str, Any], name: str, where: str) -> str:
    if not record.get(name):
        raise DataError(f"{where} has a record without {name!r}: {dict(record)}")
    return str(record[name])


def _value(record: Mapping[str, Any]) -> float:
    value = _number(record, "value")
    return math.nan if value is None else value


def _number(record: Mapping[str, Any], name: str) -> float | None:
    """A finite number, or None: JSON from other tools may say null or NaN."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _whole(record: Mapping[str, Any], name: str) -> int | None:
    value = _number(record, name)
    return None if value is None else int(value)


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else str(value)


def _to_text(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


def _picture(record: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text(record, "picture"), validate=True)
    except binascii.Error as error:
        raise DataError(f"gallery.json has a picture that is not base64: {error}") from error
