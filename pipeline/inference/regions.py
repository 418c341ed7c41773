"""Regions: points of the mean shape that lie together, for errors that can be said in a line."""

from dataclasses import dataclass

import numpy as np

MAX_REGIONS = 8
FEW = 3  # points a region, at least on average


@dataclass(frozen=True)
class Region:
    """points: indices. name: where it lies. middle: (x, y) in the frame of the mean shape. error: RMS, in pixels."""

    name: str
    points: np.ndarray
    middle: tuple[float, float]
    error: float


def find_regions(mean_shape: np.ndarray, errors: np.ndarray) -> list[Region]:
    """Regions of (K, 2) points by Ward's clustering, from the top to the bottom; errors (K,) are NaN where unknown."""
    from sklearn.cluster import AgglomerativeClustering  # it takes long to import

    count = min(MAX_REGIONS, len(mean_shape) // FEW)
    clustering = AgglomerativeClustering(max(count, 1))
    labels = clustering.fit_predict(mean_shape) if count > 1 else np.zeros(len(mean_shape), int)
    low, high = mean_shape.min(axis=0), mean_shape.max(axis=0)
    regions = []
    for label in range(labels.max() + 1):
        points = np.flatnonzero(labels == label)
        middle = mean_shape[points].mean(axis=0)
        squares = errors[points] ** 2
        error = float(np.sqrt(np.nanmean(squares))) if np.isfinite(squares).any() else float("nan")
        name = _place((middle - low) / np.maximum(high - low, 1e-9))
        regions.append(Region(f"{name} ({_spans(points)})", points, (float(middle[0]), float(middle[1])), error))
    return sorted(regions, key=lambda region: (region.middle[1], region.middle[0]))


def _place(share):
    across = ("left", "middle", "right")[min(2, int(3 * share[0]))]
    down = ("top", "middle", "bottom")[min(2, int(3 * share[1]))]
    return "middle" if across == down == "middle" else f"{down} {across}"


def _spans(points):
    """Such as 3–7, 12; of many spans the first ones."""
    ends = np.flatnonzero(np.diff(points) > 1)
    starts = np.concatenate(([0], ends + 1))
    stops = np.concatenate((ends, [len(points) - 1]))
    said = [f"{points[a]}–{points[b]}" if b > a else f"{points[a]}" for a, b in zip(starts, stops, strict=True)]
    return ", ".join(said[:4]) + (" …" if len(said) > 4 else "")
