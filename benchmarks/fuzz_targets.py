"""The parsers that read what strangers write, each with good inputs to start from.

A parser takes bytes and gives whatever it likes. What is wrong with them it says by an error of the package.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars
from PIL import Image

from roclip_sanitize.attacks import ledger, specs
from roclip_sanitize.attacks.contract import Plan
from roclip_sanitize.attacks.contract import Target as Goal
from roclip_sanitize.attacks.text_triggers import TextTrigger
from roclip_sanitize.attacks.triggers.copies import Fade, Layers, NearCopy
from roclip_sanitize.attacks.triggers.patches import PatchTrigger
from roclip_sanitize.attacks.triggers.warps import WarpTrigger
from roclip_sanitize.braces import MAX_LETTERS, MAX_NAMES, most_names
from roclip_sanitize.captions import caption_words, decode_caption
from roclip_sanitize.cli import checked_defaults
from roclip_sanitize.cli.run_file import read_run_file
from roclip_sanitize.images import square_pixels
from roclip_sanitize.ingest.tables import Columns, read_rows
from roclip_sanitize.known_bad import read_known_bad
from roclip_sanitize.pairing import PAIR_SCHEMA, pairs_file, read_pairs
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder, fingerprint
from roclip_sanitize.scan.keep_list import read_keep_list, write_keep_list
from roclip_sanitize.shards import Shard, expand_shards
from roclip_sanitize.store import read_failures, vectors_file, write_failures
from roclip_sanitize.tars import member_blocks, walk_members

UID = "0123456789abcdef" * 2
SIDE = 24
MANY_NAMES = 10_000
PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser.

    Attributes:
        parse: takes the bytes.
        seeds: good inputs.
        turn: inputs that it gets at once, so that all take about as long.
    """

    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    turn: int


def all_targets(folder: Path) -> dict[str, Target]:
    """Every parser by its name; those that read files get them in ``folder``."""
    return {
        "tar": Target(parse=_walk, seeds=_tars(), turn=40_000),
        "shard": Target(parse=partial(_shard, folder / "0.tar"), seeds=_tars(), turn=8_000),
        "fields": Target(parse=partial(_fields, folder / "fields.tar"), seeds=_fields_seeds(), turn=20_000),
        "caption": Target(parse=_caption, seeds=(b"a red hat", "Ḧàt 🎩 帽子 ".encode()), turn=40_000),
        "picture": Target(parse=_picture, seeds=tuple(map(_encoded, PICTURES)), turn=8_000),
        "shard_names": Target(parse=_shard_names, seeds=NAMES, turn=4_000),
        "attack": Target(parse=_attack, seeds=ATTACKS, turn=20_000),
        "run_file": Target(parse=partial(_run_file, folder / "run.toml"), seeds=RUN_FILES, turn=16_000),
        "marker": _marker_target(folder / "marked"),
        "stage": _stage_target(folder / "stage"),
        "ledger": _ledger_target(folder / "ledger"),
        "ledger_table": _ledger_table_target(folder / "ledger_table"),
        "keep_list": _keep_list_target(folder),
        "vectors": _vectors_target(folder / "store"),
        "pairs": _pairs_target(folder / "pairs"),
        "failures": _failures_target(folder / "store"),
        "urls_text": _urls_target(folder / "urls.csv"),
        "urls_lines": _urls_target(folder / "urls.jsonl"),
        "urls_table": _urls_target(folder / "urls.parquet"),
        "hashes_text": _hashes_target(folder / "hashes.txt"),
        "hashes_table": _hashes_target(folder / "hashes.parquet"),
    }


# Shards


def _walk(data: bytes) -> object:
    return list(walk_members(data, tar="0.tar"))


def _shard(path: Path, data: bytes) -> object:
    """All pairs and failures, packed and plain; what is wrong with a shard is a failure of one line."""
    path.write_bytes(data)
    with Shard(path) as shard:
        pairs = [(pair.uid, shard.raw(pair.members)) for pair in shard.pairs()]
        require_lines(failure.detail for failure in shard.failures)
        return pairs


