"""What 400 million and 2 billion pairs would take, computed from rates that were measured.

    python -m benchmarks.plan [--rates FILE.toml] [--pairs 400e6,2e9] [--nodes 32]

Nothing is run. benchmarks/rates.toml holds what one core does, by which script and on which machine, and what
is assumed of a cluster. Every stage is charged with what it needs of four resources, and takes as long as
the slowest of them:

    cores      pairs over the rate of one core
    GPUs       operations over the share of the card's rate that is assumed
    network    bytes from and to the object store
    memory     what must be held at once, over what a node has: more than 100 % does not run as it is

Work is taken as spread evenly over the nodes, since each handles shards by itself; what one process must hold
alone, the driver, has a column of its own. The index has a part per node, and every query visits all parts:
choosing lists and scoring candidates again are paid for once a part.
"""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roclip_sanitize.index_kinds import RERANKED
from roclip_sanitize.index_plan import Sizes
from roclip_sanitize.neighbours import SLACK

RATES = Path(__file__).with_name("rates.toml")
HOUR = 3_600.0
ID_BYTES = 8  # a row number beside each code
HALF, FLOAT = 2, 4  # bytes of a stored value, and of one in memory
MODALITIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one stage needs, in all.

    Attributes:
        stage: its name.
        core_seconds: of processor time.
        gpu_seconds: of GPU time.
        network: bytes read and written.
        held: bytes that all nodes together must hold at once.
        driver: bytes that the driver alone must hold.
    """

    stage: str
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    network: float = 0.0
    held: float = 0.0
    driver: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal nodes.

    Attributes:
        nodes: how many.
        cores: of a node.
        gpus: of a node.
        network: bytes per second of a node, to and from the object store.
        memory: bytes of a node.
    """

    nodes: int
    cores: int
    gpus: int
    network: float
    memory: float

    def hours(self, demand: Demand) -> dict[str, float]:
        """Hours that each resource is busy, if the stage never waits for another."""
        busy = {
            "cores": demand.core_seconds / (self.nodes * self.cores),
            "network": demand.network / (self.nodes * self.network),
        }
        if demand.gpu_seconds:
            busy["GPUs"] = demand.gpu_seconds / (self.nodes * self.gpus) if self.gpus else math.inf
        return {name: seconds / HOUR for name, seconds in busy.items()}

    def memory_share(self, demand: Demand) -> float:
        """Of the fullest node's memory; the driver has a node of its own."""
        return max(demand.held / self.nodes, demand.driver) / self.memory


def main() -> None:
    """Print a table for every size."""
    told = _arguments()
    rates = tomllib.loads(told.rates.read_text(encoding="utf-8"))
    cluster = replace(Cluster(**rates["cluster"]), nodes=told.nodes or rates["cluster"]["nodes"])
    for pairs in told.pairs:
        show(list(demands(pairs, rates, nodes=cluster.nodes)), pairs, cluster)


def demands(pairs: float, rates: Mapping[str, Any], *, nodes: int) -> Iterator[Demand]:
    """What each stage needs for so many pairs.

    Args:
        pairs: image-caption pairs.
        rates: a rates file.
        nodes: so many parts the index has, each searched by the node that owns it.
    """
    core, size, model, search = (rates[name] for name in ("core", "bytes", "model", "search"))
    shards, vectors = pairs * size["pair"], pairs * HALF * model["width"]  # of one modality
    tables, driver = pairs * size["metadata"], pairs * rates["driver"]["bytes_a_pair"]
    yield Demand(
        stage="embed",
        core_seconds=pairs / core["decode"],
        gpu_seconds=pairs * model["gflop_a_pair"] / model["gpu_gflops"],
        network=shards + MODALITIES * vectors + tables,
    )
    sizes = Sizes.of("ivf_pq", rows=round(pairs), width=model["width"])
    choosing_lists = 2 * sizes.lists * model["width"] / 1e9 / search["core_gflops"]
    codes = pairs * (sizes.codes + ID_BYTES)
    yield Demand(
        stage="index",
        core_seconds=pairs * choosing_lists,
        network=2 * vectors + codes,  # full vectors are kept beside the codes
        held=codes,
    )
    scored_again = RERANKED * (search["neighbours"] + SLACK) / search["scored_a_core"]
    looked_at = search["nprobe"] * pairs / sizes.lists / search["codes_a_core"]
    yield Demand(
        stage="scan",
        core_seconds=pairs * (nodes * (choosing_lists + scored_again) + looked_at + 1 / core["scan"]),
        network=codes + 2 * vectors + tables,
        held=codes + vectors,
        driver=driver,
    )
    yield Demand(stage="rewrite", core_seconds=pairs / core["copy"], network=2 * shards, driver=driver)
    pool = search["pool"] * model["width"]
    yield Demand(
        stage="pair",
        core_seconds=2 * pairs * pool / 1e9 / search["core_gflops"],
        network=vectors + tables,
        held=nodes * FLOAT * pool,
    )


def show(needed: list[Demand], pairs: float, cluster: Cluster) -> None:
    """Print one size."""
    print(
        f"\n{pairs:,.0f} pairs on {cluster.nodes} nodes of {cluster.cores} cores, {cluster.gpus} GPUs, "
        f"{cluster.memory / 1e9:,.0f} GB, {cluster.network / 1e9:g} GB/s\n"
    )
    print("| stage | core hours | GPU hours | moved, TB | held, GB | driver, GB | hours | gives way first |")
    print("|---|---|---|---|---|---|---|---|")
    total = 0.0
    for demand in needed:
        busy = cluster.hours(demand)
        bound = max(busy, key=busy.__getitem__)
        total += busy[bound]
        share = cluster.memory_share(demand)
        first = f"memory: {share:.0%} of a node" if share > 1 else bound
        print(
            f"| {demand.stage} | {demand.core_seconds / HOUR:,.0f} | {demand.gpu_seconds / HOUR:,.1f} "
            f"| {demand.network / 1e12:,.2f} | {demand.held / 1e9:,.0f} | {demand.driver / 1e9:,.0f} "
            f"| {busy[bound]:,.1f} | {first} |"
        )
    print(f"\n{total:,.1f} hours in all")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=Path, default=RATES)
    parser.add_argument("--pairs", type=_sizes, default=(400e6, 2e9), help="sizes, joined by commas")
    parser.add_argument("--nodes", type=int, default=0, help="instead of the rates file's")
    return parser.parse_args()


def _sizes(joined: str) -> tuple[float, ...]:
    return tuple(float(size) for size in joined.split(","))


if __name__ == "__main__":
    main()
