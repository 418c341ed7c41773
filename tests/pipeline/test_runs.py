"""A run's folder has a name that any shell takes, the newest one with weights is found, and a change of it is seen."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.command import parse_command
from pipeline.data.dataset import open_train_photos
from pipeline.errors import UserError
from pipeline.files import sealed
from pipeline.runs import Run, find_run, find_runs, fold_runs
from pipeline.training.new_run import folder_name
from tests.scripts import call, quick_report


def recipe_of(*arguments):
    return parse_command(list(arguments)).recipe


def test_the_name_says_what_no_resume_can_change():
    one = recipe_of("-n", "x", "--model", "resnet18", "-e", "3", "--augment", "[]", "--gpu", "-d", "/some/where")
    assert folder_name(one, "20260102-030405") == "20260102-030405_x_resnet18_128px"
    assert folder_name(recipe_of(), "20260102-030405") == "20260102-030405_run_resnet50_128px"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300))
def test_any_name_is_safe_in_any_shell(name):
    recipe = recipe_of(f"--name={name}") if not name.startswith("-") else recipe_of("-n", "x")
    found = folder_name(recipe, "20260102-030405")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", found)
    assert len(found) <= 100
    assert found.endswith("_resnet50_128px")


def test_the_newest_run_with_weights_is_taken(tmp_path):
    for age, (name, has_weights) in enumerate([("c", True), ("a", True), ("b", False)]):
        (tmp_path / name).mkdir()
        if has_weights:
            (tmp_path / name / "best.pt").touch()
            os.utime(tmp_path / name / "best.pt", (age, age))
    assert find_run(None, tmp_path) == Run(tmp_path / "a")
    (tmp_path / "c/metrics.csv").touch()  # it was trained on since, and did not become better
    assert find_run(None, tmp_path) == Run(tmp_path / "c")


def test_a_run_that_is_named_twice_is_taken_once(copy_run):
    run = copy_run()
    assert find_runs((run, run.parent / "." / run.name), run.parent) == [Run(run)]


def test_no_run_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"hack_train\.py"):
        find_run(None, tmp_path)
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        find_run(tmp_path, tmp_path)


def read_everything(run):
    """All that later steps read of a run, but for its checkpoints."""
    run.recipe(), run.held_out_names(), run.photo_options(), run.read_flip_indices(971), run.about_data()


READ = ["validation.txt", "permutation.json", "data.json", "recipe.yaml", "manifest.json"]


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"[" * 100_000,
        lambda content: b'{"a": [1, "x"]}',
        lambda content: b"\xff\xfe" + content,
        lambda content: content.replace(b"1", b"2"),
    ],
)
def test_a_file_of_a_run_that_was_changed_is_named(trained, tmp_path, name, damage):
    not_read = shutil.ignore_patterns("*.pt", "events", "pictures")
    run = Run(shutil.copytree(trained, tmp_path / trained.name, ignore=not_read))
    read_everything(run)
    path = run.folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=re.escape(name)):
        read_everything(run)


def test_flip_indices_that_are_no_mirroring_are_refused_where_no_manifest_tells(copy_run):
    """Rotated by one, each point would have its neighbour's partner."""
    run = Run(copy_run())
    (run.folder / "manifest.json").unlink()
    read_everything(run)
    partners = json.loads(run.flip_indices.read_text())
    run.flip_indices.write_text(json.dumps(np.roll(partners, 1).tolist()))
    with pytest.raises(UserError, match=r"permutation\.json"):
        run.read_flip_indices(971)


@pytest.mark.parametrize(("field", "value"), [("size", 96), ("resize", "crop"), ("model", "resnet18"), ("seed", 5)])
def test_a_recipe_that_was_changed_by_hand_is_refused(copy_run, field, value):
    run = Run(copy_run())
    path = run.folder / "recipe.yaml"
    text = re.sub(rf"^{field}: .*$", f"{field}: {value}", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    with pytest.raises(UserError, match=f"{field} is .*change it back"):
        run.recipe()


def test_what_a_resume_may_change_is_not_bound(copy_run, tmp_path):
    run = Run(copy_run())
    for flags in (["-e", "2"], ["-e", "3"]):
        status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder, *flags)
        assert status == 0, err
        assert run.recipe().optimiser.epochs == int(flags[1])


@pytest.mark.parametrize("content", [{"epoch": 3}, {"epoch": 0, "averaged": 2}])
def test_weights_without_the_state_of_their_training_are_not_trained_anew(copy_run, tmp_path, content):
    """A copy without last.pt began again, and its first epoch replaced the best weights."""
    run = Run(copy_run())
    run.last.unlink()
    run.check_resumable()  # it was stopped while its first epoch was saved
    save_checkpoint(run.best, load_checkpoint(run.best) | content)
    before = run.best.read_bytes()
    status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder)
    assert (status, err.count("\n")) == (2, 1)
    assert ("is an average" if "averaged" in content else "has weights but no last.pt") in err
    assert run.best.read_bytes() == before


def test_a_run_knows_its_contest_by_the_labels_of_photos_that_it_held_out(trained):
    run = Run(trained)
    pack = open_train_photos(replace(run.recipe(), photos=run.photo_options()))
    assert set(run.about_data().labels) <= set(run.held_out_names())
    assert run.about_data().labels == pack.checksums(run.held_out_names())


