"""How much of each known attack a scan finds, at what price, and which detector finds it.

    python -m benchmarks.detection fashion --run runs/detection
    python -m benchmarks.detection fashion --only blended sig_badclip --shares 0.005 --seeds 0 --young-clips 0
    python -m benchmarks.detection fashion --shares 0.01 --published dao dao_released
    python -m benchmarks.detection my.toml --executor local --part 1/2

Each attack of a sweep file (benchmarks/sweep/sweep_file.py; its rates, methods and training play no part)
is planted alone, as a share of the pairs, with each seed; the copy is embedded, indexed and scanned with the
sweep's [scan] settings, as ``roclip sanitize`` does it, and compared with its ledger. Nothing is trained but
the CLIPs that look again, for one epoch each.

What counts is recall at a price: the share of poisons whose score exceeds that of all but 2, 5 or 10 % of
the clean pairs, whatever the budget; beside it the area under the curve, and what the budget made of it.
Detectors are compared on the same copies. Cover samples count for nothing. With --published, detectors of
``roclip score`` are beside them, in the vectors of the first young CLIP, with 2,048 pairs as the reference,
or in a batch, and 16 neighbours.

Each copy is a folder, RUN/copies/NAME, and is measured once; the same command goes on. An attack that cannot
be planted so often, since its target class has no more pairs, says so. Leaves RUN/detection.parquet (a row
per copy and score) and RUN/detection.md, means over seeds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sweep.cells import SCAN_DEFAULTS, Corpus, Poisoning, cleaning
from benchmarks.sweep.corpus import find_corpus, survey
from benchmarks.sweep.running import say
from benchmarks.sweep.settings import RATE, AttackRow, Sweep
from benchmarks.sweep.sharing import WHOLE, part_from, turn
from benchmarks.sweep.sweep_file import load_sweep
from roclip_sanitize.artefacts import read_table
from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.attacks.poison import PoisonSettings, poison_shards, poisoned_shards
from roclip_sanitize.attacks.specs import build_attack
from roclip_sanitize.errors import ConfigError, DataError, MismatchError, RoclipError
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder, fingerprint, read_json, write_json
from roclip_sanitize.sanitize import SanitizeSettings, sanitize_shards
from roclip_sanitize.scan import read_scores, read_verdicts
from roclip_sanitize.scan.quality import SCORE_OF_DETECTOR, auroc, score_of
from roclip_sanitize.scoring import ScoreSettings, score_pairs
from roclip_sanitize.scoring.stage import scores_file
from roclip_sanitize.store import EmbeddingStore, write_parquet

if TYPE_CHECKING:
    import polars

SHARES = (0.001, 0.003, 0.01, 0.03)
PRICES = (0.02, 0.05, 0.1)
MANY = ("captions", "copies")  # parameters that count poisons of each target
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Shards with one attack in them, to be scanned.

    Attributes:
        corpus: the clean shards.
        attack: the sweep's row.
        specs: what is planted.
        share: poisons, as a share of the pairs, that was asked for.
        seed: of the poisons.
        scan: settings of the scan.
        young_clips: how many CLIPs look again.
        published: detectors of ``roclip score``, in the vectors of the first of these.
    """

    corpus: Corpus
    attack: str
    specs: tuple[str, ...]
    share: float
    seed: int
    scan: dict[str, Any]
    young_clips: int
    published: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.published and not self.young_clips:
            raise ConfigError("published detectors judge in the vectors of a young CLIP: give --young-clips")
        if self.published:
            self.scoring(Path())  # names are wrong now, or never

    def scoring(self, store: Path) -> ScoreSettings:
        """How the published detectors score a store."""
        return ScoreSettings(store=store, detectors=self.published, reference=2_048, neighbours=16)

    @property
    def name(self) -> str:
        """Its identity. Two shares that come to as many poisons are one copy, in whatever words.

        One that was measured before a default of the scan changed is another: so are all from before defaults
        were part of it.
        """
        told = self.to_json()
        return f"{self.attack}_{fingerprint(told)}"

    def to_json(self) -> dict[str, Any]:
        """What decides its result."""
        told = {
            "poisoning": Poisoning(corpus=self.corpus, specs=self.specs, seed=self.seed).to_json(),
            "scan": {**SCAN_DEFAULTS, **self.scan, "young_clips": self.young_clips},
        }
        return {**told, "published": list(self.published)} if self.published else told


