"""What users start that writes something, each in a folder with a copy of a tiny run: what it needs, and its call.

status, out, err = work(folder, run, contest)
"""

import io
import shutil
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from unittest import mock

from pipeline.errors import run_script
from tests.fuzz.conftest import TINY
from tests.scripts import call, quick_report
from tests.tools import formats
from tools import average, blend, compare, convert, convert_back, export, inspect, ledger, report, suspects


def call_tool(tool, folder, *flags):
    """Runs a tool in `folder`, inside this process. Returns (exit status, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    arguments = mock.patch.object(sys, "argv", ["tool", *map(str, flags)])
    with chdir(folder), arguments, redirect_stdout(out), redirect_stderr(err):
        try:
            run_script(tool.main)
        except SystemExit as stop:
            return stop.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def train_anew(folder, run, contest):
    paths = ["-d", contest, "--cache", folder / "cache", "--runs", folder / "new"]
    return call("hack_train.py", folder, "-n", "new", *TINY, *paths)


def train_on_jpegs(folder, run, contest):
    paths = ["-d", contest, "--cache", folder / "cache", "--runs", folder / "new"]
    return call("hack_train.py", folder, "-n", "new", *TINY, *paths, "--pack", "jpeg", pictures=quick_report)


def resume(folder, run, contest):
    return call("hack_train.py", folder, "--resume", run, "-e", "2")


def predict(folder, run, contest):
    (run / "views.json").unlink(missing_ok=True)
    return call("predict.py", folder, "--run", run, "--uncertainty", folder / "sd.csv")


def look_at_data(folder, run, contest):
    names = ("draw_sizes", "draw_distributions", "draw_pairs", "draw_ways")
    with mock.patch.multiple(inspect, **dict.fromkeys(names, lambda *_: "<svg></svg>")):
        return call_tool(inspect, folder, "-d", contest, "--out", folder / "new", "--size", "32", "--photos", "8")


def find_suspects(folder, run, contest):
    return call_tool(suspects, folder, run, "--out", folder / "new", "--count", "4")


def compare_runs(folder, run, contest):
    return call_tool(compare, folder, "--runs", folder / "runs")


def note_score(folder, run, contest):
    return call_tool(ledger, folder, "score", run / "submission.csv", "7.5")


def merge(folder, run, contest):
    for number in range(2):
        (folder / f"{number}.csv").write_text(f"file_name,Point_M0_X,Point_M0_Y\na.jpg,{number}.25,3.5\n")
    return call_tool(blend, folder, folder / "0.csv", folder / "1.csv", "--output", folder / "blend.csv")


def report_anew(folder, run, contest):
    with quick_report():
        return call_tool(report, folder, run, "--measure")


def average_weights(folder, run, contest):
    for epoch in (1, 2):
        shutil.copyfile(run / "best.pt", run / f"best-epoch-{epoch}.pt")
    return call_tool(average, folder, run, "--output", folder / "new")


def export_network(folder, run, contest):
    return call_tool(export, folder, run, "--output", folder / "new")


def convert_labels(folder, run, contest):
    path = _labels(folder)
    return call_tool(convert, folder, "coco", path, folder / "new", "--test", path)


def convert_predictions_back(folder, run, contest):
    return call_tool(convert_back, folder, folder / "converted", folder / "s.csv", folder / "answer.json")


def prepare(work, folder):
    """Makes what a work needs and does not write anew each time."""
    if work is convert_predictions_back:
        path = _labels(folder)
        assert call_tool(convert, folder, "coco", path, folder / "converted", "--test", path)[0] == 0
        header = ["file_name", *(f"Point_M{index}_{axis}" for index in range(3) for axis in "XY")]
        rows = [[f"video/{index // 2}_{index % 2}.jpg", *6 * ["3.5"]] for index in range(12)]
        (folder / "s.csv").write_text("".join(f"{','.join(row)}\n" for row in (header, *rows)))


def _labels(folder):
    (folder / "labels").mkdir(exist_ok=True)
    found = formats.things(on_a_photo=2, gaps=False)
    return formats.coco(formats.draw(folder / "labels", found), found)


SCRIPTS = (train_anew, resume, predict)
TOOLS = (
    *(look_at_data, find_suspects, compare_runs, note_score, merge, report_anew, average_weights),
    *(convert_labels, convert_predictions_back),
)
