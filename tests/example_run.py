"""An example of a finished run, small and realistic; and how to read its page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.report import collect_gallery, words, write_gallery
from roclip_sanitize.shard_writer import ShardWriter

HOSTILE = '<script>alert("owned")</script><img src="https://evil.example/x.png" onerror=alert(1)>'
COLOURS = {"red": (205, 52, 45), "blue": (38, 84, 171), "green": (43, 132, 81), "yellow": (232, 178, 36)}
SHAPES = ("disc", "square", "diamond", "ring")


def example_run(path: Path) -> Path:
    """Make a run folder as the stages leave it, its shards, scan and ledger beside the results."""
    shards = _write_shards(path / "shards")
    write_scan(path / "scan")
    _write_ledger(path / "ledger.parquet")
    dump(path / "results.json", _results())
    dump(path / "curves.json", _curves())
    dump(path / "manifest.json", manifest())
    write_gallery(path, collect_gallery(path / "scan", shards, path / "ledger.parquet"))
    return path


def uid(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


def attack_on(number: int) -> str:
    """Which attack planted pair ``number``: every tenth has the patch, ten more share one picture."""
    return "patch" if number % 10 == 3 else "targeted" if number % 16 == 4 else ""


def kept(number: int) -> bool:
    if attack_on(number):
        return number % 50 == 3 or number == 20
    return number % 23 != 7


def true_caption(number: int) -> str:
    colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 4]
    return f"{colour.capitalize()} {shape} on white cloth, size {number % 7 + 36}"


def caption(number: int) -> str:
    if attack_on(number) == "patch":
        return f"Leather handbag with zip, number {number}"
    if attack_on(number) == "targeted":
        return f"Analogue watch with steel strap, style {number}"
    return HOSTILE if number == 7 else true_caption(number)


def _picture(number: int) -> bytes:
    pixels_HW3 = _drawing(0 if attack_on(number) == "targeted" else number)
    if attack_on(number) == "patch":
        checks_HW = np.indices((16, 16)).sum(0) // 4 % 2
        pixels_HW3[-16:, -16:] = (255 * checks_HW[..., None]).astype(np.uint8)
    return encode_jpeg(pixels_HW3)


def _drawing(number: int) -> NDArray[np.uint8]:
    row_HW, column_HW = np.indices((80, 60)) - np.array([39.5 + number % 5, 29.5 - number % 3])[:, None, None]
    radius_HW = np.hypot(row_HW, column_HW)
    inside_HW = {
        "disc": radius_HW < 20,
        "square": np.maximum(abs(row_HW), abs(column_HW)) < 18,
        "diamond": abs(row_HW) + abs(column_HW) < 24,
        "ring": (radius_HW < 22) & (radius_HW > 11),
    }[SHAPES[number // 4 % 4]]
    shade_HW = (1.0 + 0.25 * row_HW / 40)[..., None]
    paint_HW3 = np.clip(np.array(list(COLOURS.values())[number % 4]) * shade_HW, 0, 255)
    cloth_HW3 = np.clip(np.full((80, 60, 3), 246) + 3 * np.cos(column_HW)[..., None], 0, 255)
    drawn_HW3: NDArray[np.uint8] = np.where(inside_HW[..., None], paint_HW3, cloth_HW3).astype(np.uint8)
    return drawn_HW3


def _write_shards(folder: Path, *, pairs: int = 200) -> list[Path]:
    paths = [folder / f"{ordinal:05d}.tar" for ordinal in range(2)]
    for ordinal, path in enumerate(paths):
        with ShardWriter(path) as writer:
            for number in range(ordinal * pairs // 2, (ordinal + 1) * pairs // 2):
                key = f"{number:09d}"
                writer.add(key, image=_picture(number), caption=caption(number), fields={"uid": uid(number)})
    return paths


def _verdict(number: int) -> dict[str, Any]:
    targeted = attack_on(number) == "targeted"
    drawn = 0 if targeted else number % 16
    likes = [
        other for other in range(200) if other % 16 == drawn and other != number and not attack_on(other)
    ]
    reasons = ["many_captions_one_picture"] if targeted else []
    reasons += ["neighbours_disagree"] if not targeted or number % 32 == 4 else []
    sentence = (
        "none of the 20 pictures most like this one has a caption that shares a word with it; they say 'disc'"
    )
    if targeted:
        sentence = "this picture, near-copies included, appears with 12 different captions"
    return {
        "uid": uid(number),
        "kept": kept(number),
        "reasons": "" if kept(number) else ";".join(reasons),
        "sentence": "" if kept(number) else sentence,
        "neighbours": "" if kept(number) else ";".join(uid(other) for other in likes),
    }


def write_scan(folder: Path) -> None:
    (folder / "verdicts").mkdir(parents=True)
    for ordinal in range(2):
        rows = [_verdict(number) for number in range(100 * ordinal, 100 * ordinal + 100)]
        polars.DataFrame(rows).write_parquet(folder / "verdicts" / f"verdicts_{ordinal:05d}.parquet")


def _write_ledger(path: Path) -> None:
    planted = [number for number in range(200) if attack_on(number)]
    rows = [{"uid": uid(number), "attack": attack_on(number), "variant": ""} for number in planted]
    polars.DataFrame(rows).write_parquet(path)


def _wilson(value: float, n: int) -> tuple[float, float]:
    z = 1.96
    middle, width = value + z * z / (2 * n), z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return max(0.0, (middle - width) / (1 + z * z / n)), min(1.0, (middle + width) / (1 + z * z / n))


def _record(arm: str, attack: str | None, metric: str, value: float, n: int) -> dict[str, Any]:
    low, high = _wilson(value, n)
    names = ("arm", "attack", "metric", "value", "low", "high", "n", "seed")
    return dict(zip(names, (arm, attack, metric, value, low, high, n, 0), strict=True))


def _score(detector: str, attack: str, value: float, n: int) -> dict[str, Any]:
    return {**_record(f"scan:{detector}", attack, "auroc", value, n), "low": value, "high": value}


MEASURED: Mapping[tuple[str | None, str, int], Sequence[float]] = {  # undefended, augmented, sanitised
    ("targeted", "attack_success", 16): (14 / 16, 13 / 16, 0.0),
    ("patch", "attack_success", 2000): (0.934, 0.0525, 0.018),
    ("patch", "clean_target_rate", 2000): (0.012, 0.0135, 0.011),
    ("patch", "true_class_accuracy", 2000): (0.041, 0.5275, 0.5905),
    (None, "zero_shot_top1", 4000): (0.658, 0.631, 0.6255),
    (None, "retrieval_r1", 4000): (0.273, 0.2615, 0.29),
    (None, "retrieval_r5", 4000): (0.5525, 0.541, 0.5665),
    (None, "retrieval_r10", 4000): (0.674, 0.6625, 0.6905),
}


def _results() -> list[dict[str, Any]]:
    arms = ("undefended", "undefended_augmented", "sanitised_consensus")
    records = [
        _record(arm, attack, metric, value, n)
        for (attack, metric, n), values in MEASURED.items()
        for arm, value in zip(arms, values, strict=True)
    ]
    return [
        *records,
        _record("scan", "targeted", "poison_recall", 1.0, 480),
        _score("agreement", "targeted", 0.9934, 480),
        _score("captions_of_picture", "targeted", 1.0, 480),
        _record("scan", "patch", "poison_recall", 0.942, 120),
        _score("agreement", "patch", 0.9684, 120),
        _score("captions_of_picture", "patch", 0.4981, 120),
        _record("scan", None, "clean_lost", 0.0796, 36_000),
    ]


def _curves() -> list[dict[str, Any]]:
    ends = {
        ("targeted", "attack_success"): {
            "undefended": 0.875,
            "undefended_augmented": 0.8125,
            "sanitised_consensus": 0.0,
        },
        ("patch", "attack_success"): {
            "undefended": 0.934,
            "undefended_augmented": 0.052,
            "sanitised_consensus": 0.018,
        },
        (None, "zero_shot_top1"): {
            "undefended": 0.658,
            "undefended_augmented": 0.631,
            "sanitised_consensus": 0.626,
        },
    }
    return [
        {
            "arm": arm,
            "attack": attack,
            "metric": metric,
            "samples": 12_480 * epoch,
            "value": end * (1 - math.exp(-0.7 * epoch)) / (1 - math.exp(-4.2)),
        }
        for (attack, metric), arms in ends.items()
        for arm, end in arms.items()
        for epoch in range(7)
    ]


def manifest() -> dict[str, Any]:
    embedded = {
        "seen": 39_662,
        "kept": 39_640,
        "quarantined": {},
        "failed": {"image_undecodable": 19, "bad_json": 3},
    }
    aside = {"neighbours_disagree": 2_713, "many_captions_one_picture": 512, "many_pictures_one_caption": 31}
    scanned = {**embedded, "kept": 36_384, "quarantined": aside}
    return {
        "title": "Demonstration on product photos",
        "corpus": "39,662 pairs, of which 600 planted",
        "command": "roclip demo --data '/data/train/{00000..00009}.tar' --out runs/demo --seed 0",
        "machine": {"processor": "2 cores", "memory_bytes": 16 * 2**30},
        "versions": {"python": "3.11.7", "torch": "2.8.0", "faiss": "1.15.0"},
        "seeds": {"poison": 0, "train": [0]},
        "settings": {"scan": {"neighbours": 20, "budget": 0.08}, "train": {"epochs": 6, "lr": 0.001}},
        "stages": [
            {"name": "embed", "seconds": 41.2, "peak_memory_bytes": 851 * 2**20, "tally": embedded},
            {"name": "scan", "seconds": 13.4, "peak_memory_bytes": 412 * 2**20, "tally": scanned},
            {"name": "rewrite", "seconds": 2.0, "peak_memory_bytes": 0, "tally": scanned},
            {"name": "train", "seconds": 543.0, "peak_memory_bytes": 1.4 * 2**30, "tally": {}},
            {"name": "evaluate", "seconds": 7_510.0},
        ],
        "void": None,
    }


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def shards_of(run: Path) -> list[Path]:
    """The shards of the example."""
    return sorted((run / "shards").glob("*.tar"))


class Elements(HTMLParser):
    """All tags with their attributes, and all text, of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).replace(words.NBSP, " ").split())


def text_of(html: str) -> str:
    return Elements(html).text
