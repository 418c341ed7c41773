"""A training in stages: each begins where the one before ended, and one that was killed ends as one that was not."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from models import resized
from pipeline.checkpoint import load_checkpoint
from pipeline.command import Command
from pipeline.console import Console
from pipeline.errors import UserError
from pipeline.inference.submission import read_submission
from pipeline.ranks import Ranks
from pipeline.runs import Run, find_run, find_runs
from pipeline.stages import num_finished, write_finished
from pipeline.training import command as training_command
from pipeline.training import one_run
from pipeline.training.stages import check_recipes, recipe_of_stage
from pipeline.training.trainer import Trainer
from tests.pipeline.training.test_trainer import recipe_of
from tests.scripts import call, quick_pictures

STAGES = [{"epochs": 1}, {"epochs": 2, "learning_rate": 1e-4, "size": 40, "loss": "l1"}]
TRAIN, STEP = Trainer.train, Trainer.step


class Killed(Exception):
    """Stands for a process that ends between two instructions."""


@pytest.fixture(autouse=True, scope="module")
def without_reports():
    with quick_pictures():
        yield


def recipe_in(contest, folder, *flags, stages=STAGES):
    return recipe_of(contest, folder, "--head", "linear", "--stages", json.dumps(stages), *flags)


def train(recipe, earlier=None):
    trained = training_command.train_stages(recipe, Console(io.StringIO()), earlier)
    (folder,) = recipe.run.runs.iterdir()
    assert trained == folder
    return folder


@pytest.fixture(scope="module")
def whole(contest, tmp_path_factory):
    """A folder of two stages, the networks that they began with, and the training photos that they measured."""
    began, measured = [], []

    def train_and_note(trainer, chain):
        began.append({name: tensor.clone() for name, tensor in trainer.network.state_dict().items()})
        measured.append(trainer.data.pack.names[trainer.train_sample].tolist())
        TRAIN(trainer, chain)

    with mock.patch.object(Trainer, "train", train_and_note):
        folder = train(recipe_in(contest, tmp_path_factory.mktemp("whole")))
    return folder, began, measured


def networks(folder):
    return {
        (stage, name): load_checkpoint(folder / stage / name)["network"]
        for stage in ("stage-0", "stage-1")
        for name in ("best.pt", "last.pt")
    }


def test_a_stage_begins_with_the_best_weights_of_the_one_before_at_the_size_of_its_images(whole):
    folder, (_, began), _ = whole
    ended = resized(load_checkpoint(folder / "stage-0/best.pt")["network"], 32, 40)
    assert began.keys() == ended.keys()
    for name, tensor in ended.items():
        assert torch.equal(began[name], tensor), name


def test_stages_have_one_split_one_region_and_one_mirroring_and_what_differs_is_their_own(whole):
    folder, _, measured = whole
    assert measured[0] == measured[1]  # so that the curve goes on
    first, second = (Run(folder / name) for name in ("stage-0", "stage-1"))
    assert first.held_out_names() == second.held_out_names()
    assert first.about_data().roi == second.about_data().roi
    assert first.flip_indices.read_text() == second.flip_indices.read_text()
    assert [run.recipe().photos.size for run in (first, second)] == [32, 40]
    assert [run.recipe().loss.loss for run in (first, second)] == ["smooth_l1", "l1"]


def test_stages_that_are_killed_in_the_second_and_resumed_end_with_the_same_weights_to_the_bit(
    whole, contest, tmp_path
):
    """Killed before its first checkpoint, when it begins anew, and once more after it."""
    recipe, folder = recipe_in(contest, tmp_path), None
    for killed_at in (0, 5):

        def step_or_die(trainer, batch, killed_at=killed_at):
            if trainer.recipe.photos.size == 40 and trainer.state.step == killed_at:
                raise Killed
            STEP(trainer, batch)

        with mock.patch.object(Trainer, "step", step_or_die), pytest.raises(Killed):
            train(recipe, folder)
        (folder,) = recipe.run.runs.iterdir()
        assert (folder / "stage-1/last.pt").exists() == (killed_at > 0)
        assert num_finished(folder) == 1
        assert find_run(folder, folder).folder == folder / "stage-0"
    train(recipe, folder)
    assert num_finished(folder) == 2
    for (key, one), other in zip(networks(folder).items(), networks(whole[0]).values(), strict=True):
        for name, tensor in other.items():
            assert torch.equal(one[name], tensor), (key, name)


def test_what_a_resume_may_change_changes_in_the_stage_that_is_under_way_and_in_the_next(whole, contest, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "runs" / whole[0].name)
    recipe = recipe_in(contest, tmp_path, "--patience", "7", "--keep-best", "2", "--checkpoint-minutes", "3")
    found = recipe_of_stage(recipe, folder, 1)
    assert (found.running.patience, found.optimiser.keep_best, found.optimiser.checkpoint_minutes) == (7, 2, 3)
    assert (found.optimiser.epochs, found.optimiser.learning_rate) == (2, 1e-4)
    moved = replace(recipe, photos=replace(recipe.photos, boxes=Path("moved.csv")))
    (folder / "stage-1/last.pt").unlink()
    with pytest.raises(UserError, match=r"has weights but no last\.pt"):
        recipe_of_stage(recipe, folder, 1)
    (folder / "stage-1/best.pt").unlink()  # as if it had been stopped before its first checkpoint
    assert recipe_of_stage(moved, folder, 1).photos.boxes == Path("moved.csv")


def test_stages_that_are_finished_are_not_trained_again(whole, contest, tmp_path):
    folder, *_ = whole
    recipe = recipe_in(contest, tmp_path, "--runs", str(folder.parent))
    with mock.patch.object(Trainer, "step", side_effect=Killed):
        train(recipe, folder)


def test_each_stage_may_end_by_a_minute_of_the_session_and_goes_on_with_what_is_left_of_it(
    contest, tmp_path, monkeypatch
):
    planned = []

    def plan(trainer, **_):
        planned.append(trainer.recipe.running.session_minutes)
        return 1e-5 * len(planned)

    monkeypatch.setattr(one_run, "plan_session", plan)
    recipe = recipe_in(contest, tmp_path, stages=[{"session_minutes": 60}, {"session_minutes": 90}])
    folder = train(recipe)
    assert planned == [60, 90]
    for number, minutes in enumerate((1e-5, 2e-5)):
        options = Run(folder / f"stage-{number}").recipe()
        assert (options.optimiser.minutes, options.running.session_minutes) == (minutes, None)
    assert recipe_of_stage(recipe, folder, 1).optimiser.minutes == 2e-5


def test_predict_takes_the_last_stage_that_is_finished_from_the_folder_and_as_the_newest(whole, tmp_path):
    folder, *_ = whole
    assert [run.folder for run in find_runs((), folder.parent)] == [folder / "stage-1"]
    (tmp_path / "views.json").write_text("[[]]")
    flags = ["--weights", "equal", "--views", tmp_path / "views.json"]
    points = {}
    for name, flag in {"folder": folder, "stage": folder / "stage-1"}.items():
        status, out, err = call("predict.py", tmp_path, "--run", flag, *flags)
        assert status == 0, err
        assert f"{folder / 'stage-1'}, best weights" in out
        points[name] = read_submission(folder / "stage-1/submission.csv")[1]
    assert (points["folder"] == points["stage"]).all()
    write_finished(folder, 1)
    assert [run.folder for run in find_runs((folder,), folder.parent)] == [folder / "stage-0"]
    write_finished(folder, 2)


def test_what_a_later_stage_cannot_be_trained_with_is_refused_before_the_first(contest, tmp_path):
    with pytest.raises(UserError, match="NoAugmenter"):
        train(recipe_in(contest, tmp_path, stages=[{}, {"augment": [{"NoAugmenter": {}}]}]))
    assert not (tmp_path / "runs").exists()


def test_a_training_of_fields_that_contradict_each_other_is_not_begun_but_resumed(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(training_command, "train_run", lambda *_, job: tmp_path)
    monkeypatch.setattr(training_command, "find_run", lambda *_: None)
    command = Command(recipe=recipe_of(contest, tmp_path, "--progressive", "[[0.5, 64]]"))
    with pytest.raises(UserError, match="--progressive: its size 64 is above --size 32"):
        training_command.train_command(command, Console(io.StringIO()))
    resumed = replace(command, resume=tmp_path)  # of an earlier version
    assert training_command.train_command(resumed, Console(io.StringIO())) == tmp_path


def test_a_batch_that_is_too_small_for_all_processes_is_refused_before_the_first_stage(contest, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.networks.current_ranks", lambda: Ranks(0, 8))
    with pytest.raises(
        UserError, match="stage 1: --batch-size 4: 8 processes share its photos, and each needs one of a step"
    ):
        check_recipes(recipe_in(contest, tmp_path, stages=[{}, {"batch_size": 4}]))


@pytest.mark.parametrize("flags", [(), ("--locate", "0.5")])
def test_a_first_stage_that_is_refused_leaves_no_folder(contest, tmp_path, flags):
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        train(recipe_in(contest, tmp_path, "--split", str(tmp_path / "nowhere.txt"), *flags))
    assert not list((tmp_path / "runs").iterdir())
