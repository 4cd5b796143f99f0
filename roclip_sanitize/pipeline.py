"""Streams that threads work ahead on.

    in_order()   a function over a stream by several threads, results in the stream's own order
    ahead()      a stream that a thread of its own makes, a few items before they are asked for

Both are plain generators, so they chain. Only a bounded number of items is under way. What goes
wrong in a thread is raised where the result is taken, once and as it was raised. Closing the
generator ends its threads: use contextlib.closing, since an exception's traceback would keep a
generator alive that was merely left.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Seconds = defaultdict[str, float]  # by step

ITEMS_PER_THREAD = 3  # one in work, one waiting, one done


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Generator[Result, None, None]:
    """Apply a function by several threads, a bounded number of items under way.

    Yields:
        Its results, in the order of the items. With one thread, the caller's own computes each
        as it is asked for.
    """
    if threads == 1:
        yield from map(function, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        running = deque(pool.submit(function, item) for item in islice(waiting, threads * ITEMS_PER_THREAD))
        try:
            while running:
                result = running.popleft().result()
                running.extend(pool.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in running:
                future.cancel()


def ahead(items: Iterator[Item], *, depth: int, name: str = "ahead") -> Generator[Item, None, None]:
    """Let a thread of its own make a stream's items before they are asked for.

    Args:
        items: the stream. It is closed, if it can be, in the thread that runs it.
        depth: how many items may be ready or in the making, at least 1.
        name: of the thread.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]  # not the end, hence an Item
        finally:
            for future in coming:
                future.cancel()
            thread.submit(getattr(items, "close", bool)).result()


def timed(items: Iterable[Item], seconds: Seconds, step: str) -> Iterator[Item]:
    """The same items; the time it takes to get each is added to ``seconds[step]``."""
    iterator, end = iter(items), object()
    while True:
        started = time.perf_counter()
        item = next(iterator, end)
        seconds[step] += time.perf_counter() - started
        if item is end:
            return
        yield item  # type: ignore[misc]  # not the end, hence an Item


def chunked(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Cut a stream into tuples of ``size``, the last one maybe shorter."""
    iterator = iter(items)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
