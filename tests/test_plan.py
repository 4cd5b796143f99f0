"""The plan's arithmetic, on rates that can be multiplied in one's head."""

from __future__ import annotations

import tomllib

import pytest

from benchmarks.plan import RATES, Cluster, Demand, demands

ROUND_RATES = {
    "core": {"decode": 100, "copy": 1_000, "scan": 500},
    "bytes": {"pair": 10_000, "metadata": 100},
    "model": {"width": 64, "gflop_a_pair": 10, "gpu_gflops": 1_000},
    "search": {
        "core_gflops": 10,
        "codes_a_core": 1_000_000,
        "scored_a_core": 1_000,
        "nprobe": 8,
        "neighbours": 9,
        "pool": 500,
    },
    "driver": {"bytes_a_pair": 50},
}
PAIRS = 1_000_000  # 4,000 lists


def needed(stage: str, *, nodes: int = 2) -> Demand:
    (found,) = (demand for demand in demands(PAIRS, ROUND_RATES, nodes=nodes) if demand.stage == stage)
    return found


def test_embedding_is_decoded_on_cores_and_encoded_on_gpus() -> None:
    demand = needed("embed")
    assert (demand.core_seconds, demand.gpu_seconds) == (10_000, 10_000)
    assert demand.network == PAIRS * (10_000 + 2 * 2 * 64 + 100)


def test_indexing_compares_every_row_with_every_list() -> None:
    demand = needed("index")
    assert demand.core_seconds == pytest.approx(PAIRS * 2 * 4_000 * 64 / 10e9)
    assert demand.held == PAIRS * (8 + 8)  # codes of an eighth of the width, and a row number


def test_every_part_of_an_index_chooses_lists_and_scores_again() -> None:
    lists, again, looked_at, rest = 2 * 4_000 * 64 / 10e9, 4 * (9 + 16) / 1_000, 8 * 250 / 1e6, 1 / 500
    for nodes in (1, 2, 16):
        expected = PAIRS * (nodes * (lists + again) + looked_at + rest)
        assert needed("scan", nodes=nodes).core_seconds == pytest.approx(expected)


def test_rewriting_moves_everything_twice_and_pairing_goes_through_the_pool() -> None:
    assert needed("rewrite").network == 2 * PAIRS * 10_000
    assert needed("rewrite").driver == PAIRS * 50
    assert needed("pair").core_seconds == pytest.approx(2 * PAIRS * 500 * 64 / 10e9)


def test_a_stage_takes_as_long_as_its_slowest_resource() -> None:
    cluster = Cluster(nodes=2, cores=4, gpus=1, network=1e6, memory=1e9)
    demand = Demand(
        stage="", core_seconds=8 * 3_600, gpu_seconds=6 * 3_600, network=2e6 * 3_600, held=1e9, driver=2e9
    )
    assert cluster.hours(demand) == {"cores": 1, "network": 1, "GPUs": 3}
    assert cluster.memory_share(demand) == 2


def test_the_published_rates_make_a_plan() -> None:
    rates = tomllib.loads(RATES.read_text(encoding="utf-8"))
    cluster = Cluster(**rates["cluster"])
    for demand in demands(400e6, rates, nodes=cluster.nodes):
        assert all(hours > 0 for hours in cluster.hours(demand).values())