class CopyWorker:
    """Plants, scans and measures one copy after the other."""

    def __init__(self, run: Path) -> None:
        self._run, self._here = run, LocalExecutor()

    def __call__(self, copy: Copy) -> str:
        """Measure one copy. Returns why it could not be planted, or ""."""
        folder = StageFolder.create(copy_folder(self._run, copy), stage="detection", settings=copy.to_json())
        scratch = folder.path / "scratch"
        try:
            rows = self._measured(copy, scratch)
        except (ConfigError, DataError) as error:  # of planting: the class has no more pairs
            if (scratch / "store").exists():
                raise
            shutil.rmtree(scratch, ignore_errors=True)
            write_json(folder.path / "cannot.json", str(error))
            return str(error)
        write_json(folder.path / "quality.json", rows)
        folder.finish({"rows": len(rows)})
        shutil.rmtree(scratch, ignore_errors=True)
        return ""

    def _measured(self, copy: Copy, scratch: Path) -> Rows:
        poison = PoisonSettings(
            shards=copy.corpus.shards,
            test_shards=copy.corpus.test_shards,
            label=copy.corpus.label,
            classes=copy.corpus.classes,
            seed=copy.seed,
            attacks=copy.specs,
        )
        poison_shards(poison, out=scratch / "poison", executor=self._here)
        shards = tuple(poisoned_shards(scratch / "poison"))
        cleaning = SanitizeSettings(
            shards=shards,
            young_clips=copy.young_clips,
            seed=copy.seed,
            scan=copy.scan,
        )
        sanitize_shards(cleaning, out=scratch, executor=self._here, say=lambda line: None)
        ledger = Ledger.open(scratch / "poison")
        return [
            {"attack": copy.attack, "seed": copy.seed, **row}
            for row in measured(
                self._scores(copy, scratch),
                read_verdicts(scratch / "scan"),
                poisons=frozenset(ledger.poisons),
                covers=frozenset(ledger.covers),
                published=copy.published,
            )
        ]

    def _scores(self, copy: Copy, scratch: Path) -> polars.DataFrame:
        """What the scan says of every pair, and beside it what published detectors do."""
        scores = read_scores(scratch / "scan")
        if not copy.published:
            return scores
        store, out = scratch / "young_1_store", scratch / "published"
        score_pairs(copy.scoring(store), out=out, executor=self._here)
        parts = EmbeddingStore.open(store).parts
        return with_published(scores, [read_table(scores_file(out, part.name)) for part in parts])


def with_published(scores: polars.DataFrame, tables: Sequence[polars.DataFrame]) -> polars.DataFrame:
    """Columns of ``roclip score``, part by part, beside a scan's of the same rows.

    Raises:
        MismatchError: the rows are not the same.
    """
    import polars

    table = polars.concat(tables)
    if table["uid"].to_list() != scores["uid"].to_list():
        raise MismatchError(f"{len(table)} rows of scores are not the scan's {len(scores)}")
    return scores.hstack(table.drop("uid", "key", "shard"))


def measured(
    scores: polars.DataFrame,
    verdicts: polars.DataFrame,
    *,
    poisons: frozenset[str],
    covers: frozenset[str] = frozenset(),
    published: Sequence[str] = (),
) -> Rows:
    """A row per score of a scan: how well it tells poisons from clean pairs, and what the verdicts did.

    Args:
        scores: of read_scores(), or of with_published().
        verdicts: of read_verdicts(), the same rows.
        poisons: uids.
        covers: uids that count for nothing.
        published: columns of other detectors.
    """
    uids = scores["uid"].to_list()
    poison_N = np.array([uid in poisons for uid in uids])
    clean_N = ~poison_N & np.array([uid not in covers for uid in uids])
    flagged_N = ~verdicts["kept"].to_numpy()
    shared = {
        "poisons": int(poison_N.sum()),
        "found": float(flagged_N[poison_N].mean()),
        "clean_lost": float(flagged_N[clean_N].mean()),
    }
    rows = []
    for column in (*scored(scores), *published):
        score_N = score_of(scores, column)
        bad, good = score_N[poison_N], score_N[clean_N]
        recalls = {f"recall_at_{price:.0%}".replace("%", ""): recall_at(bad, good, price) for price in PRICES}
        rows.append({"score": column, "auroc": auroc(bad, good), **recalls, **shared})
    return rows


def scored(scores: polars.DataFrame) -> list[str]:
    """The columns that score pairs: what all detectors say together, each one's own, and counts."""
    named = [name for name in SCORE_OF_DETECTOR.values() if name in scores.columns]
    return [name for name in named if scores[name].null_count() < len(scores)]


def recall_at(bad: NDArray[np.float64], good: NDArray[np.float64], price: float) -> float:
    """Share of poisons that score above all but a share of the clean pairs; ties are not above."""
    allowed = int(price * len(good))
    cut = np.partition(good, len(good) - 1 - allowed)[len(good) - 1 - allowed]
    return float((bad > cut).mean())


