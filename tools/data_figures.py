"""The figures of tools.inspect, as SVG within a page."""

import numpy as np

from pipeline.data.photo_statistics import Looked
from pipeline.data.shape_model import ShapeModel
from pipeline.inference.svg import COLOURS, INK, as_svg, draw_legend, hint, new_figure, prepare

NUM_BINS = 40
NUM_WAYS = 4  # in which shapes differ
DEVIATIONS = 2.5  # by which a shape is moved along one of them
LARGEST, AREA = 30.0, 4000.0  # square points, of a dot, and of all dots of a shape
LABELS = {
    "aspect": "width / height",
    "black bars": "share in black bars",
    "brightness": "brightness, of 255",
    "contrast": "spread of the brightness",
    "colour": "difference of channels",
    "sharpness": "log variance of the Laplacian",
}


def draw_sizes(train: Looked, test: Looked | None) -> str:
    """Widths and heights, a dot for each size."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    prepare(axes, x="width, pixels", y="height, pixels")
    for looked, label, colour in zip((train, test), ("train", "test"), COLOURS, strict=False):
        if looked is not None:
            pairs, counts = np.unique(looked.statistics[:, :2], axis=0, return_counts=True)
            says = [f"{label}: {w:.0f} × {h:.0f}, {n:,} photos" for (w, h), n in zip(pairs, counts, strict=True)]
            area = np.clip(6 * counts, 8, 80)
            axes.scatter(
                pairs[:, 0], pairs[:, 1], s=area, color=colour, alpha=0.7, linewidths=0, label=label, gid=hint(says)
            )
    draw_legend(axes)
    return as_svg(figure, title="Sizes of the photos", prefix="sizes")


def draw_distributions(train: Looked, test: Looked | None) -> str:
    """How statistics are distributed in train and test, as shares of the photos."""
    figure = new_figure(8, 4.6)
    for axes, (name, label) in zip(figure.subplots(2, 3).ravel(), LABELS.items(), strict=True):
        prepare(axes, x=label)
        sides = [looked.column(name) for looked in (train, test) if looked is not None]
        low, high = np.quantile(np.concatenate(sides), (0.002, 0.998))
        bins = np.linspace(low, max(high, low + 1e-6), NUM_BINS + 1)
        for values, side, colour in zip(sides, ("train", "test"), COLOURS, strict=False):
            weights = np.full(len(values), 100 / max(len(values), 1))
            clipped = values.clip(bins[0], bins[-1])
            axes.hist(clipped, bins, weights=weights, histtype="step", color=colour, label=side)
        axes.set_yticks([])
    draw_legend(figure.axes[0])
    return as_svg(figure, title="Brightness, colours and aspects of the photos", prefix="distributions")


def draw_pairs(mean_shape: np.ndarray, flip_indices: np.ndarray | None) -> str:
    """The mean shape; lines join the points that are partners under mirroring, others lie on the axis."""
    figure = new_figure(5, 5)
    axes = figure.subplots()
    if flip_indices is not None:
        for point, partner in enumerate(flip_indices):
            if point < partner:
                axes.plot(*mean_shape[[point, partner]].T, color=INK, linewidth=0.5, alpha=0.4, zorder=0)
    own = np.arange(len(mean_shape)) if flip_indices is None else flip_indices
    middle = own == np.arange(len(mean_shape))
    says = [f"{point}" if point == partner else f"{point} ↔ {partner}" for point, partner in enumerate(own)]
    size = min(LARGEST, AREA / len(mean_shape))
    for which, colour in ((~middle, COLOURS[0]), (middle, COLOURS[4])):
        if which.any():
            texts = [says[point] for point in np.flatnonzero(which)]
            x, y = mean_shape[which].T
            axes.scatter(x, y, s=size, color=colour, linewidths=0, gid=hint(texts))
    _plain(axes)
    return as_svg(figure, title="The mean shape and its pairs of points", prefix="pairs")


def draw_ways(model: ShapeModel) -> str:
    """The mean shape and both ends of each of the main ways in which shapes differ."""
    order = np.argsort(-(model.loadings**2).sum(axis=(0, 1)))[:NUM_WAYS]
    total = (model.loadings**2).sum() + 2 * model.noise * (len(model.mean) - 1)
    size = min(LARGEST, AREA / len(model.mean)) / 2
    figure = new_figure(2.2 * max(len(order), 1), 2.6)
    for axes, way in zip(figure.subplots(1, max(len(order), 1), squeeze=False)[0], order, strict=False):
        for step, colour in ((-DEVIATIONS, COLOURS[0]), (DEVIATIONS, COLOURS[4])):
            moved = model.mean + step * model.loadings[..., way]
            axes.scatter(*moved.T, s=size, color=colour, linewidths=0)
        axes.scatter(*model.mean.T, s=size / 2, color=INK, linewidths=0, alpha=0.4)
        axes.set_title(f"{(model.loadings[..., way] ** 2).sum() / total:.0%} of the variance", color=INK, fontsize=9)
        _plain(axes)
    return as_svg(figure, title="The main ways in which shapes differ", prefix="ways")


def _plain(axes):
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
