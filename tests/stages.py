"""The data plane on a few squares: its stages, and what they leave behind if nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.embed_parts import SHARD_KEY
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.pairing import PairSettings, pair_store
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.scan import ScanSettings, scan_store
from tests.faulty import NODES
from tests.squares import write_square_shards, write_squares

SHARDS = 6
PAIRS = 20  # per shard

Stage = Callable[[Path, Executor], Any]  # its folder, where it runs


def square_shards(folder: Path) -> tuple[Path, ...]:
    """What the stages work on."""
    return write_square_shards(folder, shards=SHARDS, pairs=PAIRS)


def stages(shards: tuple[Path, ...]) -> dict[str, Stage]:
    """The data plane, by the folder that each stage fills: a relative one, the same in every run."""
    store = Path("store")
    return {
        "store": lambda out, executor: embed_shards(
            EmbedSettings(shards=shards, encoder="plain", batch_size=8), out=out, executor=executor
        ),
        "index": lambda out, executor: build_index(
            IndexSettings(store=store, parts=NODES), out=out, executor=executor
        ),
        "index_text": lambda out, executor: build_index(
            IndexSettings(store=store, modality="text", parts=NODES), out=out, executor=executor
        ),
        "pairs": lambda out, executor: pair_store(
            PairSettings(
                store=store, index_text=Path("index_text"), index_image=Path("index"), method="first"
            ),
            out=out,
            executor=executor,
        ),
        "scan": lambda out, executor: scan_store(
            ScanSettings(store=store, index=Path("index")), out=out, executor=executor
        ),
        "rewrite": lambda out, executor: rewrite_shards(
            RewriteSettings(store=store, verdicts=Path("scan")), out=out, executor=executor
        ),
    }


def run_stages(shards: tuple[Path, ...], folder: Path) -> Path:
    """The folders of all stages, nothing having gone wrong, on one worker in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, stage in stages(shards).items():
            stage(Path(name), LocalExecutor())
    return folder


def vectors_and_names(found: Any) -> dict[str, Any]:
    """What a store holds, whatever its shards are called, and whatever they look like where they lie."""
    held = {name: content for name, content in found.items() if name != "stage.json"}
    for name in (name for name in held if name.startswith("done/")):
        facts = {fact: value for fact, value in held[name]["facts"].items() if fact != SHARD_KEY}
        held[name] = {**held[name], "facts": facts}
    return held


def poisoned_scan(root: Path) -> None:
    """squares/, poison/, store/, index/ and scan/ of squares with two attacks in them."""
    shards = write_square_shards(root / "squares", shards=2, pairs=80)
    test = write_squares(root / "test.tar", first=1_000, pairs=16)
    told = PoisonSettings(
        shards=shards,
        test_shards=(test,),
        label="colour",
        attacks=("targeted:targets=2,captions=6", "patch:rate=6"),
    )
    here = LocalExecutor()
    poison_shards(told, out=root / "poison", executor=here)
    scan_of(tuple(poisoned_shards(root / "poison")), root)


def scan_of(shards: tuple[Path, ...], root: Path) -> None:
    """store/, index/ and scan/ of some shards."""
    here = LocalExecutor()
    embed_shards(EmbedSettings(shards=shards, encoder="plain"), out=root / "store", executor=here)
    build_index(IndexSettings(store=root / "store"), out=root / "index", executor=here)
    scan_store(ScanSettings(store=root / "store", index=root / "index"), out=root / "scan", executor=here)


def scan_again(root: Path, out: Path) -> None:
    """A scan of the same pairs that finds other ones: those that collide alone."""
    told = ScanSettings(store=root / "store", index=root / "index", budget=0.0)
    scan_store(told, out=out, executor=LocalExecutor())
