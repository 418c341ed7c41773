"""Runs side by side: `python -m tools.compare [RUNS …]` prints a table of them and writes `index.html`, with their
curves in one figure, into the folder of runs.

Two runs are compared photo by photo, on the photos that both held out. One is called better only if the 95 % interval
of the paired difference, over groups, excludes zero.
"""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from tyro.conf import Positional, arg

from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder, write_text
from pipeline.inference.measured import Measured, load_measured
from pipeline.inference.page import render
from pipeline.inference.record import read_record
from pipeline.inference.report import read_metrics, read_yaml, scores_of_views
from pipeline.inference.svg import COLOURS, as_svg, draw_legend, draw_line, new_figure, prepare
from pipeline.inference.weights import CHOSEN
from pipeline.runs import Run, find_runs, folder_of
from tools.paired import Difference, difference

TEMPLATE = Path(__file__).with_name("compare.html.j2")
# Not counted as changes.
PLACES = {"name", "data", "runs", "cache", "gpu", "epochs", "minutes", "views", "split", "boxes"}
WIDE = (6, 7, 9, 17, 6, 8, 11)  # characters of the columns between the first and the last
MAX_CHANGES = 60  # characters, on the console
MAX_COMPARED = 8  # runs, compared in pairs
MAX_DOTS = 200  # of a curve


@dataclass(frozen=True)
class Options:
    run: Positional[tuple[Path, ...]] = ()
    """Runs, or folders of folds or stages; by default all below --runs."""
    runs: Path = Path("runs")
    """Where run folders are."""
    sort: Annotated[str, arg(metavar="COLUMN")] = "mse"
    """The column to sort the table by."""
    reverse: bool = False
    """Sort in reverse order."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """The page to write; by default index.html in --runs, or in the folder of runs that lie elsewhere."""


@dataclass(frozen=True)
class Row:
    """A run in the table; None where something is not known. changed: what differs from the recipe's defaults and is
    not the same in all runs. epochs, minutes: trained. mse, low, high: of the best weights on held-out photos.
    leaderboard: the best score that was noted for its submissions."""

    run: str
    changed: str
    epochs: int | None
    minutes: float | None
    mse: float | None
    low: float | None
    high: float | None
    nme: float | None
    views_mse: float | None
    leaderboard: float | None


def all_runs(options: Options) -> list[Run]:
    """The runs that are asked for, or all that were set up, including those within folds and stages."""
    if options.run:
        return [run for folder in options.run for run in find_runs((folder,), options.runs)]
    forms = [f"{form}/{name}" for form in ("*", "*/fold-*", "*/stage-*") for name in ("metrics.csv", "best.pt")]
    return [Run(folder) for folder in sorted({path.parent for form in forms for path in options.runs.glob(form)})]


def folder_of_all(runs: Sequence[Run], below: Path) -> Path:
    """The folder that runs are named from: `below`, or if one lies elsewhere the nearest that holds all of them."""
    folders = [run.folder.resolve().parent for run in runs]
    return below if all(one.is_relative_to(below.resolve()) for one in folders) else Path(os.path.commonpath(folders))


def row_of(run: Run, measured: Measured | None, *, below: Path, same: Collection[str]) -> Row:
    """The row of a run, from its files. same: fields of the recipe to leave out."""
    history = read_metrics(run)
    chosen = [row for row in scores_of_views(run)["scores"] if row.get("part") == CHOSEN]
    scored = [row for row in history if "validation_mse" in row]
    largest = max((row.get("image_size", 0) for row in scored), default=0)  # weights of smaller images are not kept
    kept = (row for row in scored if row.get("image_size", 0) == largest)
    best = min(kept, key=lambda row: row["validation_mse"], default={})
    scores = (
        measured.scores.tolist()
        if measured
        else [best.get(f"validation_{name}") for name in ("mse", "low", "high", "nme")]
    )
    if scores[0] is None and run.best.exists():  # as of an average, which was not trained
        scores[0] = run.best_mse
    mse, low, high, nme = (None if value is None or not math.isfinite(value) else float(value) for value in scores)
    noted = [
        record["leaderboard"]
        for folder in {run.folder, folder_of(run)}
        for path in folder.glob("*.csv")
        if "leaderboard" in (record := read_record(path) or {})
    ]
    return Row(
        run=_name(run, below),
        changed=_in_a_line({name: value for name, value in changes_of(run).items() if name not in same}),
        epochs=len(history) or None,
        minutes=history[-1]["minutes"] if history else None,
        mse=mse,
        low=low,
        high=high,
        nme=nme,
        views_mse=chosen[0].get("mse") if chosen else None,
        leaderboard=min(noted, default=None),
    )


def _name(run, below):
    path = run.folder.resolve()
    return str(path.relative_to(below.resolve())) if path.is_relative_to(below.resolve()) else str(run.folder)


def changes_of(run: Run) -> dict[str, Any]:
    """The fields in which a run's recipe differs from the defaults, without those in PLACES."""
    return {name: value for name, value in read_yaml(run.folder / "changes.yaml").items() if name not in PLACES}


