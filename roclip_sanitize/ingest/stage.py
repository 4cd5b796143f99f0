"""URL lists → shards: the ``ingest`` stage.

    00000.tar 00000.parquet 00000_stats.json   shards as img2dataset writes them; see shard.py
    pairs/ failures/                           tables by shard: what was had, and what was not and why
    domains.parquet                            domain, seen, kept, and the commonest reason of failure
    done/00000.json                            rows, tally; written last

Every row of the lists ends as a pair or as a failure with its reason. Links die, a good part of every public
list is dead: failures are listed, and fail nothing by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

from roclip_sanitize.artefacts import read_table
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.hashes import BITS, MAX_BITS_APART
from roclip_sanitize.ingest.fetching import FetchReason, FetchSettings
from roclip_sanitize.ingest.resizing import ResizeMode
from roclip_sanitize.ingest.shard import STEPS, IngestWorker, PictureSettings, ShardOfRows, pairs_file
from roclip_sanitize.ingest.tables import Columns, read_rows, require_lists, slices
from roclip_sanitize.limits import Limits
from roclip_sanitize.records import Tally
from roclip_sanitize.remote import source_name
from roclip_sanitize.runfiles import STAGE_FILE, StageFolder, sha256_of
from roclip_sanitize.storage import exists, here, names_in
from roclip_sanitize.store import failures_file, write_parquet

if TYPE_CHECKING:
    import polars

DOMAINS_FILE = "domains.parquet"
WRITTEN = re.compile(rf"(\d{{5}}|[1-9]\d{{5,}})(\.tar|\.parquet|_stats\.json)|{re.escape(DOMAINS_FILE)}")
AT_LEAST: dict[str, float] = {"concurrency": 1, "per_host": 1, "timeout": 0.001, "max_bytes": 1, "retries": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """What to fetch, and how.

    Attributes:
        tables: URL lists, see tables.url_tables().
        columns: which of their columns hold what.
        image_size: pixels, as img2dataset has it.
        resize_mode: one of ResizeMode.
        encode_quality: of the JPEGs, 1 to 100.
        resize_only_if_bigger: whether smaller pictures stay as they are.
        rows_per_shard: rows of the lists that each shard is made from.
        hash_tolerance: bits of 64 in which the perceptual hash of one picture may differ.
        fetching: how far to go for each URL; of no consequence for what a picture becomes.
        threads: that decode, in each worker; 0 takes its cores. Never changes a byte.
    """

    tables: tuple[Path, ...]
    columns: Columns = field(default_factory=Columns)
    image_size: int = 256
    resize_mode: ResizeMode = "keep_ratio"
    encode_quality: int = 95
    resize_only_if_bigger: bool = True
    rows_per_shard: int = 10_000
    hash_tolerance: int = MAX_BITS_APART
    fetching: FetchSettings = field(default_factory=FetchSettings)
    threads: int = 0

    def __post_init__(self) -> None:
        if self.resize_mode not in get_args(ResizeMode):
            raise ConfigError(
                f"resize-mode is {self.resize_mode!r}, wanted one of {', '.join(get_args(ResizeMode))}"
            )
        ranges = {
            "image_size": (8, 5_000),
            "encode_quality": (1, 100),
            "rows_per_shard": (1, 100_000),
            "hash_tolerance": (0, BITS),
        }
        for name, (least, most) in ranges.items():
            if not least <= (found := getattr(self, name)) <= most:
                raise ConfigError(f"{name.replace('_', '-')} is {found}, wanted {least} to {most:,}")
        for name, at_least in AT_LEAST.items():
            if (told := getattr(self.fetching, name)) < at_least:
                raise ConfigError(f"{name.replace('_', '-')} is {told}, wanted {at_least:g} or more")

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the bytes, given the same answers; JSON-able."""
        told = asdict(self)
        del told["threads"], told["fetching"]
        kept = {"max_bytes": self.fetching.max_bytes, "respect_opt_out": self.fetching.respect_opt_out}
        return {**told, **kept, "tables": [[str(path), sha256_of(path)] for path in self.tables]}

    @property
    def pictures(self) -> PictureSettings:
        """What becomes of a picture."""
        return PictureSettings(
            side=self.image_size,
            mode=self.resize_mode,
            quality=self.encode_quality,
            only_if_bigger=self.resize_only_if_bigger,
            tolerance=self.hash_tolerance,
        )


