"""The submission: one row for each row of `test_points.csv`, in its order, with the points that it asks for.

    file_name,Point_M0_X,Point_M0_Y,Point_M1_X,…

M0, M1 … are places in the photo's list of asked points. Values are rounded, never cut off: cutting to integers is
a bias of half a pixel, which cost 0.42 of a score of 8; see docs/experiments.md.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.files import replacing


def write_submission(path: Path, names: list[str], points: np.ndarray, *, decimals: int):
    """Writes (N, L, 2) points in pixels of the photos, rounded to `decimals` places."""
    rounded = np.round(np.asarray(points, np.float64), decimals) + 0.0  # + 0.0 makes -0.0 plain
    table = pd.DataFrame(rounded.reshape(len(names), -1), index=pd.Index(names, name="file_name"))
    table.columns = [f"Point_M{place}_{axis}" for place in range(points.shape[1]) for axis in "XY"]
    with replacing(path) as file:
        table.to_csv(file, float_format=f"%.{decimals}f")


def write_uncertainty(path: Path, names: list[str], deviations: np.ndarray):
    """Writes (N, L) standard deviations, in pixels of the photos, with the rows and places of the submission."""
    table = pd.DataFrame(deviations, index=pd.Index(names, name="file_name"))
    table.columns = [f"Point_M{place}_SD" for place in range(deviations.shape[1])]
    with replacing(path) as file:
        table.to_csv(file, float_format="%.3f")


def read_submission(path: Path) -> tuple[list[str], np.ndarray]:
    """The names and the (N, L, 2) points of a submission. Raises UserError where the file is none."""
    try:
        table = pd.read_csv(path, index_col=0, dtype={0: str}, keep_default_na=False)
        values = table.to_numpy(np.float64)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a submission: {str(error).splitlines()[0]}") from error
    if not values.size or values.shape[1] % 2:
        raise UserError(
            f"{path} is not a submission: {values.shape[1]} columns of numbers; x and y of each point are expected"
        )
    return [str(name) for name in table.index], values.reshape(len(values), -1, 2)


def read_in_order(path: Path, names: list[str], num_points: int, *, of: Path) -> np.ndarray:
    """The (N, L, 2) points of a submission in the order of `names`, which are those of the submission `of`.

    Raises UserError where the two are not of the same photos and number of points.
    """
    found_names, points = read_submission(path)
    if sorted(found_names) != sorted(names) or points.shape[1] != num_points:
        raise UserError(
            f"{path} has {points.shape[1]} points on each of {len(points):,} photos, {of} has {num_points} on "
            f"{len(names):,}; both must be of the same photos"
        )
    row_of = {name: row for row, name in enumerate(found_names)}
    return points[[row_of[name] for name in names]]


def verify_submission(path: Path, names: list[str], points: np.ndarray, *, decimals: int):
    """Reads the file back: the names of `test_points.csv` in their order, and the predicted points to rounding."""
    found_names, found = read_submission(path)
    assert found_names == names, f"{path}: the rows are not those of test_points.csv"
    assert found.shape == points.shape, f"{path}: {found.shape} points were read back, {points.shape} were predicted"
    assert np.abs(found - points).max() <= 0.5001 * 10.0**-decimals, f"{path}: other values than were predicted"