def _fields(path: Path, data: bytes) -> object:
    image, caption = member_blocks("0.jpg", b"picture"), member_blocks("0.txt", b"a hat")
    return _shard(path, image + caption + member_blocks("0.json", data) + bytes(1024))


def _tars() -> tuple[bytes, ...]:
    files = {"0.jpg": b"picture", "0.txt": b"a hat", "0.json": json.dumps({"uid": UID}).encode()}
    files |= {"n" * 120 + ".jpg": b"x" * 600, "ö/1.png": b"", "ö/1.txt": "帽子".encode()}
    packed = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name[-90:] if kind == tarfile.USTAR_FORMAT else name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for number, special in enumerate((tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE)):
                info = tarfile.TarInfo(f"../{number}")
                info.type, info.linkname = special, "/etc/passwd"
                archive.addfile(info)
        packed.append(buffer.getvalue()[:9_000])
    return tuple(packed)


def _fields_seeds() -> tuple[bytes, ...]:
    told = {"uid": UID, "width": 16, "url": "https://pictures.example/ö.jpg", "exif": {"a": [1, 2.5, None]}}
    return (json.dumps(told).encode(), json.dumps(told, ensure_ascii=False, indent=1).encode())


def _caption(data: bytes) -> object:
    return caption_words(decode_caption(data))


def _picture(data: bytes) -> object:
    exact = square_pixels(data, SIDE, fit="crop")
    return exact, square_pixels(data, SIDE, fit="squash", decode="fast")


def _encoded(kind: str) -> bytes:
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 28, 3)).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


# What people write

NAMES = (
    b"data/{00000..00009}.tar",
    b"a/{0..3}.tar::b/{x,y{1..2}}.tar.gz",
    b"file:///data/0.tar",
    b"pipe:cat 0",
)
ATTACKS = (
    b"targeted:targets=3,captions=5",
    b"patch:rate=0.05,target=hat",
    b"blended",
    b"toxic_text:rate=1e-3",
)
RUN_FILES = (
    b'[train]\ntrain-data = "data/{00000..00009}.tar"\nepochs = 5\nlr = 1e-3\n\n[embed]\nshards = "a"\n',
    b'[poison]\nattacks = ["patch:rate=0.01", "blended"]\nseed = 3\n[scan]\nbudget = 0.1\n',
)


