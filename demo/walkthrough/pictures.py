"""The pictures of the walkthrough: those that its steps have drawn, made small, and one of how far the error falls."""

import glob
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from demo.walkthrough.steps import FOLDER, RUN
from pipeline.errors import UserError
from pipeline.files import replacing

OUT = Path("readme_img/walkthrough")
MAX_BYTES = 95_000
MAX_WIDE = 1000  # pixels
SHEET_ROWS = 4  # of photos, each of 100 pixels
QUALITIES = range(88, 40, -4)
DRAWN = {
    "photos": f"{FOLDER}/data_sheets/train_001_points.jpg",
    "rate": f"{RUN['rate-find-lr']}/loss_over_rate.png",
    "curves": f"{RUN['full']}/pictures/curves.png",
    "draws": f"{FOLDER}/sheets/draws.jpg",
    "worst": f"{RUN['low']}/pictures/worst_validation.png",
    "point_errors": f"{RUN['low']}/pictures/point_errors.png",
    "predictions": f"{FOLDER}/runs/ensemble_*/pictures/test.png",
}
HEIGHTS = {"photos": 100 * SHEET_ROWS}  # pixels that are shown, from the top


def write_pictures(errors: Mapping[str, float]):
    """Writes all pictures; `errors` is the MSE at each step, by what the step is called."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, pattern in DRAWN.items():
        found = sorted(glob.glob(pattern))
        picture = cv2.imread(found[-1]) if found else None
        if picture is None:
            raise UserError(f"{pattern} is no picture; remove {FOLDER}/steps and walk again")
        _write(OUT / f"{name}.jpg", _small(picture[: HEIGHTS.get(name)]))
    _write(OUT / "errors.jpg", draw_errors(errors))


def _small(picture):
    height, width = picture.shape[:2]
    if width <= MAX_WIDE:
        return picture
    return cv2.resize(picture, (MAX_WIDE, round(height * MAX_WIDE / width)), interpolation=cv2.INTER_AREA)


def _write(path: Path, picture: np.ndarray):
    """A JPEG of the highest quality that is small enough."""
    for quality in QUALITIES:
        content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(content) <= MAX_BYTES:
            break
    with replacing(path) as file:
        file.write(content)
    print(path)


def draw_errors(errors: Mapping[str, float]) -> np.ndarray:
    """A bar for the MSE of each step, from the first at the top, on a logarithmic scale; BGR."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # it takes long to import

    figure = Figure(figsize=(8, 0.42 * len(errors) + 0.8), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = np.arange(len(errors))
    axes.barh(rows, list(errors.values()), color="tab:blue", height=0.6)
    axes.set_yticks(rows, list(errors))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(errors.values()) / 3, max(errors.values()) * 2)
    axes.set_xlabel("MSE, px²")
    axes.spines[["top", "right"]].set_visible(False)
    for row, error in zip(rows, errors.values(), strict=True):
        axes.annotate(f"{error:.2f}", (error, row), xytext=(4, 0), textcoords="offset points", va="center")
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)
