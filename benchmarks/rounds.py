"""How benchmarks compare: works are done in turn, round after round, and a figure is the median of the rounds' ratios.

What other programs do on the machine then meets all works alike, and the spread of the ratios says how much it matters.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """A figure over that of its reference: the median, the least and the most of all rounds."""

    name: str
    reference: str
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, reference: str, rounds: Sequence[float]) -> "Ratio":
        return cls(name, reference, *(round(pick(rounds), 3) for pick in (statistics.median, min, max)))


@dataclass(frozen=True)
class Times:
    """Seconds of each round, by the clock and of the processor (of all threads)."""

    clock: list[float]
    processor: list[float]


def in_turn(works: Mapping[str, Work], *, rounds: int) -> dict[str, Times]:
    """The times of works that are done in turn, after each was done once."""
    for work in works.values():
        work()
    found = {name: Times([], []) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            clock, processor = time.perf_counter(), time.process_time()
            work()
            found[name].clock.append(time.perf_counter() - clock)
            found[name].processor.append(time.process_time() - processor)
    return found


def over(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(one, other, strict=True)]
