"""Weights of photos belong to a run as its split does: kept in it, compared, and the same after a stop."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pipeline.command import parse_command
from pipeline.data.dataset import load_training_data
from pipeline.errors import UserError
from pipeline.runs import Run, fold_runs
from pipeline.training.identity import identity_of
from pipeline.training.one_run import prepare
from tests.scripts import SMALL, call, train

FEW = ("--steps-per-epoch", "2")


@pytest.fixture
def load(contest):
    def load(*flags):
        cache = contest.parent / "cache"
        return parse_command(["-d", str(contest), "--cache", str(cache), *SMALL, *map(str, flags)]).recipe

    return load


def write_weights(path, weights):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "weight"), *weights.items()])
    return path


def test_photos_of_weight_0_are_not_trained_on_and_the_split_stays(load, tmp_path):
    plain = load_training_data(load())
    names = plain.pack.names[[plain.train[0], plain.train[3], plain.validation[0]]]
    path = write_weights(tmp_path / "w.csv", {names[0]: 0, names[1]: 2, names[2]: 0})
    recipe = load("--sample-weights", path)
    data = load_training_data(recipe)
    assert data.train.tolist() == plain.train[1:].tolist()
    assert data.validation.tolist() == plain.validation.tolist()
    assert data.weights[plain.train[[0, 3, 4]]].tolist() == [0, 2, 1]
    others = replace(data, weights=np.where(data.weights == 2, 3, data.weights))
    assert len({identity_of(recipe, each) for each in (plain, data, others)}) == 3
    ones = load_training_data(load("--sample-weights", write_weights(tmp_path / "ones.csv", {names[0]: 1})))
    assert identity_of(recipe, ones) == identity_of(load(), plain)
    nothing = write_weights(tmp_path / "none.csv", dict.fromkeys(plain.pack.names, 0))
    with pytest.raises(UserError, match=r"--sample-weights .*none\.csv leaves no photo to train on"):
        load_training_data(load("--sample-weights", nothing))


def test_a_run_keeps_its_weights_and_refuses_others(load, contest, tmp_path):
    names = load_training_data(load()).pack.names
    path = write_weights(tmp_path / "w.csv", dict(zip(names[:40], np.linspace(0, 3, 40), strict=True)))
    run, out = train(tmp_path, contest, "-e", "1", *FEW, "--sample-weights", path)
    assert "left out" in out
    assert "(--sample-weights)" in out
    path.unlink()
    kept = Run(run).photo_options()
    assert kept.sample_weights == run / "sample_weights.csv"
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert status == 0, err
    (run / "sample_weights.csv").write_text("file_name,weight\n")
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "3")
    assert (status, err.count("\n")) == (2, 1)
    assert "sample_weights.csv was changed" in err


def test_a_trainer_has_the_weights_relative_to_those_that_it_trains_on(load, tmp_path):
    assert prepare(load(), None)[0].criterion.sample_weights is None
    names = load_training_data(load()).pack.names
    path = write_weights(tmp_path / "w.csv", dict(zip(names[:40], np.linspace(0, 3, 40), strict=True)))
    trainer, _ = prepare(load("--sample-weights", path), None)
    own = trainer.criterion.sample_weights.numpy()
    np.testing.assert_allclose(own[trainer.data.train].mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(own / own[-1], trainer.data.weights, rtol=1e-6)


def test_folds_keep_the_weights_that_they_were_made_with(load, contest, tmp_path):
    names = load_training_data(load()).pack.names
    path = write_weights(tmp_path / "w.csv", {names[0]: 0, names[1]: 2})
    flags = ("-e", "1", "--steps-per-epoch", "1", "--sample-weights", path)
    folder, _ = train(tmp_path, contest, *flags, "--folds", "2")
    path.unlink()
    for run in fold_runs(folder):
        assert run.photo_options().sample_weights.read_text() == (folder / "sample_weights.csv").read_text()
    shutil.rmtree(folder / "fold-1")
    status, _, err = call("hack_train.py", tmp_path, "--resume", folder)
    assert status == 0, err
    (folder / "sample_weights.csv").write_text("file_name,weight\n")
    status, _, err = call("hack_train.py", tmp_path, "--resume", folder)
    assert (status, err.count("\n")) == (2, 1)
    assert "sample_weights.csv was changed" in err
