"""A recipe is the same as flags, as a file and as what a run writes down."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from augment import parse_augmenters
from pipeline.errors import UserError
from pipeline.recipe import SECTION_OF, Recipe, changes, flatten, parse_command, read_recipe, to_yaml

ROOT = Path(__file__).parents[2]


def test_the_organisers_flags_keep_their_names():
    short = parse_command(["-n", "x", "-d", "/data", "-b", "7", "-e", "3", "-lr", "0.01", "--gpu"]).recipe
    long = parse_command(
        ["--name", "x", "--data", "/data", "--batch-size", "7", "--epochs", "3", "--learning-rate", "0.01", "--gpu"]
    ).recipe
    assert short == long
    assert changes(short) == {
        "name": "x",
        "data": "/data",
        "gpu": True,
        "batch_size": 7,
        "epochs": 3,
        "learning_rate": 0.01,
    }


def test_every_field_has_a_flag_and_a_line_of_help():
    text = subprocess.run(
        [sys.executable, "hack_train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in SECTION_OF:
        assert f"--{name.replace('_', '-')}" in text
    assert "--config" in text
    assert "--resume" in text


@pytest.mark.parametrize("script", ["hack_train.py", "predict.py"])
def test_help_does_not_wait_for_torch(script):
    """What is slow to import is not imported for it."""
    code = f"""
import runpy, sys
sys.argv = ["{script}", "--help"]
try:
    runpy.run_path("{script}", run_name="__main__")
except SystemExit:
    pass
sys.exit(", ".join({{"torch", "cv2", "pandas", "sklearn", "scipy", "tensorboard"}} & set(sys.modules)) or 0)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_recipe_through_a_file_is_the_same(tmp_path):
    recipe = parse_command(
        ["-n", "x", "--minutes", "2.5", "--augment", '[{"MirrorAugmenter": {}}]', "--split", "/a/b.txt"]
    ).recipe
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert read_recipe(tmp_path / "recipe.yaml") == recipe
    assert parse_command(["--config", str(tmp_path / "recipe.yaml")]).recipe == recipe


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    (tmp_path / "recipe.yaml").write_text("epochs: 7\nlearning_rate: 1e-2\nmodel: resnet18\n")
    recipe = parse_command(["--config", str(tmp_path / "recipe.yaml"), "--epochs", "9"]).recipe
    assert changes(recipe) == {"epochs": 9, "learning_rate": 0.01, "model": "resnet18"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_in_configs_is_valid(path):
    recipe = read_recipe(path)
    parse_augmenters(recipe.augmentation.augment)
    assert changes(recipe).keys() == yaml.safe_load(path.read_text()).keys(), "a line repeats a default"


# Nine lists, each nine times the one before: few bytes, and hundreds of millions of values.
BOMB = "".join(f"{b}: &{b} [{', '.join([f'*{a}' if a else '1'] * 9)}]\n" for a, b in pairwise(["", *"abcdefghi"]))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch: 3", "'epoch' is no field of a recipe; did you mean epochs"),
        ("epochs: soon", "epochs 'soon'"),
        ("epochs: 0", "epochs 0.*greater than or equal to 1"),
        ("top_perc_train: 130", "top_perc_train 130"),
        ("schedule: linear", "schedule 'linear'.*cosine"),
        ("window: half", "window 'half'.*'auto' or 'whole'"),
        ("window: [0.2, 0.2, 0.05]", "window.*0.1"),
        ("window: [0.6, 0.2, 0.5]", "window.*beyond the square"),
        ("epochs: [", "not YAML"),
        ("- 3", "field: value"),
        ("name: 2020-99-99", "month must be in 1..12"),
        ("name: 2020-01-02", "quote it if it is text"),
        ("epochs: !!int x", "invalid literal"),
        ("gpu: !!bool x", "not YAML"),
        ("epochs: !!python/name:os.system", "not YAML"),
        ("augment: &a [*a]", "refers to itself"),
        ("augment: " + "[" * 5000, "nested too deeply"),
        (BOMB, "refers to itself"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_field(tmp_path, text, named):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=f"recipe.yaml.*{named}"):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_window_is_a_word_or_three_shares_by_flag_and_by_file(tmp_path):
    for flags, window in (
        ([], "auto"),
        (["--window", "whole"], "whole"),
        (["--window", "0.1", "0.2", "0.75"], (0.1, 0.2, 0.75)),
    ):
        recipe = parse_command(flags).recipe
        assert recipe.photos.window == window
        (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
        assert read_recipe(tmp_path / "recipe.yaml") == recipe
    with pytest.raises(UserError, match=r"--window.*beyond the square"):
        parse_command(["--window", "0.6", "0.2", "0.5"])


def test_a_flag_that_makes_no_sense_is_refused_by_its_name():
    with pytest.raises(UserError, match="--batch-size 0"):
        parse_command(["--batch-size", "0"])
    with pytest.raises(SystemExit) as stop:
        parse_command(["--epochs", "soon"])
    assert stop.value.code == 2


def test_resume_keeps_the_recipe_and_lets_only_the_length_and_the_place_change(tmp_path):
    recipe = parse_command(["-n", "x", "--epochs", "3"]).recipe
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert parse_command(["--resume", str(tmp_path)]).recipe == recipe
    assert parse_command(["--resume", str(tmp_path), "-e", "9"]).recipe.optimiser.epochs == 9
    with pytest.raises(UserError, match="--learning-rate cannot change on --resume"):
        parse_command(["--resume", str(tmp_path), "-lr", "9"])
    with pytest.raises(UserError, match="exclude each other"):
        parse_command(["--resume", str(tmp_path), "--config", str(tmp_path / "recipe.yaml")])


def test_the_flat_recipe_has_every_field_once():
    assert list(flatten(Recipe())) == list(SECTION_OF)