def test_a_cut_split_cannot_be_resumed(copy_run, tmp_path):
    """The photos that were cut off would be trained on."""
    run = Run(copy_run())
    run.split.write_text("".join(run.split.read_text().splitlines(keepends=True)[:-3]))
    status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder, "-e", "2")
    assert (status, err.count("\n")) == (2, 1)
    assert "validation.txt was changed" in err


def test_a_run_of_an_earlier_version_has_no_manifest_and_one_environment(copy_run, tmp_path):
    run = Run(copy_run())
    (run.folder / "manifest.json").unlink()
    path = run.folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text())[0]))
    status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder, "-e", "2")
    assert status == 0, err
    first, second = json.loads(path.read_text())
    assert first["packages"] == second["packages"]


def test_each_sitting_notes_its_environment_and_what_it_printed_where_the_run_is_now(copy_run, tmp_path):
    """Whatever its recipe says about the folder of runs, which may be anywhere now."""
    run = Run(shutil.move(copy_run(), tmp_path / "elsewhere"))
    recipe = run.folder / "recipe.yaml"
    recipe.write_text(re.sub(r"^runs: .*$", "runs: /proc/nowhere", recipe.read_text(), flags=re.MULTILINE))
    before = (run.folder / "console.txt").read_text()
    flags = ["--runs", "/proc/nowhere", "-e", "2"]
    status, out, err = call("hack_train.py", tmp_path, "--resume", run.folder, *flags)
    assert status == 0, err
    assert (run.folder / "console.txt").read_text() == before + out
    sittings = json.loads((run.folder / "environment.json").read_text())
    assert len(sittings) == 2
    assert sittings[1]["command"][-2:] == ["-e", "2"]
    assert sittings[1]["packages"].keys() >= {"torch", "numpy", "pytest"}
    assert sittings[1].keys() >= {"commit", "cuda", "cudnn", "device", "python", "time"}


def test_a_run_that_cannot_be_written_is_named(copy_run, tmp_path, monkeypatch):
    run = copy_run()
    monkeypatch.setattr("pipeline.files.may_write", lambda folder: folder != run)
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert (status, err.count("\n")) == (2, 1)
    assert f"{run} may not be written" in err
    assert "--runs" not in err


def test_folds_whose_parts_were_changed_are_refused(tmp_path):
    (tmp_path / "folds.json").write_text('{"folds": 2}')
    assert len(fold_runs(tmp_path)) == 2  # of an earlier version
    (tmp_path / "fold-0.txt").write_text("a.jpg\n")
    (tmp_path / "folds.json").write_text('{"folds": 2, "digests": {"fold-0.txt": "0", "fold-1.txt": "0"}}')
    with pytest.raises(UserError, match=r"fold-0\.txt was changed"):
        fold_runs(tmp_path)
    for content in ("[]", '{"folds": "many"}', '{"folds": 1000000}', "{"):
        (tmp_path / "folds.json").write_text(content)
        with pytest.raises(UserError, match=r"folds\.json is damaged"):
            fold_runs(tmp_path)


def test_folds_of_which_some_are_left_out_are_refused(tmp_path):
    """Two of three would else be merged as if they were all."""
    for changed, said in (
        (sealed({"folds": 3, "digests": {}}).replace('"folds": 3', '"folds": 2'), r"folds\.json was changed"),
        ('{"folds": 2, "digests": {"fold-0.txt": "", "fold-1.txt": "", "fold-2.txt": ""}}', "it is of 3 folds"),
    ):
        (tmp_path / "folds.json").write_text(changed)
        with pytest.raises(UserError, match=said):
            fold_runs(tmp_path)


def test_what_a_run_is_ranked_by_lies_with_its_weights(copy_run):
    """metrics.csv, which changes at every epoch, is for people; what is changed in it changes no prediction."""
    run = Run(copy_run())
    mse = run.best_mse
    assert mse == pytest.approx(pd.read_csv(run.metrics).validation_mse.min())
    run.metrics.write_text("epoch,validation_mse\n0,0.1\n")
    assert run.best_mse == mse
    for content in ({"mse": float("nan")}, {"mse": True}, {"mse": "1"}, {}):
        save_checkpoint(run.best, content)
        with pytest.raises(UserError, match=r"best\.pt"):
            run.best_mse  # noqa: B018


def test_a_table_of_epochs_takes_rows_of_earlier_versions(tmp_path):
    run = Run(tmp_path)
    run.write_metrics([{"epoch": 0, "old": 1}, {"epoch": 1, "new": 2}])
    assert run.metrics.read_text() == "epoch,old,new\n0,1,\n1,,2\n"


def test_regions_that_were_given_names_in_a_runs_folder_keep_them_when_it_is_resumed(copy_run, tmp_path):
    run = copy_run()
    own = json.dumps({"mine": [0, 1, 2]})
    (run / "regions.json").write_text(own)
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert status == 0, err
    assert (run / "regions.json").read_text() == own


def test_a_report_that_cannot_be_made_ends_no_training(copy_run, tmp_path):
    """Stages and folds go on; the file is named."""
    run = copy_run()
    (run / "regions.json").write_text("{,}")
    status, out, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2", pictures=quick_report)
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("report ")]
    assert "left out" in line
    assert "regions.json" in line
