"""Whatever stands in the files of a run, later steps do what they would have done, or refuse it in a line that names
the file: what is cut, exchanged, of other types or no file at all."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from models import build_network
from pipeline.checkpoint import load_checkpoint
from pipeline.command import read_handed_on
from pipeline.data.dataset import load_training_data
from pipeline.inference.ensemble import load_members, weigh_runs
from pipeline.inference.member import load_member, weigh_views
from pipeline.inference.options import PredictOptions
from pipeline.inference.record import keep_earlier, write_record
from pipeline.networks import load_run_network, make_network
from pipeline.recipe import CHANGEABLE_ON_RESUME, flatten
from pipeline.runs import KEPT_AS_FILES, Run, fold_runs
from pipeline.runtime import Runtime
from pipeline.training.folds import create_folds
from pipeline.training.trainer import Trainer
from tests.fuzz.campaign import NUM_CASES, campaign, check_line, one_of, tried
from tests.fuzz.conftest import NUM_POINTS
from tests.fuzz.damage import bring_back, remove, same, spoil_file, spoil_value, tree
from tests.scripts import call

TEXTS = ("recipe.yaml", "manifest.json", "data.json", "validation.txt", "permutation.json")
CPU = torch.device("cpu")


class Copy:
    """A copy of a folder, of which one file is spoiled at a time."""

    def __init__(self, whole: Path, to: Path):
        self.whole, self.folder, self.run = whole, Path(shutil.copytree(whole, to)), Run(to)
        self.spoiled = ""

    def spoil(self, name, rng) -> str:
        """Brings back what was spoiled before, and spoils another file."""
        self.bring_back()
        self.spoiled = name
        return spoil_file(self.folder / name, rng)

    def save(self, name, content):
        """Puts a checkpoint in the place of one, in the form of a whole file."""
        self.bring_back()
        self.spoiled = name
        torch.save(content, self.folder / name)

    def bring_back(self):
        if self.spoiled:
            bring_back(self.folder / self.spoiled, self.whole / self.spoiled)
        self.spoiled = ""


@pytest.fixture
def damaged(tiny, tmp_path) -> Copy:
    """A copy of the tiny run, beside its cache."""
    (tmp_path / "cache").symlink_to(tiny / "cache")
    whole = next((tiny / "runs").iterdir())
    (tmp_path / "runs").mkdir()
    return Copy(whole, tmp_path / "runs" / whole.name)


def what_later_steps_read(run):
    free = CHANGEABLE_ON_RESUME | KEPT_AS_FILES
    recipe = {name: value for name, value in flatten(run.recipe()).items() if name not in free}
    photos = run.photo_options()
    relative = replace(photos, split=photos.split.name, flip_indices=Path(photos.flip_indices).name)
    return recipe, run.held_out_names(), relative, run.read_flip_indices(NUM_POINTS).tolist(), run.about_data()


def test_texts_of_a_run_are_those_that_it_was_made_with_or_refused(damaged):
    expected = what_later_steps_read(Run(damaged.whole))
    handed_on = read_handed_on(damaged.whole).network

    def check(rng):
        name = one_of(rng, TEXTS)
        kind = damaged.spoil(name, rng)
        outcome = tried(lambda: (what_later_steps_read(damaged.run), read_handed_on(damaged.folder).network))
        if outcome.refused:
            check_line(outcome.refused, name)
            return "refused"
        assert outcome.result == (expected, handed_on), f"{name}, {kind}"
        return "same"

    campaign("texts of a run", check)


def test_folds_hold_out_what_they_were_made_with_or_are_refused(damaged, tmp_path):
    recipe = damaged.run.recipe()
    recipe = replace(recipe, photos=replace(recipe.photos, split=None), run=replace(recipe.run, runs=tmp_path / "of"))
    data = load_training_data(recipe)
    folds = Copy(create_folds(recipe, data, 4), tmp_path / "folds")
    names = sorted(path.name for path in folds.folder.iterdir() if path.name != "recipe.yaml")
    expected = [run.folder.name for run in fold_runs(folds.folder)]

    def check(rng):
        name = one_of(rng, [*names, "folds.json"])
        kind = folds.spoil(name, rng)
        outcome = tried(lambda: fold_runs(folds.folder))
        if outcome.refused:
            check_line(outcome.refused, name)
            return "refused"
        if name == "folds.json" and kind in ("nothing", "lost link", "circle of links"):
            return "no folds"
        assert [run.folder.name for run in outcome.result] == expected, kind
        return "same"

    campaign("folds", check)


@pytest.mark.parametrize("name", ["best", "last"])
def test_weights_with_other_bytes_are_the_same_or_refused(damaged, name):
    expected = load_run_network(Run(damaged.whole), name).state_dict()

    def check(rng):
        damaged.spoil(f"{name}.pt", rng)
        outcome = tried(lambda: load_run_network(damaged.run, name))
        if outcome.refused:
            check_line(outcome.refused, damaged.folder / f"{name}.pt")
            return "refused"
        assert same(dict(outcome.result.state_dict()), dict(expected))
        return "same"

    campaign(f"bytes of {name}.pt", check, cases=range(NUM_CASES // 2))


@pytest.mark.parametrize("name", ["best", "last"])
def test_weights_with_other_values_are_the_same_or_refused(damaged, name):
    expected = load_run_network(Run(damaged.whole), name).state_dict()
    content = load_checkpoint(damaged.whole / f"{name}.pt")
    others = [
        *({"network": network.state_dict(), "epoch": 0, "mse": 1.0} for network in other_networks()),
        load_checkpoint(damaged.whole / ("last.pt" if name == "best" else "best.pt")),
        [content],
        content["network"],
        torch.ones(3),
        {"network": [content["network"]]},
    ]

    def check(rng):
        damaged.save(f"{name}.pt", one_of(rng, others) if rng.random() < 0.2 else spoil_value(content, rng))
        outcome = tried(lambda: load_run_network(damaged.run, name))
        if outcome.refused:
            check_line(outcome.refused, damaged.folder / f"{name}.pt")
            return "refused"
        assert same(dict(outcome.result.state_dict()), dict(expected))
        return "same"

    campaign(f"values of {name}.pt", check)


def other_networks():
    shape = np.full((NUM_POINTS, 2), 16.0)
    yield build_network("resnet18", shape, 32)
    yield build_network("shufflenet_v2_x1_0", shape, 32)
    yield build_network("shufflenet_v2_x0_5", shape[:3], 32, deepest_stride=8)


def test_a_training_goes_on_from_where_it_was_or_not_at_all(damaged):
    recipe = damaged.run.recipe()
    data = load_training_data(replace(recipe, photos=damaged.run.photo_options()))
    network = make_network(recipe, None, mean_shape=data.mean_shape)
    training = Trainer(network, recipe, data, Runtime(CPU, "fp32"))
    training.load(damaged.whole / "last.pt")
    content = training.state_dict()
    (all_columns,) = content["progress"]["history"]  # of which most are for the table alone
    best = load_checkpoint(damaged.whole / "best.pt")

    def check(rng):
        damaged.save("last.pt", best if rng.random() < 0.05 else spoil_value(content, rng))
        outcome = tried(lambda: training.load(damaged.run.last))
        if outcome.refused:
            check_line(outcome.refused, damaged.run.last)
            return "refused"
        found = training.state_dict()
        found["progress"]["history"] = [
            {**all_columns, "epoch": row["epoch"], "validation_mse": row["validation_mse"]}
            for row in found["progress"]["history"]
        ]
        assert same(found, content), different(found, content)
        return "same"

    campaign("state of a training", check)


def different(one, other):
    """What differs between two states, as far as a line can say it."""
    return {key: (one[key], other[key]) for key in one if not same(one[key], other[key]) and len(str(one[key])) < 999}


def test_saved_weights_of_views_are_the_same_or_refused(damaged):
    member = load_member(Run(damaged.whole), PredictOptions(), CPU)
    expected = weigh_views(member, "auto", batch_size=64)
    member = replace(member, run=damaged.run)

    def check(rng):
        kind = damaged.spoil("views.json", rng)
        outcome = tried(lambda: weigh_views(member, "auto", batch_size=64))
        if outcome.refused:
            check_line(outcome.refused, damaged.run.views)
            return "refused"
        found = outcome.result
        assert same(found.weights, expected.weights), kind
        assert (found.kind, found.calibration) == (expected.kind, expected.calibration), kind
        return "same"

    campaign("views.json", check)


def test_saved_weights_of_runs_are_the_same_or_refused(damaged, tiny, tmp_path):
    shutil.copytree(damaged.whole, other := damaged.folder.with_name("other"))

    def merged():
        options = PredictOptions(runs=damaged.folder.parent)
        members = load_members([damaged.run, Run(other)], options, CPU)
        return weigh_runs([weigh_views(member, "auto", batch_size=64) for member in members], options)

    expected = merged()
    assert same(merged().weights, expected.weights), "they are read again"
    home = Copy(expected.folder, tmp_path / "home")
    remove(expected.folder)
    expected.folder.symlink_to(home.folder)

    def check(rng):
        home.spoil("ensemble.json", rng)
        outcome = tried(merged)
        if outcome.refused:
            check_line(outcome.refused, expected.folder / "ensemble.json")
            return "refused"
        assert same(outcome.result.weights, expected.weights)
        assert outcome.result.calibration == expected.calibration
        return "same"

    campaign("ensemble.json", check, cases=range(NUM_CASES // 5))


def test_a_submission_with_a_spoiled_record_is_kept(damaged):
    table = damaged.run.submission
    content = table.read_bytes()
    record = {"runs": ["x"], "decimals": 2}
    write_record(table, record, expected=None)
    remove(damaged.whole.parent / "nowhere")

    def check(rng):
        path = table.with_name("submission.csv.json")
        write_record(table, record, expected=None)
        kind = spoil_file(path, rng)
        outcome = tried(lambda: keep_earlier(table, record))
        assert not outcome.refused
        if outcome.result is None:
            assert table.read_bytes() == content, kind
            remove(path)
            return "same"
        assert outcome.result.read_bytes() == content, kind
        assert not table.exists()
        outcome.result.rename(table)
        remove(outcome.result.with_name(f"{outcome.result.name}.json"))
        return "kept"

    campaign("record of a submission", check)


def test_a_sitting_is_added_to_those_before_or_the_file_is_refused(damaged):
    def check(rng):
        damaged.spoil("environment.json", rng)
        outcome = tried(lambda: damaged.run.add_environment("CPU"))
        if outcome.refused:
            check_line(outcome.refused, damaged.folder / "environment.json")
            return "refused"
        assert json.loads((damaged.folder / "environment.json").read_text())[-1]["device"] == "CPU"
        return "added"

    campaign("environment.json", check)


def predict(folder, run):
    return call("predict.py", folder, "--run", run, "--output", folder / "out.csv")


def resume(folder, run):
    return call("hack_train.py", folder, "--resume", run, "-e", "2")


def start_from(folder, run):
    remove(folder / "new")
    flags = ["-n", "new", "--init", run, "-e", "1", "-b", "16", "--precision", "fp32", "--runs", folder / "new"]
    return call("hack_train.py", folder, *flags)


WORKS = {"predict": predict, "resume": resume, "init": start_from}


def test_scripts_do_with_a_spoiled_run_what_they_would_have_done_or_say_why_not(damaged, tmp_path):
    names = sorted(path.name for path in damaged.folder.iterdir())

    def bring_back_all():
        remove(damaged.folder)
        shutil.copytree(damaged.whole, damaged.folder)

    @cache
    def expected(work):
        status, _, err = WORKS[work](tmp_path, damaged.folder)
        assert status == 0, err
        return what_came_of_it(work, tmp_path, damaged.folder)

    def check(rng):
        work, name = one_of(rng, WORKS), one_of(rng, names)
        bring_back_all()
        expected(work)
        bring_back_all()
        kind = damaged.spoil(name, rng)
        damaged.spoiled = ""
        views = damaged.run.recipe().prediction.views if tried(damaged.run.recipe).result else None
        but = (damaged.folder, tmp_path / "new", tmp_path / "cache", tmp_path / "out.csv", tmp_path / "out.csv.json")
        before = tree(tmp_path, but=but)
        outcome = tried(lambda: WORKS[work](tmp_path, damaged.folder))
        status, _, err = outcome.result
        assert tree(tmp_path, but=but) == before, f"{work}, {name}, {kind}: other files"
        if status:
            assert status == 2, f"{work}, {name}, {kind}: {status}"
            check_line(err.removesuffix("\n"), name)
            return f"{work} refused"
        if name == "recipe.yaml" and views != Run(damaged.whole).recipe().prediction.views:
            return f"{work} with other views"
        if work == "resume" and name == "last.pt" and kind in ("nothing", "lost link", "circle of links"):
            return "resume from the start"
        assert same(what_came_of_it(work, tmp_path, damaged.folder), expected(work)), f"{work}, {name}, {kind}"
        return f"{work} same"

    campaign("scripts on a run", check, cases=range(-(-NUM_CASES // 3)))


def what_came_of_it(work, folder, run):
    if work == "predict":
        return (folder / "out.csv").read_text()
    run = run if work == "resume" else next((folder / "new").iterdir())
    return load_checkpoint(run / "last.pt")["network"]
