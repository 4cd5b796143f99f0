"""From a scan to canaries.json: the ``canaries`` stage.

    labelled/ poison/ canaries/     what was planted, and its ledger
    embedded/ store/ index/ scan/   the same stages as those of the scan that is asked about
    textures_embedded/ textures_store/  the same of their textures, if these were looked at
    young_1_embedded/ young_1_store/    and for each CLIP that looked again, if any did
    canaries.json                   a line per family: planted, found, recall with its 95 % interval

Recall depends on how many poisons of a kind there are: a few are told by what is odd about each, many also by
being alike, or hide one another. So canaries are planted as a share of the pairs, which is said with the
recall, and the recall is that of an attack of about this size. It also depends on which class an attack is
after: another seed asks about others. The scan gets room for them beside its budget, so that no pair of the
user's and no canary stand in each other's way. A young CLIP that looked again looks at them as it is: poisons
that it saw while it was trained may hide from it a little better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.canaries.beside import store_with
from roclip_sanitize.canaries.counted import CANARIES_STAGE, Family, read_canaries, recount, settings_again
from roclip_sanitize.canaries.planting import FAMILIES, plant_canaries
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import IndexSettings, build_index, inspect_index
from roclip_sanitize.runfiles import StageFolder, write_json
from roclip_sanitize.scan.looks import told_second
from roclip_sanitize.scan.settings import ScanSettings, scanned_store
from roclip_sanitize.scan.stage import scan_store
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.whereabouts import told_folder

LEAST, MOST = 15, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySettings:
    """What to plant beside whose pairs.

    Attributes:
        scan: the scan that is asked about.
        families: which attacks; see planting.FAMILIES.
        share: canaries of each family, as a share of the scan's pairs; at least 15 and at most 300.
        encoder: what made the scan's store, as ``roclip embed`` was told; "" asks the store.
        young: what made each store of its second look, in the same order; () asks these.
        seed: of all choices.
    """

    scan: Path
    families: tuple[str, ...] = tuple(FAMILIES)
    share: float = 0.003
    encoder: str = ""
    young: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.05:
            raise ConfigError(f"share is {self.share}, wanted more than 0 and at most 0.05")
        if not self.families:
            raise ConfigError(f"no families of canaries named: known are {', '.join(FAMILIES)}")

    def each(self, pairs: int) -> int:
        """Canaries of a family."""
        return min(MOST, max(LEAST, round(self.share * pairs)))


def count_canaries(settings: CanarySettings, *, out: Path, executor: Executor) -> list[Family]:
    """Plant canaries, scan again with them, and count those that were found.

    Returns:
        A line per family.

    Raises:
        ConfigError: a family is unknown, an encoder gone, or other young CLIPs are named than looked again.
        DataError: there is no scan, or its shards have too few pairs to plant in.
        MismatchError: the store was made by another encoder, or holds something else than was scanned; or
            ``out`` asks about another scan, or about what this one said before.

    Cost: the scan once more, its index, a copy of its store, and embedding the canaries.
    """
    scan = StageFolder.open(settings.scan, stage="scan")
    store = scanned_store(scan)
    second = [
        EmbeddingStore.open(told_folder(scan.path, path, stage="embed", content=content))
        for path, content in told_second(scan.settings).items()
    ]
    settings = replace(
        settings,
        encoder=settings.encoder or store.encoder,
        young=settings.young or tuple(seen.encoder for seen in second),
    )
    if len(second) != len(settings.young):
        raise ConfigError(
            f"{len(settings.young)} young CLIPs are named, wanted {len(second)}: those whose vectors "
            f"{settings.scan} looked again in, in its order"
        )
    told = {**asdict(settings), "scan": str(settings.scan), "families": list(settings.families)}
    told["content"] = scan.content  # of another scan there, they say nothing
    if not settings.young:  # canaries from before there was one go on
        del told["young"]
    folder = StageFolder.create(out, stage=CANARIES_STAGE, settings=told)
    if folder.finished:
        return read_canaries(out)
    each = settings.each(store.rows)
    planted, ledger = plant_canaries(
        store, settings.families, each=each, seed=settings.seed, out=out, executor=executor
    )
    beside = _beside(store, planted, ledger, settings.encoder, out=out, executor=executor)
    young = tuple(
        _beside(
            seen,
            planted,
            ledger,
            encoder,
            out=out,
            executor=executor,
            prefix=f"young_{n}_",
        )
        for n, (seen, encoder) in enumerate(zip(second, settings.young, strict=True), start=1)
    )
    canaries = len(ledger.poisons)
    looked: dict[str, Any] = {"second_look": young}
    if textures := scan.settings.get("textures"):
        content = scan.settings["textures_content"]
        seen = EmbeddingStore.open(told_folder(scan.path, textures, stage="embed", content=content))
        looked["textures"] = _beside(
            seen, planted, ledger, seen.encoder, out=out, executor=executor, prefix="textures_"
        )
    _scan_again(scan, beside, out, executor, canaries=canaries, looked=looked)
    families = recount(out, ledger)
    if not families:
        raise DataError(f"none of the {canaries} canaries in {planted} could be scanned")
    facts = {"families": [asdict(each) for each in families], "each": each, "pairs": store.rows}
    write_json(out / "canaries.json", facts)
    folder.commit("canaries", files=[out / "canaries.json"], facts={})
    folder.finish({})
    return families


def _beside(
    store: EmbeddingStore,
    planted: Path,
    ledger: Ledger,
    encoder: str,
    *,
    out: Path,
    executor: Executor,
    prefix: str = "",
) -> Path:
    """A copy of a store with the canaries in it, as its encoder sees them."""
    embedded = out / f"{prefix}embedded"
    told = EmbedSettings(shards=(planted,), encoder=encoder, towers=store.towers)
    embed_shards(told, out=embedded, executor=executor)
    canaries = EmbeddingStore.open(embedded)
    return store_with(store, canaries, without=ledger.planted(), out=out / f"{prefix}store")


def _scan_again(
    scan: StageFolder, store: Path, out: Path, executor: Executor, *, canaries: int, looked: Mapping[str, Any]
) -> None:
    """Index and scan a store as the scan's own was, with room for the canaries beside the budget."""
    content = scan.settings.get("index_content")
    index = inspect_index(told_folder(scan.path, scan.settings["index"], stage="index", content=content))
    told = IndexSettings(store=store, transform=index["transform"], kind=index["kind"], seed=index["seed"])
    build_index(told, out=out / "index", executor=executor)
    same = settings_again(scan, canaries=canaries, rows=EmbeddingStore.open(store).rows)
    same["detectors"] = tuple(same["detectors"])
    again = ScanSettings(store=store, index=out / "index", **looked, **same)
    scan_store(again, out=out / "scan", executor=executor)
