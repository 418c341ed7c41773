"""A recipe is the same as flags, as a file and as what a run writes down."""

import dataclasses
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.command import parse_command
from pipeline.errors import UserError
from pipeline.recipe import SECTION_OF, Recipe, changes, flatten, to_yaml
from pipeline.recipe_file import read_recipe

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


def test_of_several_files_the_later_hold_and_each_field_that_is_overridden_is_said(tmp_path, capsys):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("epochs: 7\nlearning_rate: 1e-2\nmodel: resnet18\n")
    other.write_text("epochs: 8\nlearning_rate: 0.01\nsize: 96\naugment: []\n")
    recipe = parse_command(["--config", str(one), f"--config={other}", "--size", "64", "-b", "3"]).recipe
    assert changes(recipe) == {
        "epochs": 8, "learning_rate": 0.01, "model": "resnet18", "size": 64, "augment": [], "batch_size": 3
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        f"epochs       8 ({other}) overrides 7 ({one})",
        f"size         64 (--size) overrides 96 ({other})",
    ]
    assert parse_command(["--config", str(other), "--config", str(one)]).recipe.optimiser.epochs == 7


def test_epochs_that_are_given_later_end_a_training_that_an_earlier_file_ends_by_minutes(tmp_path, capsys):
    """They were overridden without a word: the earlier minutes held."""
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("epochs: 40\nminutes: 4\n")
    other.write_text("extends: one.yaml\nepochs: 3\n")
    ended = [f"epochs       3 ({other}) overrides 40 ({one})", f"minutes      None ({other}) overrides 4.0 ({one})"]
    for flags, length, said in (
        (["--config", str(other)], {"epochs": 3}, ended),
        (["--config", str(one), "-e", "40"], {"epochs": 40}, [f"minutes      None (--epochs) overrides 4.0 ({one})"]),
        (["--config", str(one), "--minutes", "4", "--epochs=40"], {"epochs": 40, "minutes": 4}, []),
        (["--config", str(one), "-e", "7", "--minutes", "4"], {"epochs": 7, "minutes": 4}, None),
        (["--config", str(other), "--minutes", "5"], {"epochs": 3, "minutes": 5}, None),
    ):
        assert changes(parse_command(flags).recipe) == length
        lines = capsys.readouterr().out.splitlines()
        assert said is None or lines == said
    assert changes(read_recipe(other)) == {"epochs": 3}


def test_a_length_that_is_given_later_replaces_the_minutes_of_a_session(tmp_path, capsys):
    """They were left, and held instead of what was given."""
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("session_minutes: 60\n")
    other.write_text("extends: one.yaml\nminutes: 4\n")
    said = f"session_minutes None ({{}}) overrides 60.0 ({one})"
    for flags, length, source in (
        (["--config", str(one), "-e", "40"], {"epochs": 40}, "--epochs"),
        (["--config", str(one), "--minutes", "5"], {"minutes": 5}, "--minutes"),
        (["--config", str(one), "--session-minutes", "60", "-e", "3"], {"session_minutes": 60, "epochs": 3}, None),
        (["--config", str(other)], {"minutes": 4}, other),
    ):
        assert changes(parse_command(flags).recipe) == length
        assert (said.format(source) in capsys.readouterr().out) == (source is not None)
    two = tmp_path / "two.yaml"
    two.write_text("minutes: 4\n")
    assert changes(parse_command(["--config", str(two), "--session-minutes", "60"]).recipe) == {"session_minutes": 60}


def test_a_run_that_was_ended_by_minutes_is_resumed_to_a_number_of_epochs(tmp_path):
    (tmp_path / "recipe.yaml").write_text(to_yaml(parse_command(["--minutes", "4"]).recipe))
    for flags, length in (([], {"minutes": 4}), (["-e", "20"], {}), (["--minutes", "9"], {"minutes": 9})):
        assert changes(parse_command(["--resume", str(tmp_path), *flags]).recipe) == length


