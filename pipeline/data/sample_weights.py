"""How much each photo counts in training: a table of names and weights, which `tools.suspects` writes for you to edit.

A photo that is not listed has the weight 1; one with 0 is left out of training. Weights count relative to their mean,
so that the learning rate need not change; held-out photos are scored alike, whatever their weights.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import csv_text, read_text

NAME, WEIGHT = "file_name", "weight"
MOST = 1e6
TAKES = f"a CSV file with the columns {NAME} and {WEIGHT}, where 0 leaves a photo out of training"


def read_sample_weights(path: Path, names: np.ndarray, *, others: Iterable[str] | None = ()) -> np.ndarray | None:
    """(N,) float64 weights of the photos `names`, or None if all count alike.

    others: names that may be in the file too, of photos that are left out for other reasons; None for any. Raises
    UserError of one line for a name of no photo, one that is there twice, and anything but a weight.
    """
    row_of = {name: row for row, name in enumerate(names.tolist())}
    weights, seen = np.ones(len(names)), set()
    beside = None if others is None else set(others)
    for line, name, cell in _rows(path):
        where = f"--sample-weights {path} line {line}"
        weight = _weight(cell, where)
        if name in seen:
            raise UserError(f"{where}: {name[:100]} has a weight already; remove one of the two rows")
        seen.add(name)
        if name in row_of:
            weights[row_of[name]] = weight
        elif beside is not None and name not in beside:
            raise UserError(f"{where}: {name[:100]!r} is not in train/landmarks.csv; remove the row, or mend the name")
    return None if (weights == 1).all() else weights


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """The number of each line, its name and its weight as text."""
    text = read_text(path, said=f"--sample-weights {path}", takes=TAKES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if header.count(NAME) != 1 or header.count(WEIGHT) != 1:
            raise UserError(
                f"--sample-weights {path} line 1: its columns are {', '.join(header)[:100]!r}; it takes {TAKES}"
            )
        name, weight = header.index(NAME), header.index(WEIGHT)
        for row in reader:
            if row and len(row) != len(header):
                where = f"--sample-weights {path} line {reader.line_num}"
                raise UserError(f"{where}: {len(row)} columns where the header has {len(header)}")
            if row:
                yield reader.line_num, row[name], row[weight]
    except csv.Error as error:
        raise UserError(f"--sample-weights {path} line {reader.line_num}: {error}; it takes {TAKES}") from error


def _weight(cell, where):
    try:
        weight = float(cell)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= MOST or "_" in cell:
        raise UserError(
            f"{where}: {cell[:100]!r} is no weight; it is a number from 0, which leaves out, to {MOST:,.0f}"
        )
    return weight


def relative_weights(weights: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(N,) weights whose mean over the training photos, at `samples`, is 1."""
    return weights / weights[samples].mean()


def weights_table(names: np.ndarray, weights: np.ndarray | None) -> str:
    """The weights as the text of a file, with a row for each weight that is not 1."""
    pairs = [] if weights is None else zip(names.tolist(), weights.tolist(), strict=True)
    return csv_text([(NAME, WEIGHT), *(pair for pair in pairs if pair[1] != 1)])


def describe_weights(weights: np.ndarray, held_out: np.ndarray) -> str:
    """What the weights do to the photos that are not among `held_out`, in a few words."""
    own = np.delete(weights, held_out)
    count = {"left out": own == 0, "below 1": (own > 0) & (own < 1), "above 1": own > 1}
    return ", ".join(f"{which.sum():,} {word}" for word, which in count.items() if which.any()) or "all 1 in training"