def same_in_all(runs: Sequence[Run]) -> dict[str, Any]:
    """The fields that differ from the defaults but are the same in all of several runs, so they tell none apart."""
    first, *others = map(changes_of, runs)
    return {name: v for name, v in first.items() if others and all(name in one and one[name] == v for one in others)}


def _in_a_line(changes):
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def differences(rows: Sequence[Row], measured: dict[str, Measured]) -> list[Difference]:
    """The differences between every two of the first runs that held out photos in common, in the order of the rows."""
    names = [row.run for row in rows if row.run in measured][:MAX_COMPARED]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = [difference(pair, measured[pair[0]], measured[pair[1]]) for pair in pairs]
    return [one for one in found if one]


def sorted_rows(rows: list[Row], column: str, *, reverse: bool) -> list[Row]:
    """Rows sorted by a column; those in which it is unknown come last. Raises UserError for an unknown column."""
    if column not in (known := [field.name for field in fields(Row)]):
        raise UserError(f"--sort {column}: the columns are {', '.join(known)}")
    there = [row for row in rows if getattr(row, column) is not None]
    there.sort(key=lambda row: getattr(row, column), reverse=reverse)
    return there + [row for row in rows if getattr(row, column) is None]


def print_rows(rows: list[Row]):
    wide = max(len("run"), *(len(row.run) for row in rows))
    titles = ("epochs", "minutes", "MSE", "95 %", "NME %", "views", "leaderboard")
    print("  ".join([f"{'run':{wide}}", *(f"{title:>{w}}" for title, w in zip(titles, WIDE, strict=True)), "changed"]))
    for row in rows:
        cells = (
            row.epochs or "",
            _shown(row.minutes, 1),
            _shown(row.mse, 3),
            f"{row.low:.2f} … {row.high:.2f}" if row.low is not None and row.high is not None else "",
            _shown(row.nme, 2),
            _shown(row.views_mse, 3),
            _shown(row.leaderboard, 3),
        )
        changed = row.changed if len(row.changed) <= MAX_CHANGES else f"{row.changed[:MAX_CHANGES]} …"
        print("  ".join([f"{row.run:{wide}}", *(f"{c:>{w}}" for c, w in zip(cells, WIDE, strict=True)), changed]))


def _shown(value, decimals):
    return "" if value is None else f"{value:.{decimals}f}"


def draw_curves(runs: list[tuple[str, list[dict[str, float]]]]) -> str:
    """The validation MSE of runs over the minutes that they took."""
    figure = new_figure(9, 5)
    axes = figure.subplots()
    for number, (name, rows) in enumerate(runs):
        known = [row for row in rows if row.get("validation_mse", 0) > 0]
        known = known[:: max(1, -(-len(known) // MAX_DOTS))]
        says = [f"{name}, epoch {row['epoch']:g}: {row['validation_mse']:.4g} px²" for row in known]
        x, y = [row["minutes"] for row in known], [row["validation_mse"] for row in known]
        draw_line(axes, x, y, says, label=name, colour=COLOURS[number % len(COLOURS)])
    prepare(axes, x="minutes", y="validation MSE, px²", logarithmic=True)
    draw_legend(axes)
    return as_svg(figure, title="Validation MSE of the runs", prefix="runs")


def main():
    options = parse_flags(Options, __doc__)
    runs = all_runs(options)
    if not runs:
        raise UserError(f"no run that was trained lies in {options.runs}/; train one, or give --runs")
    below = folder_of_all(runs, options.runs)
    out = options.out or below / "index.html"
    check_folder("--out", out.parent)
    found = {_name(run, below): (run, load_measured(run.folder)) for run in runs}
    same = same_in_all(runs)
    rows = sorted_rows(
        [row_of(run, measured, below=below, same=same) for run, measured in found.values()],
        options.sort,
        reverse=options.reverse,
    )
    print_rows(rows)
    if same:
        print(f"\nin all      {_in_a_line(same)}")
    measured = {name: one for name, (_, one) in found.items() if one is not None}
    compared = differences(rows, measured)
    print()
    for one in compared:
        print(one)
    if missing := [name for name in found if name not in measured]:
        print(f"not compared photo by photo: {', '.join(missing)}; python -m tools.report RUN measures a run")
    curves = draw_curves([(row.run, read_metrics(found[row.run][0])) for row in rows])
    reports = {name: run.folder / "report.html" for name, (run, _) in found.items()}
    links = {name: _link(path, out) for name, path in reports.items() if path.exists()}
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"rows": rows, "curves": curves, "differences": compared, "links": links, "same": _in_a_line(same)}
    write_text(out, render(TEMPLATE, content))
    print(f"page        {out}")


def _link(path, page):
    """The address of a file on a page, relative if the file lies below the page's folder."""
    path, folder = path.resolve(), page.parent.resolve()
    return quote(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else path.as_uri()


if __name__ == "__main__":
    run_script(main)