# Nine lists, each nine times the one before: few bytes, and hundreds of millions of values.
BOMB = "".join(f"{b}: &{b} [{', '.join([f'*{a}' if a else '1'] * 9)}]\n" for a, b in pairwise(["", *"abcdefghi"]))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch: 3", "'epoch' is no field of a recipe; did you mean epochs"),
        ("epochs: soon", "epochs 'soon'"),
        ("epochs: 0", "epochs 0.*greater than or equal to 1"),
        ("top_perc_train: 130", "top_perc_train 130"),
        ("schedule: falling", "schedule 'falling'.*cosine"),
        ("roi: half", "roi 'half'.*'auto' or 'whole'"),
        ("roi: [0.2, 0.2, 0.05]", "roi.*0.1"),
        ("roi: [0.6, 0.2, 0.5]", "roi.*beyond the square"),
        ("epochs: [", "not YAML"),
        ("epochs: 3\nsize: 64\nepochs: 4", "epochs stands there twice, again in line 3"),
        ("augment: !!map [a]", "not YAML"),
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


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        (("--focal", "2"), "focal"),
        (("--focal", "2", "--head", "simcc", "--loss", "simcc"), None),
        (("--cycles", "3"), "cycles"),
        (("--cycles", "3", "--stages", '[{}, {"schedule": "triangular"}]'), None),
        (("--map-stride", "4", "--head", "low_rank"), "map_stride"),
        (("--map-stride", "4", "--head", "integral"), None),
        (("--warmup", "0.1", "--schedule", "one_cycle"), "warmup"),
        (("--final-rate", "1e-5", "--schedule", "constant"), "final_rate"),
        (("--trim-by", "sample"), "trim_by"),
        (("--trim-from", "1", "--top-perc-train", "30"), None),
        (("--trim-from", "1", "--stages", '[{}, {"without_top_perc_train": 1}]'), None),
    ],
)
def test_a_flag_that_does_nothing_because_of_another_field_is_said(flags, idle, capsys):
    parse_command([*flags])
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "does nothing" in line]
    assert said == ([idle] if idle else [])


def test_a_window_is_a_word_or_three_shares_by_flag_and_by_file(tmp_path):
    for flags, roi in (
        ([], "auto"),
        (["--roi", "whole"], "whole"),
        (["--roi", "0.1", "0.2", "0.75"], (0.1, 0.2, 0.75)),
    ):
        recipe = parse_command(flags).recipe
        assert recipe.photos.roi == roi
        (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
        assert read_recipe(tmp_path / "recipe.yaml") == recipe
    with pytest.raises(UserError, match=r"--roi.*beyond the square"):
        parse_command(["--roi", "0.6", "0.2", "0.5"])


def test_a_flag_that_makes_no_sense_is_refused_by_its_name():
    with pytest.raises(UserError, match="--batch-size 0"):
        parse_command(["--batch-size", "0"])
    for flag in ("--minutes", "--learning-rate", "--weight-decay", "--beta", "--plateau-patience"):
        for value in ("inf", "nan"):
            with pytest.raises(UserError, match=f"{flag} {value}"):
                parse_command([flag, value])
    for flag in ("--size", "--batch-size", "--seed", "--epochs"):  # more than memory, torch or a lifetime takes
        with pytest.raises(UserError, match=flag):
            parse_command([flag, "9" * 30])
    with pytest.raises(UserError, match="--stages is nested too deeply"):
        parse_command(["--augment", "[" * 50_000])
    with pytest.raises(UserError, match="command line is not UTF-8"):
        parse_command(["--data", "\udcff"])
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


@pytest.fixture
def run(tmp_path):
    """A run of a small network, as far as its recipe goes; the ROI was found."""
    folder = tmp_path / "run"
    folder.mkdir()
    flags = ["--model", "resnet18", "--size", "96", "--resize", "crop", "--data", "/faces", "-b", "7"]
    (folder / "recipe.yaml").write_text(to_yaml(parse_command(flags).recipe))
    (folder / "data.json").write_text(json.dumps({"roi": [0.1, 0.2, 0.7]}))
    return folder


def test_a_run_hands_on_its_network_and_where_its_data_are_but_not_how_it_was_trained(run):
    recipe = parse_command(["--init", str(run), "--learning-rate", "1e-4"]).recipe
    assert changes(recipe) == {
        "init": str(run), "learning_rate": 1e-4, "data": "/faces",
        "model": "resnet18", "size": 96, "resize": "crop", "roi": (0.1, 0.2, 0.7),
    }  # fmt: skip
    assert parse_command(["--init", str(run), "-d", "/other"]).recipe.run.data == Path("/other")


def test_while_the_data_are_a_runs_own_the_photos_that_it_held_out_stay_held_out(run, tmp_path):
    """So its score continues where it was. Folds hold out every photo; they are refused where the data are known."""
    (run / "validation.txt").write_text("a.jpg\n")
    init = ["--init", str(run)]
    assert parse_command(init).recipe.photos.split == run / "validation.txt"
    for flags in (["-d", "/other"], ["--train-share", "0.9"], ["--folds", "2"]):
        assert parse_command([*init, *flags]).recipe.photos.split is None
    assert parse_command([*init, "--split", "/x.txt"]).recipe.photos.split == Path("/x.txt")


def test_a_recipe_file_can_name_the_run_that_a_network_comes_from(run, tmp_path):
    (tmp_path / "r.yaml").write_text(f"init: {run}\ndata: /other\n")
    recipe = parse_command(["--config", str(tmp_path / "r.yaml")]).recipe
    assert recipe.network.model == "resnet18"
    assert recipe.run.data == Path("/other")


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "resnet50"), ("size", 128), ("resize", "letterbox"), ("roi", "whole"), ("roi", [0.1, 0.2, 0.8])],
)
def test_what_contradicts_the_run_that_a_network_comes_from_is_refused_even_where_it_is_the_default(
    field, value, run, tmp_path
):
    shown = map(str, value) if isinstance(value, list) else [str(value)]
    with pytest.raises(UserError, match=rf"^{field} .*\(--{field}\) contradicts --init {run}, which has "):
        parse_command(["--init", str(run), f"--{field}", *shown])
    (tmp_path / "r.yaml").write_text(json.dumps({field: value}))
    with pytest.raises(UserError, match=rf"^{field} .*\({tmp_path}/r.yaml\) contradicts --init {run}"):
        parse_command(["--init", str(run), "--config", str(tmp_path / "r.yaml")])


