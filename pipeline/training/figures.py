"""Figures of a training, as (H, W, 3) uint8 RGB pictures. They are drawn without pyplot, which keeps state and may look
for a screen."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.regions import Regions
from pipeline.inference.report_regions import with_errors
from pipeline.inference.svg import set_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
RAW, SMOOTHED, VALIDATION = "0.75", "black", "tab:orange"
AREA = 12000.0  # square points that the dots of all points of a shape share
LARGEST = 90.0  # square points, of a dot
LABEL: dict[str, Any] = {
    "fontsize": 8,
    "parse_math": False,
    "bbox": {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "0.8", "alpha": 0.8},
}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, for the canvas that only computes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def picture_of(figure: "Figure") -> np.ndarray:
    """(H, W, 3) uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def draw_curves(steps: np.ndarray, history: list[dict[str, Any]], *, title: str) -> np.ndarray:
    """The loss and the rate of (N, 4) steps, as in `StepRecord`, and the errors of a history's epochs."""
    figure = new_figure(9, 9)
    figure.suptitle(title, fontsize=10)
    of_loss, of_error, of_rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.5))
    number, loss, smoothed, rate = steps.T
    of_loss.plot(number, loss, color=RAW, linewidth=0.8, label="of a step")
    of_loss.plot(number, smoothed, color=SMOOTHED, linewidth=1.4, label="smoothed")
    _scale_by_losses(of_loss, "training loss", steps[:, 1:3])
    of_loss.legend(loc="upper right")
    done = [row["step"] for row in history]
    for split, colour in (("train", SMOOTHED), ("validation", VALIDATION)):
        errors = [row.get(f"{split}_mse", np.nan) for row in history]
        of_error.plot(done, errors, color=colour, linewidth=1.4, marker="o", markersize=3, label=split)
    set_logarithmic(of_error)
    of_error.set_ylabel("MSE, px² of the photo")
    of_error.grid(alpha=0.3)
    of_error.legend(loc="upper right")
    of_rate.plot(number, np.where(rate > 0, rate, np.nan), color=SMOOTHED, linewidth=1.2)
    of_rate.set_yscale("log")
    of_rate.set_ylabel("learning rate")
    of_rate.grid(alpha=0.3)
    of_rate.set_xlabel("step")
    return picture_of(figure)


def _scale_by_losses(axes: "Axes", label: str, losses: np.ndarray):
    """A logarithmic axis, or a linear one if any loss is not above 0, as those of likelihoods may be."""
    if not (losses <= 0).any():
        set_logarithmic(axes)
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


def draw_loss_over_rate(steps: np.ndarray) -> np.ndarray:
    """The smoothed loss over the learning rate of (N, 4) steps, coloured by how far the training was."""
    figure = new_figure(7, 5)
    axes = figure.subplots()
    swept = steps[steps[:, 3] > 0]
    dots = axes.scatter(swept[:, 3], swept[:, 2], c=swept[:, 0], s=6, cmap="viridis")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    _scale_by_losses(axes, "training loss, smoothed", swept[:, 2])
    figure.colorbar(dots, label="step")
    return picture_of(figure)


def draw_point_errors(
    mean_shape: np.ndarray, errors: np.ndarray, counts: np.ndarray, *, title: str, regions: Regions | None = None
) -> np.ndarray:
    """A dot for each of the (K, 2) points of the mean shape, coloured by its (K,) error in pixels of the photo, of
    (K,) coordinates, and beside it the root mean squared error of each region.

    The few largest errors share the last colour, so that the others can be told apart; points whose error is unknown
    are circles.
    """
    figure = new_figure(7, 7)
    axes = figure.subplots()
    known = np.isfinite(errors)
    size = min(LARGEST, AREA / len(errors))
    highest = np.percentile(errors[known], 99) if known.any() else 1.0
    x, y = mean_shape.T
    axes.scatter(x[~known], y[~known], s=size, facecolors="none", edgecolors=RAW)
    colours: dict[str, Any] = {"c": errors[known], "cmap": "viridis", "vmin": 0, "vmax": highest}
    dots = axes.scatter(x[known], y[known], s=size, **colours, edgecolors="0.5", linewidths=0.3)
    for region in with_errors(regions or {}, mean_shape, errors, counts):
        if np.isfinite(region.error):
            said = f"{region.name}: {region.error:.1f}"
            axes.annotate(said, region.middle, xytext=(0, 5), textcoords="offset points", ha="center", **LABEL)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)
    figure.colorbar(dots, label="RMS error, px of the photo", extend="max", shrink=0.8)
    return picture_of(figure)
