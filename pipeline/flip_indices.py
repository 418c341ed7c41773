"""The flip indices as a file: a JSON list with the number of each point's partner."""

import os
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import read_plain

FORMAT = "a JSON list with the number of each point's partner, its own where a point lies on the axis"
MAX_BYTES = 10_000_000


def read_flip_indices(path: Path, num_points: int) -> np.ndarray:
    """(K,) int: the flip indices in the file of --flip-indices, a JSON list with the partner of each point.

    Raises UserError of one line that names the file where it is none.
    """
    source = f"--flip-indices {path}"
    if os.path.isfile(path) and path.stat().st_size > MAX_BYTES:
        raise UserError(f"{source}: {path.stat().st_size:,} bytes are too many; it takes {FORMAT}")
    return check_flip_indices(read_plain(path, said=source, takes=FORMAT), num_points, source=source)


def check_flip_indices(found: object, num_points: int, *, source: str) -> np.ndarray:
    """(K,) int: what JSON holds, if it is a permutation that undoes itself. Raises UserError where it is not."""
    partners = found if isinstance(found, list) else []
    whole = all(type(partner) is int for partner in partners)  # True is an int, and 1.0 is 1
    if not whole or sorted(partners) != list(range(num_points)):
        raise UserError(f"{source}: not a list of whole numbers that names each of the points 0..{num_points - 1} once")
    flip_indices = np.array(partners, int)
    if (wrong := flip_indices[flip_indices] != np.arange(num_points)).any():
        point = wrong.argmax()
        partner = flip_indices[point]
        raise UserError(f"{source}: {point} has partner {partner}, whose partner is {flip_indices[partner]}")
    return flip_indices