def _shard_names(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    with suppress(ValueError):  # of a brace that closes nothing
        if len(text) <= MAX_LETTERS and MANY_NAMES < most_names(text) <= MAX_NAMES:
            return None  # each would be looked for, which takes its time and finds nothing
    return expand_shards(text)


def _attack(data: bytes) -> object:
    return specs.build_attacks([data.decode("utf-8", "replace")])


def _run_file(path: Path, data: bytes) -> object:
    path.write_bytes(data)
    return checked_defaults(read_run_file(path), told_by=path.name)


def _urls_target(path: Path) -> Target:
    columns = {
        "url": ["http://a.example/0.jpg", "https://b.example/1"],
        "caption": ['a "red" hat', "Ḧàt 🎩"],
        "sha256": ["0" * 64, "f" * 64],
    }
    frame = polars.DataFrame(columns)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    return _through(path, partial(_rows, path), turn=4_000)


def _rows(path: Path) -> object:
    rows = list(read_rows([path], Columns()))
    require_lines(row.flaw for row in rows)
    return rows


def _hashes_target(path: Path) -> Target:
    hashes = {"sha256": ["a" * 64], "md5": ["b" * 32], "phash": ["c" * 16]}
    if path.suffix == ".txt":
        path.write_text("# known\n" + "".join(f"{one},1\n" for (one,) in hashes.values()))
    else:
        polars.DataFrame(hashes).write_parquet(path)
    return _through(path, lambda: read_known_bad([path], tolerance=0).counts, turn=8_000)


# What stages leave behind


def _finished(path: Path, stage: str) -> StageFolder:
    folder = StageFolder.create(path, stage=stage, settings={"seed": 0, "shards": ["0.tar"]})
    tally = Tally(seen=3).to_json()
    (path / "data").write_bytes(b"data")
    folder.commit("00000", files=[path / "data"], facts={"rows": 3, "tally": tally})
    folder.finish({"tally": tally})
    return folder


def _through(path: Path, parse: Callable[[], object], *, turn: int, also: tuple[bytes, ...] = ()) -> Target:
    """A parser of a file that is there already: it is what to start from."""
    seed = path.read_bytes()

    def parse_as(data: bytes) -> object:
        path.write_bytes(data)
        return parse()

    return Target(parse=parse_as, seeds=(seed, *also), turn=turn)


def _marker_target(path: Path) -> Target:
    _finished(path, "embed")

    def parse() -> object:
        folder = StageFolder.open(path, stage="embed")
        told = [(marker, Tally.from_json(marker.facts["tally"])) for marker in folder.markers()]
        folder.verify()
        return told

    return _through(path / "done" / "00000.json", parse, turn=16_000)


def _stage_target(path: Path) -> Target:
    _finished(path, "embed")

    def parse() -> object:
        return fingerprint(StageFolder.open(path, stage="embed").settings)

    return _through(path / "stage.json", parse, turn=16_000)


def _ledger_target(path: Path) -> Target:
    _finished(path, ledger.POISON_STAGE)
    layers = Layers(parts=(Fade(by=0.5), NearCopy()))
    plan = Plan(
        parameters={"rate": 0.1},
        targets=(Goal(uid=UID, true_label="hat", adversarial="shoe"),),
        triggers={"": PatchTrigger(), "l": layers, "w": WarpTrigger()},
        text_triggers={"": TextTrigger(text="cf")},
    )
    classes = [{"label": "hat", "count": 3}]
    header = {"label": "kind", "seed": 0, "classes": classes, "attacks": [{"name": "a", **plan.to_json()}]}
    file = path / "ledger.json"
    file.write_text(json.dumps(header))

    def parse() -> object:
        opened = ledger.Ledger.open(path)
        return [ledger.target_file(path, target.uid) for target in opened.targets]

    return _through(file, parse, turn=12_000)


def _ledger_table_target(path: Path) -> Target:
    path.mkdir()
    row = {name: {str: "00000", int: 1, bool: True}[kind] for name, kind in ledger.LEDGER_SCHEMA.items()}
    polars.DataFrame([row] * 3, schema=ledger.LEDGER_SCHEMA).write_parquet(path / "ledger.parquet")
    return _through(path / "ledger.parquet", lambda: ledger.read_ledger_table(path).rows(), turn=4_000)


def _keep_list_target(folder: Path) -> Target:
    path = folder / "keep.npy"
    write_keep_list(path, [[UID, UID[::-1]]])
    objects, archive = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(archive, a=np.zeros(3))
    also = (objects.getvalue(), archive.getvalue())
    return _through(path, lambda: read_keep_list(path), turn=16_000, also=also)


def _vectors_target(path: Path) -> Target:
    from roclip_sanitize.store import EmbeddingStore, write_vectors

    store = EmbeddingStore(_finished(path, "embed"))
    file = vectors_file(path, "00000", "image")
    write_vectors(file, np.eye(3, 8))
    return _through(file, lambda: store.vectors("00000", "image").shape, turn=16_000)


def _failures_target(path: Path) -> Target:
    from roclip_sanitize.records import Failure, FailureReason

    bad = Failure(uid="", key="1", shard="0.tar", reason=FailureReason.NO_IMAGE, detail="has none")
    return _through(
        write_failures(path, "00000", [bad]), lambda: read_failures(path, "00000").rows(), turn=4_000
    )


def _pairs_target(path: Path) -> Target:
    _finished(path, "pair")
    file = pairs_file(path, "00000")
    file.parent.mkdir()
    row: dict[str, Any] = {"uid": UID, "caption_uid": UID, "caption": "a hat", "caption_cosine": 0.5}
    polars.DataFrame([row | {"image_uid": "", "image_cosine": None}] * 3, schema=PAIR_SCHEMA).write_parquet(
        file
    )
    return _through(file, lambda: read_pairs(path).rows(), turn=4_000)


def require_lines(texts: Any) -> None:
    """Refuse what would break a list of failures.

    Raises:
        DataError: never on purpose; AssertionError where a text has more than one line.
    """
    for text in texts:
        assert len(text.splitlines()) <= 1, f"more than one line: {text!r}"
