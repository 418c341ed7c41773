"""Runs are told apart where the photos that both held out tell them apart, and nowhere else."""

import shutil
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.inference.measured import Measured, load_measured, save_measured
from pipeline.inference.record import note_leaderboard
from tests.browser import answer, cut_on_paper, needs_a_browser
from tests.pipeline.inference.test_report import Page
from tools import compare
from tools.paired import difference


def measured(errors, *, groups=None, names=None):
    count = len(errors)
    empty = np.empty(0)
    return Measured(
        scores=np.array([np.mean(errors), 0, 0, 0]),
        names=np.array(names or [f"{i}.jpg" for i in range(count)]),
        sums=np.asarray(errors, float) * 10,
        counts=np.full(count, 10),
        groups=np.arange(count) if groups is None else groups,
        point_errors=empty, mean_shape=empty, shown=empty, kinds=empty, tiles=empty, predicted=empty, truth=empty,
        doubts=empty, labels=empty.astype(np.uint32), point_counts=empty.astype(int),
    )  # fmt: skip


def test_a_difference_is_of_the_photos_that_both_held_out_and_has_an_interval_over_groups():
    rng = np.random.default_rng(0)
    errors = rng.exponential(20, 300)  # which vary far more than the runs differ
    better = errors + rng.normal(-1, 1, 300)
    found = difference(("a", "b"), measured(errors), measured(better))
    assert found.mse == pytest.approx((errors - better).mean())
    assert found.low < found.mse < found.high
    assert str(found).startswith("b is better than a: +")
    assert str(difference(("b", "a"), measured(better), measured(errors))).startswith("b is better than a: -")
    assert "cannot be told apart" in str(difference(("a", "b"), measured(errors), measured(rng.permutation(errors))))
    few = difference(("a", "b"), measured(errors, groups=np.arange(300) // 100), measured(better))
    assert few.photos == 300
    shuffled = rng.permutation(300)[:200]
    part = measured(better[shuffled], names=[f"{i}.jpg" for i in shuffled])
    assert difference(("a", "b"), measured(errors), part).mse == pytest.approx((errors - better)[shuffled].mean())
    assert difference(("a", "b"), measured(errors), measured(errors[:9], names=[f"x{i}" for i in range(9)])) is None
    assert difference(("a", "b"), measured(errors, groups=np.zeros(300, int)), measured(errors)) is None
    labelled = [replace(measured(errors), labels=np.arange(300) % last) for last in (300, 100)]  # by two contests
    assert difference(("a", "b"), *labelled).photos == 100


@pytest.fixture
def runs(trained, tmp_path):
    """Three runs, of which the second is a little worse than the first on each photo, and the third is not measured."""
    folders = [shutil.copytree(trained, tmp_path / "runs" / name) for name in ("a", "b", "c")]
    own = load_measured(folders[0])
    scores = own.scores + (1, 1, 1, 0)
    save_measured(folders[1], replace(own, sums=own.sums + own.counts, scores=scores))
    (folders[2] / "held_out.npz").unlink()
    (folders[2] / "report.html").unlink()
    submission = folders[1] / "submission.csv"
    submission.write_text("file_name,Point_M0_X,Point_M0_Y\na.jpg,1,2\n")
    note_leaderboard(submission, 8.41)
    return tmp_path / "runs"


def run(*arguments):
    with mock.patch.object(sys, "argv", ["compare", *map(str, arguments)]):
        compare.main()


def test_all_runs_are_in_the_table_sorted_and_linked(runs, capsys):
    run("--runs", runs, "--sort", "run", "--reverse")
    out = capsys.readouterr().out
    names = [line.split()[0] for line in out.splitlines()[1:4]]
    assert names == ["c", "b", "a"]
    assert "8.410" in out.splitlines()[2]
    assert "a is better than b: +1.000 px² (+1.000 … +1.000)" in out
    assert "not compared photo by photo: c;" in out
    page = Page((runs / "index.html").read_text())
    assert page.stack == []
    assert "a/report.html" in page.addresses
    assert "c/report.html" not in page.addresses
    assert "a is better than b" in page.texts["differences"]
    run("--runs", runs, "--sort", "leaderboard", "--out", runs / "other.html")
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "b"


def test_what_was_changed_is_what_tells_the_runs_apart(runs, capsys):
    for name, rate in (("a", 0.001), ("b", 0.002), ("c", 0.002)):
        (runs / name / "changes.yaml").write_text(f"name: {name}\nsize: 64\nlearning_rate: {rate}\n")
    run("--runs", runs, "--sort", "run")
    out = capsys.readouterr().out
    table, same = out.split("\n\n")[:2]
    assert [line.split()[-1] for line in table.splitlines()[1:]] == ["0.001", "0.002", "0.002"]
    assert "size" not in table
    assert same == "in all      size 64"
    assert "In all runs: size 64." in (runs / "index.html").read_text()
    run("--runs", runs, runs / "a")
    assert "size 64, learning_rate 0.001" in capsys.readouterr().out


def test_runs_that_lie_elsewhere_are_compared_where_they_lie(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    run(runs / "a", runs / "b")
    assert "a is better than b" in capsys.readouterr().out
    assert "a/report.html" in Page((runs / "index.html").read_text()).addresses
    run(runs / "a", "--out", "new/page.html")
    assert (tmp_path / "empty/new/page.html").exists()


def test_some_runs_can_be_named_and_faults_are_said(runs, tmp_path, capsys):
    run(runs / "a", "--runs", runs)
    assert len(capsys.readouterr().out.split("\n\n")[0].splitlines()) == 2
    for arguments, message in (
        (("--runs", runs, "--sort", "nonsense"), "the columns are run, changed"),
        (("--runs", tmp_path), "no run that was trained lies in"),
    ):
        with pytest.raises(UserError, match=message):
            run(*arguments)
    (runs / "a/changes.yaml").write_text("{")
    with pytest.raises(UserError, match=r"changes\.yaml is damaged"):
        run("--runs", runs)


@needs_a_browser
def test_a_browser_sorts_the_table_by_a_click(runs, tmp_path):
    run("--runs", runs)
    question = (
        "const order = () => [...document.querySelectorAll('tbody tr')].map(row => row.cells[0].innerText).join('');"
        "const title = document.querySelectorAll('th')[3]; title.click(); const up = order(); title.click();"
        "return up + ' ' + order()"
    )
    up, down = answer((runs / "index.html").read_text(), question, tmp_path).split()
    assert sorted(up) == ["a", "b", "c"]
    assert up.index("a") < up.index("b")
    assert down.index("b") < down.index("a")


@needs_a_browser
def test_nothing_is_cut_off_on_paper(runs, tmp_path):
    """The last column was, which says what was changed."""
    run("--runs", runs)
    assert cut_on_paper((runs / "index.html").read_text(), tmp_path) == "nothing"
