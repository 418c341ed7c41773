"""A large table for several that need it, and a few of its photos for a quick check."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.data import contest
from pipeline.errors import Faults


def read_few(
    read_table: Callable[[Path, Faults], contest.Table], path: Path, faults: Faults, *, limit: int
) -> contest.Table:
    """At most `limit` photos of a table, at random but always the same. The others need not even be decoded."""
    table = read_table(path, faults)
    if len(table.names) <= limit:
        return table
    chosen = np.sort(np.random.default_rng(0).choice(len(table.names), limit, replace=False))
    return contest.Table([table.names[row] for row in chosen], table.values[chosen])


class ReadOnce:
    """A large table that two need, one after the other: the first looks at it, the last takes it, so that it is freed
    when the last one is done. Either reads it if the other has not, and either gets its faults.
    """

    def __init__(self, read_table: Callable[[Path, Faults], contest.Table]):
        self._read_table = read_table
        self._known: tuple[contest.Table, Faults] | None = None

    def look(self, path: Path, faults: Faults) -> contest.Table:
        if not self._known:
            own = Faults()
            self._known = self._read_table(path, own), own
        table, found = self._known
        faults.extend(found)
        return table

    def take(self, path: Path, faults: Faults) -> contest.Table:
        table, self._known = self.look(path, faults), None
        return table
