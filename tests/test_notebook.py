"""docs/notebook.ipynb, executed as Jupyter does it, in an empty folder, on a contest that cannot be written to."""

import os

import nbformat
from nbclient import NotebookClient

from pipeline.runs import find_run
from tests.scripts import ROOT, SMALL

NOTEBOOK = ROOT / "docs/notebook.ipynb"
SETTINGS = "parameters"  # the tag of the cell after which others are set, as papermill has it


def test_the_notebook_trains_predicts_and_shows_what_came_of_it(contest, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    flags = [*SMALL, "--config", "configs/quick.yaml", "-e", "1", "--flip-indices", "none"]
    settings = f"DATA, WORK, FLAGS = {str(contest)!r}, {str(tmp_path)!r}, {flags}"
    quick = "from tests.scripts import quick_report; quick = quick_report(); quick.__enter__()"  # figures are blank
    set_after_settings(notebook, f"{settings}\n{quick}")
    made_with = {path: path.stat().st_mtime_ns for path in contest.rglob("*")}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()

    run = find_run(None, tmp_path / "runs")
    assert run.submission.exists()
    assert {path: path.stat().st_mtime_ns for path in contest.rglob("*")} == made_with
    assert not (NOTEBOOK.parent / "runs").exists()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) == 4
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert any("Point_M0_X" in page for page in pages)
    assert any("<iframe srcdoc=" in page and run.folder.name in page for page in pages)


def set_after_settings(notebook, source: str):
    (position,) = (number for number, cell in enumerate(notebook.cells) if SETTINGS in cell.metadata.get("tags", []))
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(source))


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
