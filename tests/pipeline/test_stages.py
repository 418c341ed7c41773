"""Stages of a recipe: each differs in its own fields alone, and what makes no sense is refused at the start."""

import json

import pytest

from pipeline.command import parse_command
from pipeline.errors import UserError
from pipeline.recipe import Recipe, changes, flatten, to_yaml
from pipeline.recipe_file import read_recipe
from pipeline.stages import check_begun_anew, last_stage, num_finished, stage_recipe, write_finished
from pipeline.trainable import check_longer

TWO = [{"freeze_epochs": 1, "epochs": 1}, {"learning_rate": "1e-4", "size": 160, "loss": "wing"}]


def stages(content) -> Recipe:
    return parse_command(["-n", "x", "--minutes", "3", "--seed", "5", "--stages", json.dumps(content)]).recipe


def test_a_stage_differs_from_the_recipe_in_its_fields_its_name_and_its_seed_alone():
    recipe = stages(TWO)
    first, second = (stage_recipe(recipe, number) for number in (0, 1))
    of_both = {"stages": []}
    assert changes(first, recipe) == of_both | {
        "name": "x-stage-0", "freeze_epochs": 1, "epochs": 1, "minutes": None
    }  # fmt: skip
    assert changes(second, recipe) == of_both | {
        "name": "x-stage-1", "seed": 6, "learning_rate": 1e-4, "size": 160, "loss": "wing"
    }  # fmt: skip


def test_stages_are_a_flag_and_a_key_of_a_file_alike(tmp_path):
    recipe = stages(TWO)
    (tmp_path / "own.yaml").write_text(to_yaml(recipe))
    assert read_recipe(tmp_path / "own.yaml") == recipe
    assert parse_command(["--config", str(tmp_path / "own.yaml")]).recipe == recipe
    assert parse_command(["--config", str(tmp_path / "own.yaml"), "--stages", "[]"]).recipe.run.stages == []


