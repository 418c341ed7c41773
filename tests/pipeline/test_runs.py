"""A run's folder has a name that any shell takes as it is, and the newest one with weights is found."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.recipe import parse_command
from pipeline.runs import Run, find_run, folder_name


def recipe_of(*arguments):
    return parse_command(list(arguments)).recipe


def test_the_name_says_what_was_changed():
    recipe = recipe_of("-n", "x", "--model", "resnet18", "-b", "64", "--augment", "[]", "--gpu", "-d", "/some/where")
    assert folder_name(recipe, "20260102-030405") == "20260102-030405_x_model-resnet18_augment_batch-size-64"


@given(st.text(max_size=300))
def test_any_name_is_safe_in_any_shell(name):
    recipe = recipe_of(f"--name={name}") if not name.startswith("-") else recipe_of("-n", "x")
    found = folder_name(recipe, "20260102-030405")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", found)
    assert len(found) <= 100


def test_the_newest_run_with_weights_is_taken(tmp_path):
    for age, (name, has_weights) in enumerate([("c", True), ("a", True), ("b", False)]):
        (tmp_path / name).mkdir()
        if has_weights:
            (tmp_path / name / "best.pt").touch()
            os.utime(tmp_path / name / "best.pt", (age, age))
    assert find_run(None, tmp_path) == Run(tmp_path / "a")


def test_no_run_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"hack_train\.py"):
        find_run(None, tmp_path)
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        find_run(tmp_path, tmp_path)
