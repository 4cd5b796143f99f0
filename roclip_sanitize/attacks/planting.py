"""Carry a plan out: copy one shard, with its poisons in it.

    shard + plan/plan_00000.parquet ─▶ Planter ─▶ shards/00000.tar + planted/planted_00000.parquet

Untouched pairs keep their blocks byte for byte, and so do broken ones, so that later stages
meet the same failures. Only a break in the tar itself heals: the copy ends before it, and the
failure is listed here. A replaced pair is rewritten as picture, caption and fields; what else
its key had is left out. New pairs continue the shard's numbering.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roclip_sanitize import images
from roclip_sanitize.attacks.contract import Poison
from roclip_sanitize.attacks.ledger import LEDGER_SCHEMA, planted_file
from roclip_sanitize.attacks.plan_files import Materials, read_poisons
from roclip_sanitize.attacks.triggers import stamp
from roclip_sanitize.errors import BadPair, MismatchError
from roclip_sanitize.limits import WORK_KEY, Laps
from roclip_sanitize.records import Failure, FailureReason, Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard, content_uid
from roclip_sanitize.store import write_failures, write_parquet
from roclip_sanitize.tars import Member

UID_DIGITS_DRAWN = 16  # of a new pair, that its stream of chance comes from
KEY_DIGITS = 9  # img2dataset's width, for shards whose own keys are no numbers

Group = tuple[str, tuple[Member, ...]]  # a key and its members


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantTask:
    """One shard to copy.

    Attributes:
        name: its ordinal, five digits or more.
        path: where it lies.
        out: where the copy goes.
    """

    name: str
    path: Path
    out: Path


class Planter:
    """Worker: copies one shard with its poisons in it, lists them, and declares the shard done."""

    def __init__(self, *, folder: Path, label: str, seed: int) -> None:
        self._folder = StageFolder(folder)
        self._materials = Materials(folder, label=label, seed=seed)
        self._laps = Laps()

    def __call__(self, task: PlantTask) -> None:
        """Copy one shard.

        Raises:
            MismatchError: the shard has changed since the plan was made.
        """
        import polars

        laps, folder = self._laps, self._folder.path
        laps.start()
        groups = layout(task.path)
        laps.lap("headers")
        with Shard(task.path) as shard, ShardWriter(task.out) as writer:
            copy = _Copy(shard, writer, self._materials, name=task.name)
            copy.run(groups, read_poisons(folder, task.name))
            laps.lap("copy")
        listed = planted_file(folder, task.name)
        write_parquet(listed, polars.DataFrame(copy.planted, schema=LEDGER_SCHEMA))
        failed = write_failures(folder, task.name, copy.failures)
        laps.lap("write")
        work = laps.work(copy.seen)
        facts = {
            "tally": copy.tally(work.wall).to_json(),
            "planted": len(copy.planted),
            "shard": task.out.name,
            WORK_KEY: work.to_json(),
        }
        self._folder.commit(task.name, files=[*writer.files, listed, failed], facts=facts)
        laps.lap("hash")


class _Copy:
    """One shard on its way.

    Attributes:
        planted: a row of the ledger per poison, in shard order.
    """

    def __init__(self, shard: Shard, writer: ShardWriter, materials: Materials, *, name: str) -> None:
        self.planted: list[dict[str, Any]] = []
        self._spoilt: list[Failure] = []
        self._pairs = 0
        self._shard, self._writer, self._materials, self._name = shard, writer, materials, name

    @property
    def failures(self) -> list[Failure]:
        """Pairs that cannot be used: those of the shard, and victims whose picture did not decode."""
        return self._shard.failures + self._spoilt

    @property
    def seen(self) -> int:
        """The shard's pairs, new ones and broken ones included."""
        return self._pairs + len(self._shard.failures)

    def tally(self, seconds: float) -> Tally:
        """What became of the shard's pairs, new ones included."""
        failed = Counter(str(failure.reason) for failure in self.failures)
        return Tally(seen=self.seen, failed=failed, seconds=seconds)

    def run(self, groups: Sequence[Group], poisons: Sequence[Poison]) -> None:
        """Copy every pair of the shard, laid out in ``groups``, changing those that ``poisons`` name."""
        added, replaced = defaultdict[int, list[Poison]](list), dict[int, Poison]()
        for poison in poisons:
            if poison.added:
                added[poison.row].append(poison)
            else:
                replaced[poison.row] = poison
        keys, row = fresh_keys(key for key, _ in groups), 0
        for pair, members in walk(self._shard, groups):
            if pair is None:
                self._writer.copy_raw(self._shard, members)
                continue
            for poison in added.get(row, ()):
                self._add(poison, key=next(keys))
            if row in replaced:
                self._replace(replaced[row], pair)
            else:
                self._writer.copy(self._shard, pair)
            row += 1
        self._require_all_planted(row, added, replaced)
        self._pairs = row + sum(map(len, added.values()))

    def _require_all_planted(
        self, rows: int, added: Mapping[int, Sequence[Poison]], replaced: Mapping[int, Poison]
    ) -> None:
        beyond = [row for row in (*added, *replaced) if row >= rows]
        if beyond:
            raise MismatchError(
                f"{self._shard.path} does not fit the plan, which changes pair {max(beyond)}: it has only "
                f"{rows:,} usable pairs"
            )

    def _add(self, poison: Poison, *, key: str) -> None:
        original, fields = self._materials.target(poison)
        image = self._drawn_on(poison, original)
        self._writer.add(key, image=image, caption=poison.caption, fields=fields)
        self._note(poison, uid=poison.uid, key=key, hashes=(image_hash(original), image_hash(image)))

    def _replace(self, poison: Poison, pair: Pair) -> None:
        if pair.uid != poison.uid:
            raise MismatchError(
                f"{self._shard.path} has changed since the poisons were planned: pair {poison.row} is "
                f"{pair.uid}, wanted {poison.uid}"
            )
        shown = self._materials.picture(poison) if poison.picture_uid else pair.image
        try:
            image = self._drawn_on(poison, shown)
            sizes = _sizes(image, pair) if poison.picture_uid and not poison.stale_hash else {}
        except BadPair as error:
            self._spoilt.append(self._failure(pair, error))
            self._writer.copy(self._shard, pair)
            return
        uid = str(pair.fields.get("uid") or content_uid(image, poison.caption.encode()))
        fields = {**pair.fields, "uid": uid, **sizes}
        stale = str(pair.fields.get("sha256") or hashlib.sha256(pair.image).hexdigest())
        self._writer.add(
            pair.key,
            image=image,
            caption=poison.caption,
            fields=fields,
            sha256=stale if poison.stale_hash else "",
        )
        self._note(poison, uid=uid, key=pair.key, hashes=(pair.image_hash, image_hash(image)))

    def _drawn_on(self, poison: Poison, image: bytes) -> bytes:
        """A picture with what the poison draws on it, or as it was where that is nothing."""
        trigger = self._materials.trigger(poison)
        if trigger is None:
            return image
        pixels_HW3 = np.asarray(images.decode_image(image), dtype=np.uint8)
        place = [self._materials.seed, int(self._name), poison.row]
        if poison.added:  # several may stand before one pair
            place.append(int(poison.uid[:UID_DIGITS_DRAWN], 16))
        return images.encode_jpeg(stamp(pixels_HW3, trigger, np.random.default_rng(place)))

    def _note(self, poison: Poison, *, uid: str, key: str, hashes: tuple[str, str]) -> None:
        row = {name: value for name, value in asdict(poison).items() if name in LEDGER_SCHEMA}
        self.planted.append(
            row
            | {"uid": uid, "original_uid": poison.uid, "key": key, "poisoned_caption": poison.caption}
            | {"original_image_hash": hashes[0], "image_hash": hashes[1]}
        )

    def _failure(self, pair: Pair, error: BadPair) -> Failure:
        reason, _, detail = str(error).partition(": ")
        told = {"uid": pair.uid, "key": pair.key, "shard": self._shard.name}
        return Failure(**told, reason=FailureReason(reason), detail=detail)


