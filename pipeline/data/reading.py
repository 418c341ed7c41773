"""A large table for several that need it, and a few of its photos for a quick check."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.data import contest
from pipeline.data.split import split_by_groups
from pipeline.errors import Faults


def read_few(
    read_table: Callable[[Path, Faults], contest.Table], path: Path, faults: Faults, *, groups: Path, limit: int
) -> contest.Table:
    """As many photos of a table as fit into `limit`, at random but always the same; whole groups of groups.csv, if
    there is one. The others need not even be decoded.
    """
    table = read_table(path, faults)
    if len(table.names) <= limit:
        return table
    if os.path.lexists(groups):
        group_of = contest.read_groups(groups, table.names, Faults())  # their faults are found later
    else:
        group_of = np.arange(len(table.names))
    chosen = split_by_groups(group_of, share=limit / len(table.names), seed=0)
    return contest.Table([table.names[row] for row in np.flatnonzero(chosen)], table.values[chosen])


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
