"""A session's minutes are those that are gone, those of the training, and those that the prediction needs."""

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from pipeline.command import parse_command
from pipeline.data.boxes import Boxes
from pipeline.errors import UserError
from pipeline.inference.locator import MOST_LOOKS
from pipeline.launch import Launch
from pipeline.runs import Run
from pipeline.training import session_time
from pipeline.training.job import taken_up
from pipeline.training.one_run import in_session
from pipeline.training.session_time import MARGIN, STARTING, begun_at, plan_session
from tests.pipeline.training.test_trainer import recipe_of, start


def test_what_is_gone_and_what_the_prediction_takes_is_left_out_of_the_training(contest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session_time, "measured_speed", lambda trainer: 10.0)
    recipe = recipe_of(contest, tmp_path, "--session-minutes", "60", "--views", "[[], []]")
    trainer = start(recipe)
    trainer.state.minutes = 7.0  # of an earlier sitting
    minutes = plan_session(trainer, gone=600.0)
    fitting = session_time.FITTING * 2 * 16 * 971
    num_images = 16 + 16 + 2 * (12 + 16)  # validation, as many of train; test and validation through both views
    num_images += 2 * 16  # validation as it is and mirrored, for the report
    expected = 3600 - 600 - STARTING - fitting - MARGIN * num_images / 10.0
    assert minutes == pytest.approx(7 + expected / 60)
    assert "session      60.0 minutes: 10.0 are gone" in capsys.readouterr().out

    planned = in_session(recipe, minutes=minutes)
    assert planned.optimiser.minutes == minutes
    assert planned.running.session_minutes is None  # so that a resumed run goes on with what is left of them
    assert replace(planned, optimiser=recipe.optimiser, running=recipe.running) == recipe

    with pytest.raises(UserError, match=r"--session-minutes 60: 60\.0 are gone and .* give more than 62"):
        plan_session(trainer, gone=3600.0)


def test_time_is_left_to_find_where_to_look_in_the_photos_of_the_test_and_to_pack_them_so(contest, tmp_path):
    trainer = start(recipe_of(contest, tmp_path, "--session-minutes", "60"))
    expected = session_time.prediction_seconds(trainer, speed=10.0, packed=50.0, num_views=2)
    trainer.data = replace(trainer.data, boxes=Boxes("a file", {}, ""))
    expected += MARGIN * 12 / 50.0
    assert session_time.prediction_seconds(trainer, speed=10.0, packed=50.0, num_views=2) == pytest.approx(expected)
    photos = trainer.recipe.photos
    half = replace(trainer.recipe, photos=replace(photos, size=photos.size // 2))
    locator = SimpleNamespace(recipe=lambda: half)
    expected += MARGIN * math.ceil(12 * MOST_LOOKS / 4) / 10.0
    found = session_time.prediction_seconds(trainer, speed=10.0, packed=50.0, num_views=2, locator=locator)
    assert found == pytest.approx(expected)


def test_time_is_kept_for_those_held_out_photos_alone_that_weights_are_fitted_on(contest, tmp_path, monkeypatch):
    trainer = start(recipe_of(contest, tmp_path, "--session-minutes", "60"))
    of_all = session_time.prediction_seconds(trainer, speed=10.0, packed=50.0, num_views=3)
    monkeypatch.setattr(session_time, "MAX_FITTED", 5)
    fewer = len(trainer.data.validation) - 5
    assert fewer > 0
    expected = of_all - MARGIN * 3 * fewer / 10.0 - session_time.FITTING * 3 * fewer * 971
    assert session_time.prediction_seconds(trainer, speed=10.0, packed=50.0, num_views=3) == pytest.approx(expected)


def test_the_speed_of_packing_is_that_of_this_contests_photos(contest, tmp_path, monkeypatch):
    trainer = start(recipe_of(contest, tmp_path))
    monkeypatch.setattr(session_time, "num_cores", lambda: 3)
    monkeypatch.setattr(session_time, "read_photo", lambda path: time.sleep(0.02) or np.zeros((9, 9, 3), np.uint8))
    assert 60 < session_time.packing_speed(trainer) < 150  # three times less than 50 a second
    trainer.recipe = replace(trainer.recipe, run=replace(trainer.recipe.run, data=tmp_path))
    assert session_time.packing_speed(trainer) == session_time.PACKING


def test_the_speed_is_that_of_the_final_size(contest, tmp_path, monkeypatch):
    trainer = start(recipe_of(contest, tmp_path))
    photos = replace(trainer.recipe.photos, progressive=((0.9, 48),))
    trainer.recipe = replace(trainer.recipe, photos=photos)
    assert trainer.image_size(0) == 48
    shown = []
    monkeypatch.setattr(trainer, "predict", lambda samples, image_size: shown.append((len(samples), image_size)))
    assert session_time.measured_speed(trainer) > 0
    assert shown == [(2, 32), (16, 32)]


def test_a_session_begins_with_its_command_and_not_with_a_process_that_torchrun_has_started_anew(monkeypatch):
    own, agent = psutil.Process(), psutil.Process().parent()
    assert begun_at() == own.create_time()
    monkeypatch.setattr(session_time, "read_launch", lambda: Launch(job="job"))
    assert begun_at() == agent.create_time()


def test_what_torchrun_starts_anew_ends_with_its_session(tmp_path):
    recipe = parse_command(["-d", str(tmp_path), "--minutes", "200"]).recipe  # as they were planned at first
    Run(tmp_path).write_recipe(recipe)
    job = SimpleNamespace(begun=lambda: tmp_path)
    again = taken_up(parse_command(["-d", str(tmp_path), "--session-minutes", "600"]), job)
    assert again.resume == tmp_path
    assert again.recipe.running.session_minutes == 600
    assert taken_up(parse_command(["-d", str(tmp_path)]), job).recipe.optimiser.minutes == 200


def test_two_flags_for_the_same_are_refused():
    with pytest.raises(UserError, match="leave out one of them"):
        parse_command(["--minutes", "20", "--session-minutes", "60"])


@pytest.mark.parametrize("several", [["--folds", "2"], ["--stages", '[{"epochs": 1}, {"epochs": 2}]']])
def test_folds_and_stages_have_no_session_of_their_own(several):
    with pytest.raises(UserError, match="--session-minutes is for one run"):
        parse_command([*several, "--session-minutes", "60"])