def _sizes(image: bytes, pair: Pair) -> dict[str, int]:
    """What the fields of a pair that shows another's picture should say of its size, if they say any."""
    width, height = images.decode_image(image).size
    return {name: px for name, px in (("width", width), ("height", height)) if name in pair.fields}


def layout(path: Path) -> list[Group]:
    """All that a shard holds, usable or not, by key: its headers, read once."""
    with Shard(path) as shard:  # a look of its own, since pairs() passes over what is broken
        return list(shard.groups())


def walk(shard: Shard, groups: Iterable[Group]) -> Iterator[tuple[Pair | None, tuple[Member, ...]]]:
    """Everything in a shard, in order.

    Yields:
        Each usable pair with its members, and each broken one's members with None.
    """
    pairs = shard.pairs()
    pair = next(pairs, None)
    for _, members in groups:
        if pair is not None and pair.members[0].start == members[0].start:
            yield pair, members
            pair = next(pairs, None)
        else:
            yield None, members


def fresh_keys(keys: Iterable[str]) -> Iterator[str]:
    """Keys that none of a shard's pairs have: its highest number plus one, and so on, as wide."""
    numbers = [key for key in keys if key.isascii() and key.isdigit()]
    width = max(map(len, numbers), default=KEY_DIGITS)
    for number in itertools.count(max(map(int, numbers), default=-1) + 1):
        yield f"{number:0{width}d}"


def image_hash(image: bytes) -> str:
    """What Pair.image_hash will be for this picture."""
    return hashlib.blake2b(image, digest_size=16).hexdigest()
