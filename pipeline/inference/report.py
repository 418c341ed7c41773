"""The report of a run: `report.html`, one self-contained file, made from what lies in the run's folder alone.

    summary  curves  points and regions  photos' errors  galleries  views and runs  uncertainty  recipe  environment

What is not there, such as weights of views before `predict.py` has fitted them, is left out.
"""

import csv
import io
import math
import shlex
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.checkpoint import checkpoint_digest
from pipeline.errors import UserError
from pipeline.files import parse_json, read_bytes, unsealed, write_text
from pipeline.inference import report_figures as figures
from pipeline.inference.measured import Measured, load_measured
from pipeline.inference.page import jpeg, render
from pipeline.inference.record import read_record
from pipeline.inference.report_regions import Region, regions_of_run, with_errors
from pipeline.inference.svg import dots, segments
from pipeline.metrics import tail
from pipeline.runs import AboutData, Run, folder_of, predict_command
from pipeline.stages import has_stages

TEMPLATE = Path(__file__).with_name("report.html.j2")
MANY = 200  # points, from which on lines from truth to prediction would hide the photo
SHOWN_OF_CONSOLE = (
    "time ",
    "speed ",
    "memory ",
    "data ",
    "photos ",
    "groups ",
    "roi ",
    "left/right ",
    "network ",
    "warning ",
)


def write_report(run: Run) -> Path:
    """Writes report.html into the run's folder. Raises UserError if files of the run are damaged."""
    path = run.folder / "report.html"
    write_text(path, render(TEMPLATE, content_of(run)))
    return path


def content_of(run: Run) -> dict[str, Any]:
    """What the template shows: texts, tables of plain values, and figures as SVG."""
    measured, rows, about = load_measured(run.folder), read_metrics(run), run.about_data()
    regions: list[Region] = []
    if measured:
        found = regions_of_run(run, measured.mean_shape)
        regions = with_errors(found, measured.mean_shape, measured.point_errors, measured.point_counts)
    views, runs = scores_of_views(run), scores_of_runs(run)
    environments: Any = _json(run.folder / "environment.json", [])
    recipe = read_yaml(run.recipe_path)
    return {
        "name": run.folder.name,
        "summary": summary(recipe, rows, about, measured),
        "curves": figures.curves(rows) if rows else "",
        "shape": figures.shape(measured, regions) if measured else "",
        "regions": [(region.name, region.error) for region in sorted(regions, key=_error_of, reverse=True)],
        "distribution": figures.distribution(measured.errors)
        if measured and np.isfinite(measured.errors).any()
        else "",
        "tail": tail(measured.errors) if measured else None,
        "galleries": galleries(measured) if measured else [],
        "views": figures.parts(views["scores"], prefix="views") if views["scores"] else "",
        "runs": figures.parts(runs, prefix="runs") if runs else "",
        "equivariance": views["equivariance"],
        "calibration": figures.calibration(views["table"]) if views["table"] else "",
        "calibration_rows": views["table"],
        "submissions": submissions(run),
        "speed": speed(rows),
        "console": console_lines(run),
        "changes": read_yaml(run.folder / "changes.yaml"),
        "recipe": recipe,
        "environment": environments[-1] if isinstance(environments, list) and environments else {},
        "sittings": len(environments) if isinstance(environments, list) else 1,
        "about": asdict(about),
        "commands": commands(run),
    }


def _error_of(region: Region) -> float:
    return -1.0 if math.isnan(region.error) else region.error


def summary(recipe: dict, rows: list[dict[str, float]], about: AboutData, measured: Measured | None) -> str:
    """The run in a sentence."""
    text = f"{recipe.get('model', 'a network')} at {recipe.get('size', '?')} px"
    if rows:
        text += f", trained for {len(rows):,} epochs in {rows[-1]['minutes']:.1f} minutes"
    text += f" on {about.num_train:,} photos"
    if measured is None:
        return text + "."
    mse, low, high, nme = measured.scores.tolist()
    normalised = "" if math.isnan(nme) else f", NME {nme:.2f} %"
    interval = f" ({low:.3g} … {high:.3g})" if math.isfinite(low) else ""
    floor = f"predicting the mean shape for every photo gives {about.mean_shape.mse:.3g}"
    return (
        f"{text}, is {math.sqrt(mse):.2f} px off (RMS of a coordinate) on {len(measured.names):,} photos that it never "
        f"saw: MSE {mse:.3f} px²{interval}{normalised}; {floor}."
    )


def read_metrics(run: Run) -> list[dict[str, float]]:
    """The table of epochs, as numbers; cells that are not numbers are left out."""
    if not run.metrics.exists():
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(read_bytes(run.metrics).decode("utf-8", "replace"))):
        try:
            numbers = {name: float(value) for name, value in row.items() if name and value}
        except (TypeError, ValueError) as error:
            raise UserError(f"{run.metrics} is damaged: {error}; take a copy of it") from error
        rows.append({name: value for name, value in numbers.items() if math.isfinite(value)})
    return [row for row in rows if {"epoch", "minutes"} <= row.keys()]