def test_a_flag_that_does_not_hold_in_a_stage_is_said(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text(f"stages: {json.dumps(TWO)}\nbatch_size: 8\n")
    parse_command(["--config", str(tmp_path / "own.yaml"), "--epochs", "9", "-b", "4"])
    assert capsys.readouterr().out.splitlines() == [
        f"batch_size   4 (--batch-size) overrides 8 ({tmp_path / 'own.yaml'})",
        "epochs       9 (--epochs) does not hold in stage 0, which has its own",
    ]


@pytest.mark.parametrize(
    ("flag", "stages"),
    [
        ("--epochs", '[{"minutes": 3}, {}, {"session_minutes": 9}]'),
        ("--minutes", '[{"epochs": 3}, {}, {"session_minutes": 9}]'),
    ],
)
def test_a_length_that_does_not_hold_in_a_stage_with_one_of_its_own_is_said(flag, stages, capsys):
    parse_command([flag, "20", "--stages", stages])
    out = capsys.readouterr().out
    assert out.startswith(f"{flag.removeprefix('--'):12} 20")
    assert f"({flag}) does not hold in stage 0, 2, which has its own" in out


def test_of_stages_the_first_alone_has_a_share_for_the_locator_which_is_said(capsys):
    parse_command(["--locate", "0.2", "--stages", "[{}, {}]"])
    assert "0.2 is a share of stage 0 alone" in capsys.readouterr().out


def test_how_stages_go_together_is_judged_with_the_flags(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text('stages: [{}, {"loss": "simcc"}]\n')
    flags = ["--config", str(path)]
    with pytest.raises(UserError, match=r"own\.yaml: stages: stage 1: loss simcc is of the head simcc"):
        parse_command(flags)
    assert parse_command([*flags, "--head", "simcc"]).recipe.network.head == "simcc"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{}, {"model": "resnet18"}], "stage 1: model is of the whole training"),
        ([{"data": "/x"}], "stage 0: data is of the whole training"),
        ([{"stages": []}], "stage 0: stages is of the whole training"),
        ([{"views": [[]]}], "stage 0: views is of the whole training"),
        ([{"window": "whole"}], "stage 0: roi is of the whole training"),
        ([{"session_minutes": 9}, {}, {"session_minutes": 9}], "stage 2: session_minutes 9 are over"),
        ([{"epoch": 3}], "stage 0: 'epoch' is no field of a stage; did you mean epochs"),
        ([{"epochs": 0}], "stage 0: epochs 0"),
        ([{"size": "large"}], "stage 0: size 'large'"),
        ([{"loss": "simcc"}], "stage 0: loss simcc is of the head simcc, not of"),
        (3, "stages 3: Input should be a valid list"),
        ([3], "stages 3: Input should be a valid dictionary"),
        ([{}] * 1001, "1,001 stages"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused_by_its_number_from_a_flag_and_from_a_file(tmp_path, content, named):
    with pytest.raises(UserError, match=f"^--stages.*{named.removeprefix('stages')}") as caught:
        stages(content)
    assert "\n" not in str(caught.value)
    (tmp_path / "own.yaml").write_text(json.dumps({"stages": content}))
    with pytest.raises(UserError, match=f"own.yaml: stages.*{named.removeprefix('stages')}"):
        read_recipe(tmp_path / "own.yaml")


def test_a_linear_head_does_not_change_what_it_predicts_from_stage_to_stage():
    content = json.dumps([{}, {"loss": "laplace_nll"}])
    with pytest.raises(UserError, match="stage 1: loss laplace_nll: a linear head"):
        parse_command(["--head", "linear", "--stages", content])
    parse_command(["--head", "integral", "--stages", content])
    parse_command(["--head", "linear", "--loss", "laplace_nll", "--stages", json.dumps([{}, {"beta": 2}])])


@pytest.mark.parametrize("head", ["flat", "simcc", "integral", "low_rank", "linear"])
def test_a_stage_of_another_size_is_refused_where_its_head_would_start_at_random(head):
    sizes = [json.dumps([{"size": size} for size in sizes]) for sizes in ((96, 96), (96, 128))]
    parse_command(["--head", head, "--stages", sizes[0]])
    if head not in ("flat", "simcc"):
        parse_command(["--head", head, "--stages", sizes[1]])
        return
    with pytest.raises(UserError, match=rf"^--stages: stage 1: size 128: .* {head} head .* 96 px; .*another head$"):
        parse_command(["--head", head, "--stages", sizes[1]])


CONTRADICTIONS = [
    ({"progressive": [[0.5, 48], [0.5, 56]], "size": 64}, "--progressive: its shares add up to 1 .* --size 64"),
    ({"progressive": [[0.7, 32], [0.2, 48], [0.1, 56]], "size": 64}, "--progressive: its shares add up to 1"),
    ({"progressive": [[0.5, 96]], "size": 64}, "--progressive: its size 96 is above --size 64"),
    ({"top_perc_train": 10, "without_top_perc_train": 20}, "--without-top-perc-train 20 .* --top-perc-train 10"),
    ({"without_top_perc_train": 100}, "--without-top-perc-train 100 .* --top-perc-train 100"),
    (
        {"optimiser": "schedule_free", "schedule": "constant", "freeze_epochs": 1, "epochs": 2},
        "--freeze-epochs 1: --optimiser schedule_free .* two stages",
    ),
    (
        {"optimiser": "schedule_free", "schedule": "constant", "freeze_epochs": 25, "minutes": 30},
        "--freeze-epochs 25: --optimiser schedule_free",
    ),
    ({"optimiser": "schedule_free"}, "--optimiser schedule_free .* add --schedule constant"),
    ({"optimiser": "schedule_free", "schedule": "constant", "momentum": 0}, "--optimiser schedule_free: --momentum 0"),
    ({"schedule": "exponential"}, "--final-rate 0: --schedule exponential"),
    ({"schedule": "linear", "final_rate": 0.5}, "--final-rate 0.5 is above --learning-rate 0.001"),
    ({"schedule": "plateau", "top_perc_train": 30, "trim_from": 1.5}, "--schedule plateau .* --trim-from 1.5"),
]


def test_a_longer_training_is_refused_where_it_would_unfreeze_what_the_shorter_one_did_not():
    flags = ["--optimiser", "schedule_free", "--schedule", "constant", "--freeze-epochs", "5", "-e", "5"]
    short = parse_command(flags).recipe
    for longer in (["-e", "6"], ["--minutes", "9"]):
        longer = parse_command([*flags, *longer]).recipe
        with pytest.raises(UserError, match=r"--freeze-epochs 5: a longer training .*--init RUN"):
            check_longer(longer, short)
        check_longer(longer, longer)  # an earlier version has begun it
    check_longer(short, short)


def told(value):
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(("fields", "named"), CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_refused_before_a_training_that_they_are_for(tmp_path, fields, named):
    """By flags, by a file and in a stage. They may still be read: an earlier version has trained with them."""
    flags = [text for name, value in fields.items() for text in (f"--{name.replace('_', '-')}", told(value))]
    (tmp_path / "own.yaml").write_text(json.dumps(fields))
    for arguments in (flags, ["--config", str(tmp_path / "own.yaml")]):
        with pytest.raises(UserError, match=f"^{named}") as caught:
            check_begun_anew(parse_command(arguments).recipe)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"^stage 1: {named}"):
        check_begun_anew(stages([{"size": 128}, fields]))
    sound = {name: value for name, value in flatten(Recipe()).items() if name in fields}
    check_begun_anew(parse_command([*flags, "--stages", json.dumps([sound])]).recipe)  # no stage has them


def test_what_excludes_each_other_is_refused_on_resume_with_folds_and_with_a_split(tmp_path):
    (tmp_path / "recipe.yaml").write_text(to_yaml(stages(TWO)))
    assert parse_command(["--resume", str(tmp_path)]).recipe == stages(TWO)
    with pytest.raises(UserError, match="--minutes cannot change on --resume of stages"):
        parse_command(["--resume", str(tmp_path), "--minutes", "9"])
    with pytest.raises(UserError, match="--folds and stages exclude each other"):
        parse_command(["--folds", "2", "--stages", "[{}]"])
    with pytest.raises(UserError, match=r"--limit-photos leaves out photos that --split x\.txt names"):
        parse_command(["--limit-photos", "9", "--split", "x.txt"])


def test_a_folder_of_stages_stands_for_the_last_one_that_is_finished(tmp_path):
    assert last_stage(tmp_path) == tmp_path
    for finished, name in ((0, "stage-0"), (1, "stage-0"), (2, "stage-1")):
        write_finished(tmp_path, finished)
        assert num_finished(tmp_path) == finished
        assert last_stage(tmp_path) == tmp_path / name
    path = tmp_path / "stages.json"
    path.write_text(path.read_text().replace("2", "1"))
    with pytest.raises(UserError, match=r"stages\.json"):
        last_stage(tmp_path)
