"""Where the time of a training goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Phases:
    """Seconds of this sitting by what they were spent on. A phase within another counts in both."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock

    @contextmanager
    def spent_on(self, phase: str) -> Iterator[None]:
        begun = self._clock()
        try:
            yield
        finally:
            self.seconds[phase] += self._clock() - begun

    def waited_for(self, phase: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that one waits for each is counted, and not that of its use."""
        coming = iter(items)
        while True:
            with self.spent_on(phase):
                try:
                    item = next(coming)
                except StopIteration:
                    return
            yield item
