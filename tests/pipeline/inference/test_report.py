"""The report says what the run's files say, needs no other file, and a browser shows it without an error."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from pipeline.checkpoint import checkpoint_digest, load_checkpoint, save_checkpoint
from pipeline.data.dataset import load_training_data
from pipeline.errors import UserError
from pipeline.inference.measured import choose, load_measured, measure, save_measured
from pipeline.inference.record import note_leaderboard
from pipeline.inference.report import scores_of_views, submissions, write_report
from pipeline.inference.report_figures import curves
from pipeline.inference.report_regions import regions_of_run, with_errors
from pipeline.metrics import tail
from pipeline.networks import load_run_network
from pipeline.runs import Run
from pipeline.runtime import Runtime
from tests.browser import PHONE, answer, cut_on_paper, needs_a_browser

CPU = Runtime(torch.device("cpu"), "fp32")


class Page(HTMLParser):
    """The texts of a page by the id of what they stand in, and all addresses that it loads."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.texts, self.addresses, self.ids = [], {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        if "id" in about:
            self.ids.append(about["id"])
        if tag not in ("meta", "input", "br", "link", "img"):
            self.stack.append(about.get("id"))
        self.addresses += [about[name] for name in ("src", "href", "xlink:href") if name in about]

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in ("meta", "input", "br", "link", "img"):
            self.stack.pop()

    def handle_data(self, data):
        for name in filter(None, self.stack):
            self.texts[name] = self.texts.get(name, "") + data


@pytest.fixture
def run(copy_run):
    return Run(copy_run())


def views(run):
    """A views.json such as predict.py leaves."""
    row = {"low": 1.5, "high": 3.0, "nme": 4.0, "seconds": 0.1}
    about = {
        "checkpoint": checkpoint_digest(run.best),
        "scores": [row | {"part": "as it is", "mse": 2.25}, row | {"part": "chosen", "mse": 2.0}],
        "equivariance": [{"view": "Mirror <b>", "bias": [0.125, -0.25], "spread": 1.5, "confused": 0.02}],
        "calibration": {"table": [{"expected": 1.0, "found": 1.25}, {"expected": 2.0, "found": 1.75}]},
    }
    run.views.write_text(json.dumps(about))


def test_it_says_what_each_run_brought_to_the_newest_ensemble_that_its_best_weights_are_part_of(run):
    row = {"low": 1.5, "high": 3.0, "nme": 4.0, "seconds": 0.1, "mse": 2.0}
    own, best = f"elsewhere/{run.folder.name}", checkpoint_digest(run.best)
    ensembles = {
        "mine": {"runs": [own, "runs/other"], "checkpoints": [best, "others"]},
        "of_earlier_weights": {"runs": [own, "runs/other"], "checkpoints": ["earlier", best]},
        "newer": {"runs": ["runs/other", "runs/third"]},
    }
    for name, about in ensembles.items():
        path = run.folder.parent / f"ensemble_{name}/ensemble.json"
        path.parent.mkdir()
        path.write_text(json.dumps(about | {"scores": [row | {"part": f"part of {name}"}]}))
    damaged = run.folder.parent / "ensemble_damaged"
    damaged.mkdir()
    (damaged / "ensemble.json").write_text("{")
    text = write_report(run).read_text()
    assert "part of mine" in text
    assert "part of newer" not in text
    assert "part of of_earlier_weights" not in text


def test_a_training_leaves_a_report_that_says_what_its_best_weights_find(run):
    measured = load_measured(run.folder)
    data = load_training_data(replace(run.recipe(), photos=run.photo_options()))
    assert sorted(measured.names.tolist()) == sorted(run.held_out_names())
    assert measured.scores[0] == pytest.approx(run.best_mse, rel=1e-3)
    assert np.nanmean(measured.errors) == pytest.approx(run.best_mse, rel=1e-3)
    text = (run.folder / "report.html").read_text()
    assert f"MSE {measured.scores[0]:.3f} px²" in Page(text).texts["summary"]
    assert f"{len(data.train)} to train on, {len(data.validation)} held out" in text
    assert text.count("<title>point ") == data.num_points
    for row in measured.shown:
        assert str(measured.names[row]) in text