def speed(rows: list[dict[str, float]]) -> str:
    """Photos per second in the median epoch."""
    rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    return f"{np.median(rates):.0f}" if rates else ""


def scores_of_views(run: Run) -> dict[str, Any]:
    """What the views of a run's best weights found: the scores of views and merges, equivariance and the calibration's
    table. They are empty if predict.py has seen other weights: those before the run was resumed, or the last."""
    fields = unsealed(run.views, dict[str, Any]) if run.views.exists() and run.best.exists() else {}
    if fields and fields.get("checkpoint") != checkpoint_digest(run.best):
        fields = {}
    table = fields.get("calibration", {}).get("table", [])
    return {"scores": fields.get("scores", []), "equivariance": fields.get("equivariance", []), "table": table}


def scores_of_runs(run: Run) -> list[dict[str, Any]]:
    """What each run brought to the newest ensemble that the best weights of this one are part of, and what they merge
    to; damaged files of ensembles are left out, since they are not files of this run."""
    home, best = folder_of(run), checkpoint_digest(run.best) if run.best.exists() else None
    paths = [home / "ensemble.json", *home.parent.glob("ensemble_*/ensemble.json")]
    for path in sorted(filter(Path.is_file, paths), key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(UserError):
            fields = unsealed(path, dict[str, Any])
            names = fields.get("runs", [])
            checkpoints = fields.get("checkpoints", [best] * len(names))  # which earlier versions did not note
            parts = zip(names, checkpoints, strict=False)
            if any(_is_of(Path(str(name)), run) and checkpoint == best for name, checkpoint in parts):
                return fields.get("scores", [])
    return []


def _is_of(path, run):
    """Whether a path was that of the run, which may have been moved since: folds of other runs have the same names."""
    home = folder_of(run)
    return path.name == run.folder.name and (home == run.folder or path.parent.name == home.name)


def galleries(measured: Measured) -> list[dict[str, Any]]:
    """Photos with the paths of their points, by the reason why they are shown."""
    kinds = dict.fromkeys(measured.kinds.tolist())
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number, row in enumerate(measured.shown.tolist()):
        kind = str(measured.kinds[number])
        caption = f"MSE {measured.errors[row]:.2f} px²"
        if kind == "doubtful":
            caption += f", mirror image {measured.doubts[row]:.2%} of the side off"
        predicted, truth = measured.predicted[number], measured.truth[number]
        found[kind].append(
            {
                "name": str(measured.names[row]),
                "caption": caption,
                "jpeg": jpeg(measured.tiles[number]),
                "side": measured.tiles.shape[1],
                "dot": 2.2 if len(predicted) > MANY else 4.5,
                "predicted": dots(predicted),
                "truth": dots(truth),
                "lines": "" if len(predicted) > MANY else segments(truth, predicted),
            }
        )
    return [{"kind": kind, "photos": photos} for kind, photos in found.items()]


def submissions(run: Run) -> list[dict[str, Any]]:
    """The submissions in the run's folder and in that of its folds or stages, with the score that was expected of them
    and the leaderboard's."""
    found = []
    for path in sorted(path for folder in {run.folder, folder_of(run)} for path in folder.glob("*.csv")):
        record = read_record(path)
        if record is not None:
            expected = record.get("expected") if isinstance(record.get("expected"), dict) else {}
            found.append({"name": path.name, "expected": expected or {}, "leaderboard": record.get("leaderboard")})
    return found


def console_lines(run: Run) -> list[str]:
    """What the console last said about the data, the time and the memory."""
    path = run.folder / "console.txt"
    if not path.exists():
        return []
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    last = {line.split()[0]: line for line in lines if line.startswith(SHOWN_OF_CONSOLE)}
    return list(last.values())


def commands(run: Run) -> list[tuple[str, str]]:
    """What to do next, and the command for it."""
    folder, whole = shlex.quote(str(run.folder)), folder_of(run)
    longer = "" if has_stages(whole) else " --epochs N"
    go_on = [("Go on", f"python hack_train.py --resume {shlex.quote(str(whole))}{longer}")]
    return [
        ("Predict and submit", predict_command(whole)),
        *(go_on if run.last.exists() else []),
        ("Fine-tune", f"python hack_train.py --name x --init {folder} --learning-rate 1e-4"),
        ("Compare with other runs", f"python -m tools.compare --runs {shlex.quote(str(whole.parent))}"),
        ("Look for wrong labels", f"python -m tools.suspects {folder}"),
        ("Make this report again", f"python -m tools.report {folder}"),
    ]


def _json(path, otherwise):
    return parse_json(path, read_bytes(path), object) if path.exists() else otherwise


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file of a run says, nothing if it is missing or says something else than fields."""
    try:
        found = yaml.safe_load(read_bytes(path)) if path.exists() else {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is damaged: it is no YAML; take a copy of it") from error
    return found if isinstance(found, dict) else {}