def test_what_agrees_with_the_run_that_a_network_comes_from_may_be_said(run):
    bare = parse_command(["--init", str(run)]).recipe
    agreeing = ["--model", "resnet18", "--size", "96", "--resize", "crop"]
    for roi in (["auto"], ["0.1", "0.2", "0.7"]):  # it was auto that found these
        assert parse_command(["--init", str(run), *agreeing, "--roi", *roi]).recipe == bare
    assert parse_command(["--init", str(run), "--config", str(run / "recipe.yaml")]).recipe.photos == bare.photos
    (run / "data.json").write_text("{}")  # of a time when there were no ROIs
    for roi in (["whole"], ["auto"], ["0", "0", "1"]):
        assert parse_command(["--init", str(run), "--roi", *roi]).recipe.photos.roi == "whole"


def test_a_mapping_may_take_over_pairs_of_another_and_change_some(tmp_path):
    base, own = "&base {scale: 1.1, rotation: 9}", "&own {<<: *base, scale: 1.2}"
    (tmp_path / "r.yaml").write_text(
        f"augment:\n- AffineAugmenter: {base}\n- AffineAugmenter: {own}\n- AffineAugmenter: {{<<: *own, scale: 1.3}}\n"
    )
    augment = read_recipe(tmp_path / "r.yaml").augmentation.augment
    assert [each["AffineAugmenter"]["scale"] for each in augment] == [1.1, 1.2, 1.3]
    assert [each["AffineAugmenter"]["rotation"] for each in augment] == [9, 9, 9]


def test_a_flag_that_agrees_with_the_run_overrides_a_file_that_does_not(run, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("size: 160\n")
    recipe = parse_command(["--config", str(tmp_path / "r.yaml"), "--init", str(run), "--size", "96"]).recipe
    assert recipe.photos.size == 96
    assert "96 (--size) overrides 160" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--boxes", "--locator"])
@pytest.mark.parametrize("found", [[0.1, 0.2, 0.7], [0, 0, 1]])
def test_the_region_of_whole_photos_is_not_that_of_boxes(run, flag, found):
    (run / "data.json").write_text(json.dumps({"roi": found}))
    elsewhere = ["--init", str(run), flag, "x"]
    assert parse_command(elsewhere).recipe.photos.roi == "auto"
    assert parse_command([*elsewhere, "--roi", "whole"]).recipe.photos.roi == "whole"
    text = (run / "recipe.yaml").read_text().replace("boxes: null", "boxes: y")
    assert text.count("boxes: y") == 1
    (run / "recipe.yaml").write_text(text)
    own = "whole" if found == [0, 0, 1] else tuple(found)
    assert parse_command(["--init", str(run), "--boxes", "x"]).recipe.photos.roi == own


def test_a_run_that_came_from_another_goes_on_as_it_is(run, tmp_path):
    """Whatever has become of the other, and though an earlier version trained another network from it."""
    (tmp_path / "second").mkdir()
    recipe = parse_command(["--model", "resnet50"]).recipe
    started = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, init=run))
    (tmp_path / "second/recipe.yaml").write_text(to_yaml(started))
    assert parse_command(["--resume", str(tmp_path / "second")]).recipe == started
    (run / "recipe.yaml").unlink()
    assert parse_command(["--resume", str(tmp_path / "second")]).recipe == started


def test_two_places_to_start_from_are_refused(run):
    with pytest.raises(UserError, match=r"--init and --weights x\.pth"):
        parse_command(["--init", str(run), "--weights", "x.pth"])
    parse_command(["--init", str(run), "--weights", "none"])


def test_no_run_and_a_damaged_one_are_refused_by_name(run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere/recipe\.yaml"):
        parse_command(["--init", str(tmp_path / "nowhere")])
    for damaged in ("{", "[]", '{"roi": 3}', '{"window": [1]}'):
        (run / "data.json").write_text(damaged)
        with pytest.raises(UserError, match=f"--init {run}.*data.json"):
            parse_command(["--init", str(run)])


def test_the_flat_recipe_has_every_field_once():
    assert list(flatten(Recipe())) == list(SECTION_OF)
