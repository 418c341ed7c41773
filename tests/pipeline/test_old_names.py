"""What earlier versions called a field still names it, in a recipe file and on the command line."""

import pytest
import yaml

from pipeline.command import parse_command
from pipeline.errors import UserError
from pipeline.old_names import rename_fields, rename_flags
from pipeline.recipe import Recipe, flatten
from pipeline.recipe_file import read_recipe

OLD = "fit: pad\nwindow: [0.1, 0.1, 0.8]\npermutation: none\naverage: 0.9\n"
NEW = "resize: letterbox\nroi: [0.1, 0.1, 0.8]\nflip_indices: none\nema_decay: 0.9\n"


def test_a_recipe_of_an_earlier_version_means_what_it_meant(tmp_path):
    for name, text in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.yaml").write_text(text)
    assert read_recipe(tmp_path / "old.yaml") == read_recipe(tmp_path / "new.yaml")
    (tmp_path / "crop.yaml").write_text("fit: crop")
    assert read_recipe(tmp_path / "crop.yaml").photos.resize == "crop"


def test_flags_of_an_earlier_version_mean_what_they_meant():
    old = ["--fit", "pad", "--window", "0.1", "0.1", "0.8", "--permutation=none", "--average", "0.9"]
    new = ["--resize", "letterbox", "--roi", "0.1", "0.1", "0.8", "--flip-indices=none", "--ema-decay", "0.9"]
    assert rename_flags(old) == rename_flags(new) == new
    assert parse_command(old) == parse_command(new)
    assert rename_flags(["--fit=pad"]) == ["--resize=letterbox"]
    assert rename_flags(["--name", "pad"]) == ["--name", "pad"]


def test_both_names_of_a_field_are_refused():
    with pytest.raises(UserError, match="fit is an earlier name of resize"):
        rename_fields({"fit": "pad", "resize": "crop"})


def test_a_run_of_before_there_were_heads_has_the_linear_one_and_a_recipe_of_a_user_the_default(tmp_path):
    whole = {name: value for name, value in flatten(Recipe()).items() if name != "head"}
    default = Recipe().network.head
    for name, content, head in (
        ("recipe.yaml", whole, "linear"),
        ("recipe.yaml", {"size": 96}, default),
        ("mine.yaml", whole, default),
    ):
        (tmp_path / name).write_text(yaml.safe_dump(content))
        assert read_recipe(tmp_path / name).network.head == head
