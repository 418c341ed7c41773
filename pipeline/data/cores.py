"""Work that all cores share, in threads: what takes long there releases the interpreter lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def num_cores() -> int:
    """The cores that this process may use, which a container or `taskset` may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_with_all_cores(function: Callable[[Item], Made], items: Iterable[Item], *, ahead: int) -> Iterator[Made]:
    """Results in order, at most `ahead` of them made before they are taken; items are requested as they are needed."""
    made: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(num_cores())
    try:
        for item in items:
            if len(made) == ahead:
                yield made.popleft().result()
            made.append(pool.submit(function, item))
        while made:
            yield made.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