def copies_of(sweep: Sweep, corpus: Corpus, told: argparse.Namespace, *, pairs: int) -> Iterator[Copy]:
    """Every attack at every share with every seed, seed by seed."""
    rows = [row for row in sweep.attacks if not told.only or row.name in told.only]
    if unknown := sorted(set(told.only) - {row.name for row in sweep.attacks}):
        known = ", ".join(row.name for row in sweep.attacks)
        raise ConfigError(f"the sweep has no attack {unknown[0]!r}: it has {known}")
    how = cleaning(sweep.scan)
    if told.young_clips is not None:
        how["young_clips"] = told.young_clips
    for seed in told.seeds:
        for row in rows:
            for share in told.shares if row.rates else (0.0,):
                yield Copy(
                    corpus=corpus,
                    attack=row.name,
                    specs=row.specs_at(rate_for(row, share, pairs=pairs) if row.rates else None),
                    share=share,
                    seed=seed,
                    **how,
                    published=tuple(told.published),
                )


def rate_for(row: AttackRow, share: float, *, pairs: int) -> int:
    """What to put for an attack's rate, so that about that share of the pairs is poison; at least 1."""
    (spec, *_) = row.specs
    parameter = next(part.partition("=")[0] for part in spec.replace(":", ",").split(",") if RATE in part)
    _, attack = build_attack(spec.replace(RATE, "1"))
    each = getattr(attack, "targets", 1) if parameter in MANY else 1
    return max(1, round(share * pairs / each))


def copy_folder(run: Path, copy: Copy) -> Path:
    """Where a copy is measured."""
    return run / "copies" / copy.name


def publish(copies: Sequence[Copy], run: Path) -> polars.DataFrame:
    """The table of all copies that are done, and its means over seeds in words.

    Raises:
        DataError: none is.
    """
    import polars

    done = [copy for copy in copies if StageFolder(copy_folder(run, copy)).finished]
    rows = [
        {**row, "share": copy.share}
        for copy in done
        for row in read_json(copy_folder(run, copy) / "quality.json")
    ]
    if not rows:
        raise DataError(f"{run} has nothing to publish: none of {len(copies)} copies could be measured")
    frame = polars.DataFrame(rows)
    write_parquet(run / "detection.parquet", frame)
    (run / "detection.md").write_text(_markdown(frame), "utf-8")
    return frame


def _markdown(frame: polars.DataFrame) -> str:
    lines = ["Recall at 5 % of the clean pairs (area under the curve); means over seeds.", ""]
    for (share,), its in sorted(frame.partition_by("share", as_dict=True).items()):
        scores = its["score"].unique(maintain_order=True).to_list()
        heads = ["attack", "poisons", "seeds", *scores, "found", "clean lost"]
        lines += [f"## {share:.1%} of the pairs", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for mine in its.partition_by("attack", maintain_order=True):
            cells = [mine["attack"][0], f"{_mean(mine, 'poisons'):.0f}", str(mine["seed"].n_unique())]
            for score in scores:
                of = mine.filter(mine["score"] == score)
                shown = f"{_mean(of, 'recall_at_5'):.3f} ({_mean(of, 'auroc'):.3f})" if len(of) else "–"
                cells.append(shown)
            cells += [f"{_mean(mine, 'found'):.3f}", f"{_mean(mine, 'clean_lost'):.4f}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _mean(frame: polars.DataFrame, column: str) -> float:
    return float(np.mean(frame[column].to_numpy()))


def main() -> int:
    """Measure what is not measured yet, and print the table."""
    told = _arguments()
    try:
        sweep = load_sweep(told.sweep, changes=told.set)
        run = told.run or Path("runs") / f"detection_{sweep.name}"
        executor = open_executor(told.executor, workers=told.workers)
        with turn(run, "corpus"):
            corpus = find_corpus(sweep, run, executor=executor)
            pairs = survey(corpus, run, executor=executor).pairs
        copies = list(copies_of(sweep, corpus, told, pairs=pairs))
        part = WHOLE if told.part is None else part_from(told.part)
        mine = list({copy.name: copy for copy in copies}.values())[part.number - 1 :: part.of]
        todo = [copy for copy in mine if not StageFolder(copy_folder(run, copy)).finished]
        say(f"{len(copies)} copies, {len(todo)} to do")
        for copy, why in zip(todo, executor.map(partial(CopyWorker, run), todo), strict=True):
            say(f"{copy.attack} at {copy.share:.1%}, seed {copy.seed}: {why or 'measured'}")
        publish(copies, run)
    except RoclipError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print((run / "detection.md").read_text("utf-8"))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", nargs="?", default="fashion", help="a TOML file or a preset")
    parser.add_argument("--run", type=Path, help="folder; runs/detection_NAME if not named")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in TOML")
    parser.add_argument("--only", nargs="+", default=[], metavar="ATTACK", help="of the sweep's attacks")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the pairs")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument(
        "--young-clips", type=int, help="that look again, instead of the sweep's; 0 trains nothing"
    )
    parser.add_argument(
        "--published", nargs="+", default=(), metavar="DETECTOR", help="of 'roclip score', to compare with"
    )
    parser.add_argument("--part", metavar="I/N", help="every N-th copy, for N processes side by side")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--executor", default="ray")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
