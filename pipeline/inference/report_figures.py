"""The figures of a report."""

import math
from typing import Any

import numpy as np

from pipeline.inference.measured import Measured
from pipeline.inference.report_regions import Region
from pipeline.inference.svg import COLOURS, INK, as_svg, draw_legend, draw_line, hint, new_figure, prepare
from pipeline.inference.weights import CHOSEN, KINDS

AREA, LARGEST = 9000.0, 90.0  # square points of all dots of a shape, and of the largest one
MAX_DOTS = 300  # of a line, so that a long training makes no large file


def curves(rows: list[dict[str, float]]) -> str:
    """The loss, both splits' MSE and the rate over the epochs of a run's table."""
    rows = rows[:: max(1, -(-len(rows) // MAX_DOTS))]
    figure = new_figure(7, 6.5)
    of_error, of_loss, of_rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1.3))
    series = [
        (of_error, "validation_mse", "validation", COLOURS[1]),
        (of_error, "train_mse", "train", COLOURS[0]),
        (of_loss, "train_loss", "training loss", COLOURS[0]),
        (of_rate, "learning_rate", "learning rate", COLOURS[2]),
    ]
    losses = [row["train_loss"] for row in rows if not math.isnan(row.get("train_loss", math.nan))]
    linear = not losses or min(losses) <= 0  # as those of likelihoods may be; there is none if no step was trained
    for axes, column, label, colour in series:
        lowest = -math.inf if linear and axes is of_loss else 0
        known = [row for row in rows if row.get(column, lowest) > lowest]
        says = [f"epoch {row['epoch']:g}: {label} {row[column]:.4g}" for row in known]
        x, y = [row["epoch"] for row in known], [row[column] for row in known]
        draw_line(axes, x, y, says, label=label, colour=colour)
    prepare(of_error, y="MSE, px²", logarithmic=True)
    prepare(of_loss, y="loss", logarithmic=not linear)
    prepare(of_rate, x="epoch", y="rate", logarithmic=False)
    draw_legend(of_error)
    return as_svg(figure, title="Curves of the training", prefix="curves")


def shape(measured: Measured, regions: list[Region]) -> str:
    """The error of each point on the mean shape, and by regions."""
    figure = new_figure(7, 6.2)
    axes = figure.subplots()
    errors, (x, y) = measured.point_errors, measured.mean_shape.T
    known = np.isfinite(errors)
    size = min(LARGEST, AREA / len(errors))
    highest = np.percentile(errors[known], 99) if known.any() else 1.0
    says = [f"point {index}: {errors[index]:.2f} px" for index in np.flatnonzero(known)]
    found = axes.scatter(
        x[known], y[known], s=size, c=errors[known], cmap="viridis", vmin=0, vmax=highest, gid=hint(says)
    )
    axes.scatter(x[~known], y[~known], s=size, facecolors="none", edgecolors=INK)
    for region in (each for each in regions if np.isfinite(each.error)):
        left, top = region.middle
        axes.text(left, top, f"{region.error:.1f}", color=INK, ha="center", va="center", weight="bold", alpha=0.85)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    bar = figure.colorbar(found, extend="max", shrink=0.7)
    bar.set_label("RMS error, px of the photo", color=INK)
    bar.ax.tick_params(colors=INK)
    return as_svg(figure, title="Error of each point on the mean shape", prefix="shape")


def distribution(errors: np.ndarray) -> str:
    """How many photos have which MSE, on a logarithmic scale."""
    known = np.maximum(errors[np.isfinite(errors)], 1e-6)
    figure = new_figure(7, 3)
    axes = figure.subplots()
    low, high = np.log10(known.min()), np.log10(known.max())
    edges = np.logspace(low - 1e-3, max(high, low + 0.1) + 1e-3, 31)
    counts = np.histogram(known, edges)[0]
    bars = axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=COLOURS[0], alpha=0.85)
    for bar, count, start, end in zip(bars, counts, edges, edges[1:], strict=False):
        bar.set_gid(hint([f"{count:,} photos of {start:.3g} to {end:.3g} px²"]))
    for value, word in ((np.median(known), "median"), (known.mean(), "mean"), (np.percentile(known, 99), "99 %")):
        axes.axvline(value, color=INK, linewidth=1, linestyle=":")
        axes.text(value, counts.max() * 1.02, f"{word} {value:.3g}", color=INK, ha="center", fontsize=7, rotation=20)
    axes.set_xscale("log")
    prepare(axes, x="MSE of a photo, px²", y="photos")
    return as_svg(figure, title="Distribution of the photos' errors", prefix="distribution")


def parts(rows: list[dict[str, Any]], *, prefix: str) -> str:
    """The score of each part, a view or a run, and of each merge, with its interval."""
    figure = new_figure(7, 0.8 + 0.28 * len(rows))
    axes = figure.subplots()
    for row, place in zip(rows, range(len(rows), 0, -1), strict=True):
        merged = row["part"] in (*KINDS, CHOSEN)
        colour = COLOURS[1] if row["part"] == CHOSEN else COLOURS[2] if merged else COLOURS[0]
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axes.scatter([row["mse"]], [place], color=colour, s=24, gid=hint([_says(row)]))
    axes.set_yticks(range(len(rows), 0, -1), [row["part"] for row in rows], parse_math=False)
    prepare(axes, x="MSE on held-out photos, px², and 95 % interval")
    return as_svg(figure, title="What each part brings", prefix=prefix)


def _says(row):
    return f"{row['part']}: {row['mse']:.3f} px² ({row['low']:.3f} … {row['high']:.3f}), NME {row['nme']:.2f} %"


def calibration(rows: list[dict[str, float]]) -> str:
    """Expected against found error, a dot for each fifth of the points."""
    figure = new_figure(4, 3.4)
    axes = figure.subplots()
    expected, found = ([row[name] for row in rows] for name in ("expected", "found"))
    says = [f"expected {e:.2f} px, found {f:.2f} px" for e, f in zip(expected, found, strict=True)]
    draw_line(axes, expected, found, says, label="a fifth of the points", colour=COLOURS[0])
    most = max(*expected, *found)
    axes.plot([0, most], [0, most], color=INK, linestyle=":", label="perfect")
    prepare(axes, x="expected RMS error, px", y="found, px")
    draw_legend(axes)
    return as_svg(figure, title="Calibration of the uncertainty", prefix="calibration")
