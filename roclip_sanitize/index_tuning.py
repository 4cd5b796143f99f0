"""How far an approximate index has to look: the least effort that reaches the recall asked for.

    held-out queries ─▶ exact answers ┐
                     ─▶ answers at growing effort ─▶ recall@10 ─▶ effort

The queries are others than those that measure() reports on, so that the choice does not flatter itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from roclip_sanitize.index_plan import IndexSettings, Sizes
from roclip_sanitize.searcher import RECALL_AT, ShardedIndex, held_out, recall_of
from roclip_sanitize.store import EmbeddingStore


def least_effort(index: ShardedIndex, store: EmbeddingStore, settings: IndexSettings, sizes: Sizes) -> int:
    """The first of efforts() whose recall@10 reaches ``settings.recall``, else the last.

    Cost: a plain search of every row for 256 queries, and one approximate search for each effort tried.
    """
    least, most = sizes.efforts
    if settings.nprobe:
        return min(settings.nprobe, most)
    tasks = held_out(store, modality=settings.asked_by, seeds=[settings.seed, 3])
    exact = list(index.search(replace(task, reference=True) for task in tasks))
    for effort in efforts(least, most):
        found = list(index.search(replace(task, effort=effort) for task in tasks))
        if recall_of(found, exact, k=max(RECALL_AT)) >= settings.recall:
            return effort
    return most


def efforts(least: int, most: int) -> Iterator[int]:
    """Efforts worth trying, each by a third or a half more than the last: 1, 2, 3, 4, 6, 8, 12, …, most."""
    effort = least
    while effort < most:
        yield effort
        power_of_two = not effort & (effort - 1)
        effort = max(effort + 1, effort * 3 // 2 if power_of_two else effort * 4 // 3)
    yield most
