"""Which pairs become canaries, and how.

Whole shards are read, as few as hold enough pairs, in an order that the seed decides. Their pairs get a word
for a class; some are held out, since targeted attacks are after pictures that nobody trains on; in the others
the known attacks are planted as ``roclip poison`` plants them. Only the poisons go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.canaries.labelling import CLASSES, class_of, class_words
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.shard_writer import ShardWriter
from roclip_sanitize.shards import Pair, Shard
from roclip_sanitize.sources import source_path
from roclip_sanitize.storage import exists
from roclip_sanitize.store import EmbeddingStore

LABEL = "canary_class"
PAIRS = 8_000  # that canaries are made of: their classes need some pairs each
HELD_OUT = 10  # every so many pairs one is
CLASS_SIZE = 4  # times the canaries that are to pass for it: an attack that outnumbers its class is another
CAPTIONS = 15  # of one picture, where an attack repeats one
FAMILIES = {  # {n}: how many; {targets}: so many pictures, {captions} each
    "targeted": "targeted:targets={targets},captions={captions}",
    "patch": "patch:rate={n}",
    "blended": "blended:rate={n}",
    "sig": "sig:rate={n}",
    "wanet": "wanet:rate={n}",
    "filter": "filter:rate={n}",
    "natural": "natural:targets={targets},copies={captions}",
    "mmpoison": "mmpoison:rate={n}",
    "text_trigger": "text_trigger:rate={n}",
}


def plant_canaries(
    store: EmbeddingStore, families: Sequence[str], *, each: int, seed: int, out: Path, executor: Executor
) -> tuple[Path, Ledger]:
    """Make canaries of some of a store's pairs.

    Args:
        store: whose pairs.
        families: names of FAMILIES.
        each: canaries of each family.
        seed: of all choices.
        out: folder for everything.
        executor: where attacks are planted.

    Returns:
        A shard of canaries alone, and the ledger that says what each is: who replaces a pair has its uid.

    Raises:
        ConfigError: a family is unknown.
        DataError: the shards have too few pairs, or none whose captions share words.
    """
    if unknown := [name for name in families if name not in FAMILIES]:
        raise ConfigError(f"there is no family {unknown[0]!r} of canaries: known are {', '.join(FAMILIES)}")
    train, test = out / "labelled" / "00000.tar", out / "labelled" / "held_out.tar"
    if not exists(test):
        _label(store, train=train, test=test, seed=seed, each=each)
    told = PoisonSettings(
        shards=(train,),
        test_shards=(test,),
        label=LABEL,
        attacks=tuple(spec_of(name, each) for name in families),
        seed=seed,
        classes=CLASSES,
    )
    poison_shards(told, out=out / "poison", executor=executor)
    ledger, canaries = Ledger.open(out / "poison"), out / "canaries" / "00000.tar"
    with ShardWriter(canaries) as writer:
        for path in poisoned_shards(out / "poison"):
            with Shard(path) as shard:
                for pair in shard.pairs():
                    if pair.uid in ledger.poisons:
                        writer.copy(shard, pair)
    return canaries, ledger


def spec_of(family: str, each: int) -> str:
    """What ``roclip poison`` is told."""
    return FAMILIES[family].format(n=each, targets=max(1, round(each / CAPTIONS)), captions=CAPTIONS)


def _label(store: EmbeddingStore, *, train: Path, test: Path, seed: int, each: int) -> None:
    """Copy some pairs, each with a word for a class."""
    chosen, captions, vectors = list[Path](), list[str](), list[NDArray[np.float16]]()
    for number in np.random.default_rng(seed).permutation(len(store.parts)):
        if len(captions) >= PAIRS:
            break
        part = store.parts[number]
        if not part.rows:  # no vectors, and so none of the others' width
            continue
        chosen.append(source_path(store.shards[number]))
        captions += store.metadata(part.name, ("caption",))["caption"].to_list()
        vectors.append(store.vectors(part.name, "image"))
    least = round(CLASS_SIZE * each * len(captions) / store.rows)
    words = class_words(captions, np.concatenate(vectors), least=least)
    if len(words) < 2:
        raise DataError(f"the {len(captions):,} captions of {chosen[0]} and others share too few words")
    numbers = count()
    with ShardWriter(test) as held_out, ShardWriter(train) as kept:
        for path in chosen:
            for pair in _pairs(path):
                if not (word := class_of(pair.caption, words)):
                    continue
                number = next(numbers)
                writer = held_out if number % HELD_OUT == 0 else kept
                fields = {**pair.fields, "uid": pair.uid, LABEL: word}
                writer.add(f"{number:09d}", image=pair.image, caption=pair.caption, fields=fields)


def _pairs(path: Path) -> Iterator[Pair]:
    with Shard(path) as shard:
        yield from shard.pairs()