def ingest_urls(settings: IngestSettings, *, out: Path, executor: Executor) -> Tally:
    """Fill ``out`` with shards of what URL lists lead to.

    Returns:
        Rows seen, and failed by reason.

    Raises:
        ConfigError: a list lacks a column, or a column of hashes holds none.
        DataError: a list is not what its name says.
        MismatchError: ``out`` was made from other lists, or otherwise, or holds shards that nobody ingested.
        StorageError: the disk is full.

    Memory: of the driver the rows of a few shards; of a worker what shard.py says.
    """
    require_lists(settings.tables, settings.columns)
    _require_free(out)
    folder = StageFolder.create(out, stage="ingest", settings=_decisive(settings, out))
    if folder.finished:
        return Tally.from_json(folder.facts["tally"])
    make_worker = partial(IngestWorker, settings.fetching, settings.pictures, settings.threads, out)
    for _ in executor.map(make_worker, _missing(settings, folder)):
        pass
    markers = folder.markers()
    tally = Tally.total(Tally.from_json(marker.facts["tally"]) for marker in markers)
    write_parquet(out / DOMAINS_FILE, domains_of(out, [marker.name for marker in markers]))
    folder.finish({"tally": tally.to_json()})
    return tally


def why_nothing(tally: Tally) -> str:
    """Why none of the URLs gave a picture, in a line; "" where one did, or there was none."""
    if tally.kept or not tally.seen:
        return ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.failed.most_common())
    private = tally.failed[FetchReason.PRIVATE_ADDRESS.value] == tally.seen
    hint = "; --allow-private lets them lead to this machine and its network" if private else ""
    return f"none of {tally.seen:,} URLs gave a picture: {reasons}; failures/ lists each one{hint}"


def ingest_limits(out: Path) -> Limits:
    """What bounded the making of shards, over all runs that it took."""
    return Limits.noted((marker.facts for marker in StageFolder(out).markers()), order=STEPS)


def domains_of(out: Path, names: Sequence[str]) -> polars.DataFrame:
    """What became of each domain's URLs: domain, seen, kept, worst_reason; most URLs first.

    Memory: 200 bytes a domain.
    """
    import polars

    counts = polars.DataFrame(schema={"domain": str, "reason": str, "rows": polars.Int64})
    for name in names:
        had = read_table(pairs_file(out, name), columns=["url"]).with_columns(reason=polars.lit(""))
        failed = read_table(failures_file(out, name), columns=["url", "reason"])
        both = polars.concat([had, failed])
        domain = polars.Series("domain", [_domain(url) for url in both["url"]], dtype=polars.String)
        mine = (
            both.with_columns(domain).group_by("domain", "reason").agg(rows=polars.len().cast(polars.Int64))
        )
        counts = polars.concat([counts, mine]).group_by("domain", "reason").agg(polars.col("rows").sum())
    is_failure = polars.col("reason") != ""
    return (
        counts.sort("rows", "reason", descending=[True, False])
        .group_by("domain", maintain_order=True)
        .agg(
            seen=polars.col("rows").sum(),
            kept=polars.col("rows").filter(~is_failure).sum(),
            worst_reason=polars.col("reason").filter(is_failure).first(),
        )
        .sort("seen", "domain", descending=[True, False])
    )


def _require_free(out: Path) -> None:
    """Refuse a folder of somebody's shards or lists, which have the names that would be written here."""
    if exists(out / STAGE_FILE):  # whose folder that is, StageFolder.create() asks
        return
    if theirs := next(filter(WRITTEN.fullmatch, names_in(out)), None):
        raise MismatchError(
            f"{source_name(out)} holds {theirs}, which no 'roclip ingest' made: choose another folder"
        )


def _decisive(settings: IngestSettings, out: Path) -> dict[str, Any]:
    """The settings as ``out`` tells them: one from before lists were told by their bytes has their sizes."""
    told, begun = settings.to_json(), StageFolder(out).settings if exists(out / STAGE_FILE) else {}
    sizes = [[str(path), here(path).stat().st_size] for path in settings.tables]
    return {**told, "tables": sizes} if begun.get("tables") == sizes else told


def _missing(settings: IngestSettings, folder: StageFolder) -> Iterator[ShardOfRows]:
    """Shards that are not there yet, cut from the lists as workers ask for them."""
    size = settings.rows_per_shard
    for number, rows in enumerate(slices(read_rows(settings.tables, settings.columns), size)):
        task = ShardOfRows(number=number, rows=rows, rows_per_shard=size)
        if folder.marker(task.name) is None:
            yield task


def _domain(url: object) -> str:
    try:
        return urlsplit(str(url or "")).hostname or ""
    except ValueError:
        return ""