def test_a_report_needs_no_other_file_and_every_word_is_escaped(run):
    views(run)
    text = write_report(run).read_text()
    page = Page(text)
    assert page.stack == []  # every tag is closed
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", text)
    for address in page.addresses:
        assert not address.startswith("#") or address[1:] in page.ids, address
    assert re.findall(r"url\(#([^)]*)\)", text)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "Mirror <b>" in page.texts["equivariance"]
    assert "2.00 %" in page.texts["equivariance"]
    assert "as it is: 2.250 px² (1.500 … 3.000)" in text
    assert "expected 1.00 px, found 1.25 px" in text


def test_what_is_not_there_is_left_out(run):
    for name in ("held_out.npz", "metrics.csv", "views.json", "console.txt", "environment.json"):
        (run.folder / name).unlink(missing_ok=True)
    page = Page(write_report(run).read_text())
    assert "recipe" in page.ids
    assert not {"curves", "points", "photos", "truth"} & set(page.ids)
    assert {"#recipe", "#next"} == {address for address in page.addresses if address.startswith("#")}  # none to nowhere


def test_damaged_files_are_named(run):
    damaged = run.folder / "held_out.npz"
    content = damaged.read_bytes()
    for bad in (content[:500], b"", b"text"):
        damaged.write_bytes(bad)
        with pytest.raises(UserError, match=r"held_out\.npz is damaged"):
            write_report(run)
    damaged.write_bytes(content)
    arrays = dict(np.load(damaged))
    for name in arrays:
        np.savez(damaged, **{other: array for other, array in arrays.items() if other != name})
        if name in ("labels", "point_counts"):  # which runs of earlier versions do not have
            found = load_measured(run.folder)
            assert not len(found.labels) or (found.point_counts == 1).all()
        else:
            with pytest.raises(UserError, match=r"held_out\.npz is damaged"):
                load_measured(run.folder)
    damaged.write_bytes(content)
    save_measured(run.folder, replace(load_measured(run.folder), mean_shape=np.zeros((3, 2))))
    with pytest.raises(UserError, match="do not fit together"):
        load_measured(run.folder)
    damaged.unlink()
    run.metrics.write_text("epoch,minutes\n1,x\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        write_report(run)


def test_missing_points_and_few_points_are_no_trouble(run):
    data = load_training_data(replace(run.recipe(), photos=run.photo_options()))
    values = np.array(data.pack.values)
    values[:, 1] = np.nan
    values[data.validation[0]] = np.nan
    pack = replace(data.pack)
    pack.__dict__["values"] = values  # where the cached property keeps it
    measured = measure(load_run_network(run, "best"), replace(data, pack=pack), CPU)
    assert np.isnan(measured.point_errors[1])
    assert np.isnan(measured.errors[0])
    one = replace(
        measured,
        point_errors=measured.point_errors[:1],
        point_counts=measured.point_counts[:1],
        mean_shape=measured.mean_shape[:1],
        predicted=measured.predicted[:, :1],
        truth=measured.truth[:, :1],
    )
    for found in (measured, one):
        run.regions.unlink(missing_ok=True)  # which are of more points
        save_measured(run.folder, found)
        assert "<title>point 0: " in write_report(run).read_text()


def test_losses_that_are_not_above_0_are_drawn_too():
    """Those of likelihoods."""
    errors = {"train_mse": 9.0, "validation_mse": 12.0}
    rows = [{"epoch": epoch, "train_loss": 0.5 - epoch, **errors} for epoch in range(3)]
    drawn = curves(rows)
    assert all(f"epoch {epoch}: training loss {0.5 - epoch:g}" in drawn for epoch in range(3))


def test_a_training_without_a_step_has_curves_too():
    """The time that is left may be too short for one."""
    row = {"epoch": 0, "train_loss": math.nan, "learning_rate": 1e-3, "train_mse": 9.0, "validation_mse": 12.0}
    drawn = curves([row])
    assert "epoch 0: validation 12" in drawn
    assert "epoch 0: training loss" not in drawn


def test_photos_are_shown_from_the_worst_the_middle_and_the_doubtful():
    errors, doubts = np.arange(100.0), np.arange(100.0)[::-1]
    rows, kinds = choose(errors, doubts)
    assert rows[kinds == "worst"].tolist() == list(range(99, 91, -1))
    assert rows[kinds == "median"].tolist() == [51, 50, 49, 48]
    assert rows[kinds == "doubtful"].tolist() == list(range(8))
    assert set(choose(errors[:2], np.empty(0))[1]) == {"worst", "median"}
    unlabelled = np.where(errors < 90, np.nan, errors)
    some = set(choose(unlabelled, np.empty(0))[0])
    assert some
    assert some <= set(range(90, 100))
    assert tail(np.array([6.0, *[1.0] * 4, np.nan])) == "the worst photo has 60 % of the error"
    assert tail(np.array([50.0, 50.0, *[1.0] * 198])) == "the worst 1 % of the photos have 34 % of the error"
    assert tail(np.zeros(3)) is None


def test_submissions_of_a_stage_or_a_fold_are_shown_with_those_of_all(tmp_path):
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "folds.json").touch()
    for name in ("submission.csv", "fold-1/own.csv"):
        (tmp_path / name).touch()
        note_leaderboard(tmp_path / name, 8.41)
    assert {each["name"] for each in submissions(Run(tmp_path / "fold-1"))} == {"submission.csv", "own.csv"}


