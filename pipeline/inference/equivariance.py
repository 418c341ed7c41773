"""How far a network is from finding the same points through each view, which also shows whether a flip is right."""

from typing import Any

import numpy as np

from augment.geometry import scale_of


def equivariance(
    names: list[str], points: np.ndarray, photo_to_image: np.ndarray, flip_indices: np.ndarray | None
) -> list[dict[str, Any]]:
    """How far each view's points lie from those of the first view, mostly the photo as it is: a row per view, in pixels
    of the network's image.

    names: of the V views. points: (V, N, K, 2) in pixels of the photos. photo_to_image: (N, 3, 3).
    bias: mean (x, y). spread: standard deviation. confused: share of the left and right points that lie nearer to
    their partner than to themselves. A flip that is wrong by a pixel has a bias of one.
    """
    scale = scale_of(photo_to_image)[:, None, None]
    plain = points[0]
    partners = np.arange(points.shape[2]) if flip_indices is None else flip_indices
    pairs = np.flatnonzero(partners != np.arange(len(partners)))
    rows = []
    for name, found in zip(names, points, strict=True):
        difference = (found - plain) * scale
        row = {
            "view": name,
            "bias": [float(value) for value in difference.mean(axis=(0, 1)).round(4)],
            "spread": round(float(difference.std()), 4),
        }
        if len(pairs):
            own = np.linalg.norm(found[:, pairs] - plain[:, pairs], axis=2)
            other = np.linalg.norm(found[:, pairs] - plain[:, partners[pairs]], axis=2)
            row["confused"] = round(float((other < own).mean()), 5)
        rows.append(row)
    return rows


def print_equivariance(rows: list[dict[str, Any]], *, wide: int):
    """The rows as a table whose first column is `wide` characters wide."""
    print(f"\n{'against ' + rows[0]['view']:{wide}}   bias x   bias y   spread   left/right confused")
    for row in rows:
        confused = f"{row['confused']:10.2%}" if "confused" in row else ""
        print(f"{row['view']:{wide}} {row['bias'][0]:8.3f} {row['bias'][1]:8.3f} {row['spread']:8.3f} {confused}")
    print()
