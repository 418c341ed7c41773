"""A look at a contest's photos and points: `python -m tools.inspect --data PATH`.

Writes `data.html`, a page that needs only the sheets of photos beside it: how many photos there are, their sizes, black
bars, colours and brightness, whether train and test can be told apart, points that are missing or outside, the mean
shape and how shapes differ, the left/right pairs and the region of interest that a training would find, and sheets of
some two thousand photos, with and without points.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from tyro.conf import arg

from augment import transform_points
from pipeline.cli import parse_flags
from pipeline.data.contest import LANDMARKS, TEST_POINTS, find_contest
from pipeline.data.dataset import TrainingData, leaks, load_training_data
from pipeline.data.drawing import POINTS, draw_points, grid, write_picture
from pipeline.data.duplicates import find_pairs
from pipeline.data.odd_shapes import fit_usual_shapes
from pipeline.data.photo_statistics import GREY, Looked, Shift, look_at, shift_between
from pipeline.data.regions import find_regions
from pipeline.data.roi import describe_roi
from pipeline.data.split import near_duplicate_groups
from pipeline.errors import run_script
from pipeline.files import check_folder, write_text
from pipeline.inference.page import jpeg, render
from pipeline.inference.svg import dots
from pipeline.recipe import PhotoOptions, Recipe, RunOptions
from tools.data_figures import draw_distributions, draw_pairs, draw_sizes, draw_ways

TEMPLATE = Path(__file__).with_name("data.html.j2")
SHEETS = "data_sheets"
TILE = 96  # pixels, the side of a photo on a sheet
COLUMNS, ROWS = 10, 10
NUM_SHAPES = 20_000  # of which missing points are counted


@dataclass(frozen=True)
class Options:
    data: Annotated[Path, arg(aliases=["-d"], metavar="PATH")] = Path()
    """The contest's folder."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path()
    """The folder to write data.html and its sheets to."""
    photos: Annotated[int, Interval(ge=1, le=20_000)] = 2000
    """How many photos of train to show, and how many of train and of test to look at, evenly spread over the tables."""
    cache: Path = Path("cache")
    """Where decoded photos are kept; a training uses them too."""
    size: Annotated[int, Interval(ge=32, le=4096)] = 128
    """Side of the images, in pixels, that a training would use and that photos are decoded for."""
    skip_bad_photos: bool = False
    """Leave out photos that are missing or broken."""


def main():
    options = parse_flags(Options, __doc__)
    root = find_contest(options.data)
    check_folder("--out", options.out)
    where = RunOptions(data=options.data, cache=options.cache, skip_bad_photos=options.skip_bad_photos)
    data = load_training_data(Recipe(run=where, photos=PhotoOptions(size=options.size)))
    train = _look(root / LANDMARKS, data.pack.names, options.photos)
    test = _look(root / TEST_POINTS, data.test.names, options.photos) if data.test else None
    sheets = options.out / SHEETS
    sheets.mkdir(parents=True, exist_ok=True)
    for path in sheets.glob("*.jpg"):
        path.unlink()  # of an earlier look, which may have had more
    points = transform_points(train.photo_to_tile, data.pack.values[train.rows])
    pages = {"train": draw_sheets(sheets, "train", train.tiles, points)}
    if test:
        pages["test"] = draw_sheets(sheets, "test", test.tiles[: len(train.tiles)], None)
    content = content_of(data, train, test) | {"name": root.resolve().name, "pages": pages}
    path = options.out / "data.html"
    write_text(path, render(TEMPLATE, content))
    print(content["summary"])
    print(f"{path}, and {sum(map(len, pages.values())):,} sheets in {sheets}/")


def _look(table: Path, names: np.ndarray, count: int) -> Looked:
    part = table.parent.name
    return look_at(table.parent / "images", names.tolist(), count=count, side=TILE, description=f"photos of {part}")


def content_of(data: TrainingData, train: Looked, test: Looked | None) -> dict[str, Any]:
    """What the template shows, except the sheets."""
    model = fit_usual_shapes(data.pack.values, np.arange(len(data.pack)))
    shift = shift_of(data, train, test) if test else None
    regions = find_regions(data.mean_shape)
    return {
        "summary": summary(data, shift),
        "photos": table_of_photos(data, train, test),
        "warnings": leaks(data),
        "shift": shift,
        "sizes": draw_sizes(train, test),
        "distributions": draw_distributions(train, test),
        "points": table_of_points(data, train),
        "pairs": draw_pairs(data.mean_shape, data.flip_indices),
        "ways": draw_ways(model) if model and model.loadings.shape[2] else "",
        "regions": [(name, len(points)) for name, points in regions.items()],
        "symmetry": data.symmetry,
        "roi": describe_roi(data.roi),
        "shown": shown_region(data),
    }


def summary(data: TrainingData, shift: Shift | None) -> str:
    """The data in a sentence or two."""
    test = f" and {len(data.test):,} to predict" if data.test else ""
    text = f"{len(data.pack):,} photos with {data.num_points} points each to train on{test}."
    if shift and shift.is_seen:
        best = max(shift.by_statistic, key=shift.by_statistic.__getitem__)
        text += f" Train and test can be told apart (AUC {shift.auc:.2f}), most by {best}: validation may not tell the "
        text += "test's score."
    elif shift:
        text += f" By simple statistics train and test look alike (AUC {shift.auc:.2f}, 0.5 is chance)."
    return text