def test_regions_are_those_of_the_run_or_found(tmp_path):
    errors = np.array([3.0, 4.0, np.nan, 1.0, 1.0, 1.0])
    shape = np.array([(0, 0), (1, 0), (2, 0), (50, 9), (51, 9), (52, 9)], float)
    run = Run(tmp_path)
    assert list(regions_of_run(run, shape)) == ["0-2", "3-5"]
    run.regions.write_text('{"some": [0, 1, 2], "none": [2]}')
    counts = np.array([6, 2, 0, 1, 1, 1])
    some, none = with_errors(regions_of_run(run, shape), shape, errors, counts)
    assert (some.name, some.middle, some.error) == ("some", (1, 0), pytest.approx(((6 * 9 + 2 * 16) / 8) ** 0.5))
    assert np.isnan(none.error)


@needs_a_browser
def test_a_browser_shows_it_without_an_error(run, tmp_path):
    views(run)
    question = (
        "const box = document.querySelector('figure');"
        "const path = document.querySelector('path.truth'); const before = getComputedStyle(path).display;"
        "box.click(); document.getElementById('truth').click();"
        "return [box.className, before, getComputedStyle(path).display,"
        "[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 20),"
        "document.documentElement.scrollWidth <= innerWidth, document.querySelector('#summary').innerText.length > 80,"
        "document.querySelectorAll('.figure use title').length > 5,"
        "document.querySelector('.small').scrollWidth <= document.querySelector('.small').clientWidth].join(' ')"
    )
    found = answer(write_report(run).read_text(), question, tmp_path, width=PHONE)
    assert found == "large inline none true true true true true"


@needs_a_browser
def test_nothing_is_cut_off_on_paper(run, tmp_path):
    views(run)
    assert cut_on_paper(write_report(run).read_text(), tmp_path) == "nothing"


def test_views_of_other_weights_are_not_shown(run):
    """A run that was resumed has better ones since, and --checkpoint last weighs others."""
    views(run)
    assert scores_of_views(run)["scores"]
    state = load_checkpoint(run.best)
    save_checkpoint(run.best, state | {"epoch": state["epoch"] + 1})
    assert not scores_of_views(run)["scores"]
    assert "Mirror &lt;b&gt;" not in write_report(run).read_text()
