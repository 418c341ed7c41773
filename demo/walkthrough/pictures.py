"""The pictures of the walkthrough: those that its steps have drawn, made small, and charts of what they say."""

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from demo.walkthrough.steps import FOLDER, RUN, SUBMISSIONS
from demo.walkthrough.walk import Walked
from pipeline.errors import UserError
from pipeline.files import replacing

OUT = Path("readme_img/walkthrough")
MAX_BYTES = 80_000
MAX_WIDE = 1000  # pixels
SHEET_ROWS = 4  # of photos, each of 100 pixels
QUALITIES = range(88, 40, -4)
DRAWN = {
    "contest": f"{FOLDER}/data_sheets/train_002.jpg",
    "photos": f"{FOLDER}/data_sheets/train_001_points.jpg",
    "rate": f"{RUN['rate-find-lr']}/loss_over_rate.png",
    "other": f"{FOLDER}/other/runs/*_other_*/pictures/curves.png",
    "head": f"{RUN['head']}/pictures/worst_validation.png",
    "curves": f"{RUN['full']}/pictures/curves.png",
    "lower": f"{RUN['low']}/pictures/curves.png",
    "draws": f"{FOLDER}/sheets/draws.jpg",
    "worst": f"{RUN['low']}/pictures/worst_validation.png",
    "point_errors": f"{RUN['low']}/pictures/point_errors.png",
    "predictions": f"{FOLDER}/runs/ensemble_*/pictures/test.png",
}
HEIGHTS = {"contest": 100 * SHEET_ROWS, "photos": 100 * SHEET_ROWS, "head": 328}  # pixels shown, from the top
CHARTS = ("folds", "views", "average")  # steps that say an MSE with its interval in some lines
SCORED = re.compile(r"^(?P<label>\S.*?) {2,}.*?(?P<mse>\d+\.\d+) .*?(?P<low>\d+\.\d+) … (?P<high>\d+\.\d+)")
ENTRY = re.compile(r" (?P<mse>\d+\.\d+) +((?P<low>\d+\.\d+) … (?P<high>\d+\.\d+) +)?\d+\.\d+ +[+-]\d+\.\d+  \S+$")
SAID = re.compile(r"^MSE (?P<mse>[\d.]+) px² \((?P<low>[\d.]+) … (?P<high>[\d.]+)\)")

Scored = tuple[str, float, float, float]  # what it is of, its MSE and the ends of the interval


def write_pictures(done: Mapping[str, Walked], errors: Mapping[str, float]):
    """Writes all pictures. done: the steps. errors: the MSE at each step, by what the step is called."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, pattern in DRAWN.items():
        found = sorted(glob.glob(pattern))
        picture = cv2.imread(found[-1]) if found else None
        if picture is None:
            raise UserError(f"{pattern} is no picture; remove {FOLDER}/steps and walk again")
        _write(OUT / f"{name}.jpg", _small(picture[: HEIGHTS.get(name)]))
    for name in CHARTS:
        _write(OUT / f"{name}.jpg", draw_scores(scores_of(done[name].said)))
    _write(OUT / "ledger.jpg", draw_scores(expected_and_said(done)))
    _write(OUT / "errors.jpg", draw_errors(errors))


def scores_of(lines: Sequence[str]) -> list[Scored]:
    """What lines of an output say that have an MSE with its interval."""
    return [_scored(match["label"], match) for line in lines if (match := SCORED.match(line))]


def expected_and_said(done: Mapping[str, Walked]) -> list[Scored]:
    """Of each submission what was expected, or an upper bound, which has no interval, and what the leaderboard said."""
    entries = [match for line in done["ledger"].said if (match := ENTRY.search(line))]
    rows = []
    for (name, _), entry in zip(SUBMISSIONS.items(), entries, strict=True):
        said = next(match for line in done[f"score_{name}"].said if (match := SAID.match(line)))
        kind = "expected" if entry["low"] else "at most"
        rows += [_scored(f"{name}, {kind}", entry), _scored(f"{name}, scored", said)]
    return rows


def _scored(label, match) -> Scored:
    mse = float(match["mse"])
    return label, mse, float(match["low"] or mse), float(match["high"] or mse)


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


def draw_scores(rows: Sequence[Scored]) -> np.ndarray:
    """A dot for each MSE with its 95 % interval, the first at the top; BGR."""
    figure, canvas = _figure(len(rows))
    axes = figure.subplots()
    labels, values, lows, highs = zip(*rows, strict=True)
    heights, mse = np.arange(len(rows)), np.array(values)
    axes.errorbar(mse, heights, xerr=(mse - lows, highs - mse), fmt="o", color="tab:blue", capsize=3)
    axes.set_yticks(heights, labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    return _drawn(axes, canvas)


def draw_errors(errors: Mapping[str, float]) -> np.ndarray:
    """A bar for the MSE of each step, from the first at the top, on a logarithmic scale; BGR."""
    figure, canvas = _figure(len(errors))
    axes = figure.subplots()
    rows = np.arange(len(errors))
    axes.barh(rows, list(errors.values()), color="tab:blue", height=0.6)
    axes.set_yticks(rows, list(errors))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(errors.values()) / 3, max(errors.values()) * 2)
    for row, error in zip(rows, errors.values(), strict=True):
        axes.annotate(f"{error:.2f}", (error, row), xytext=(4, 0), textcoords="offset points", va="center")
    return _drawn(axes, canvas)


def _figure(num_rows):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # it takes long to import

    figure = Figure(figsize=(8, max(1.6, 0.32 * num_rows + 0.8)), dpi=110, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _drawn(axes, canvas):
    axes.set_xlabel("MSE, px²")
    axes.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)