def shift_of(data: TrainingData, train: Looked, test: Looked) -> Shift | None:
    """Whether the photos of train and test can be told apart, with groups of either kept together."""
    assert data.test
    own, others = data.groups[train.rows], near_duplicate_groups(data.test.hashes)[test.rows]
    return shift_between(train.statistics, test.statistics, np.concatenate((own, data.groups.max() + 1 + others)))


def table_of_photos(data: TrainingData, train: Looked, test: Looked | None) -> list[tuple[str, ...]]:
    """Rows of a name and its values for train, and for the test if there is one."""
    sides = [train, *([test] if test else [])]
    packs = [data.pack, *([data.test] if data.test else [])]
    within, across = find_pairs(data.pack, data.test)
    near = [np.unique(side) for side in (np.concatenate((within.one, within.other)), across.other)]
    rows = [
        ("photos", *(f"{len(pack):,}" for pack in packs)),
        ("left out as missing or broken", *(f"{len(pack.left_out):,}" for pack in packs)),
        ("looked at for this page", *(f"{len(side.rows):,}" for side in sides)),
        *((name, *(_range(side.column(name), form) for side in sides)) for name, form in RANGES.items()),
        ("with black bars", *(_share(side.column("black bars") > 0.01) for side in sides)),
        ("grey", *(_share(side.column("colour") < GREY) for side in sides)),
        ("near-duplicates in train", *(f"{len(photos):,}" for photos in near)),
        ("the same pixels in train", _exact(within, "one", "other"), _exact(across, "other")),
    ]
    return [row[: 1 + len(sides)] for row in rows]


RANGES = {"width": "{:.0f}", "height": "{:.0f}", "aspect": "{:.2f}", "brightness": "{:.0f}", "kilobytes": "{:.0f}"}


def _exact(pairs, *sides):
    which = pairs.those(pairs.exact)
    return f"{len(np.unique(np.concatenate([getattr(which, side) for side in sides]))):,}"


def _range(values, form):
    """The median, and the range that holds 98 % of the values."""
    if not len(values):
        return "none"
    low, middle, high = (form.format(value) for value in np.quantile(values, (0.01, 0.5, 0.99)))
    return middle if low == high else f"{middle} ({low} … {high})"


def _share(which):
    return f"{which.mean():.1%}" if len(which) else "none"


def table_of_points(data: TrainingData, train: Looked) -> list[tuple[str, str]]:
    """Rows about points that are missing or lie outside their photo."""
    values = data.pack.values[:: max(1, len(data.pack) // NUM_SHAPES)]
    missing = np.isnan(values).any(axis=2)
    shapes = data.pack.values[train.rows]
    outside = ((shapes < -0.5) | (shapes > train.statistics[:, None, :2] - 0.5)).any(axis=2)
    where = f"{outside.mean():.2%} of the points, some in {_share(outside.any(axis=1))} of the photos"
    rows = [
        ("points", f"{data.num_points}"),
        ("missing", f"{missing.mean():.2%} of the points, some in {missing.any(axis=1).mean():.1%} of the photos"),
        ("outside of the photo", where),
    ]
    if missing.any():
        worst = missing.mean(axis=0).argmax()
        rows.append(("missing most often", f"point {worst}, in {missing[:, worst].mean():.1%} of the photos"))
    if outside.any():
        worst = outside.mean(axis=0).argmax()
        rows.append(("outside most often", f"point {worst}, in {outside[:, worst].mean():.1%} of the photos"))
    return rows


def shown_region(data: TrainingData) -> dict[str, Any]:
    """The mean photo, the part of it that a network would be shown, and the mean shape, in pixels of the square."""
    pack = data.pack
    some = np.unique(np.linspace(0, len(pack) - 1, 400).astype(int))
    mean = pack.squares[some].mean(axis=0).astype(np.uint8)
    return {
        "side": len(mean),
        "jpeg": jpeg(mean),
        "dots": dots(data.mean_shape + (pack.roi.left, pack.roi.top)),
        "left": pack.roi.left,
        "top": pack.roi.top,
        "shown": pack.roi.size,
    }


def draw_sheets(folder: Path, part: str, tiles: np.ndarray, points: np.ndarray | None) -> list[dict[str, str]]:
    """Writes sheets of photos, and the same with their points; returns their files and titles."""
    pages = []
    a_page = COLUMNS * ROWS
    for number, first in enumerate(range(0, len(tiles), a_page), start=1):
        some = slice(first, min(first + a_page, len(tiles)))
        plain = f"{part}_{number:03d}.jpg"
        write_picture(folder / plain, grid(list(tiles[some]), COLUMNS))
        page = {"plain": f"{SHEETS}/{plain}", "points": "", "title": f"{part} {first + 1:,} to {some.stop:,}"}
        if points is not None:
            drawn = [draw_points(tile, own, POINTS) for tile, own in zip(tiles[some], points[some], strict=True)]
            write_picture(folder / f"{part}_{number:03d}_points.jpg", grid(drawn, COLUMNS))
            page["points"] = f"{SHEETS}/{part}_{number:03d}_points.jpg"
        pages.append(page)
    return pages


if __name__ == "__main__":
    run_script(main)
