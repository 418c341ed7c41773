"""The two scripts as a user runs them: from an empty folder to a verified submission, through kills and bad input."""

import errno
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hack_train
import predict
from pipeline.checkpoint import load_checkpoint
from pipeline.metrics import score
from pipeline.runs import Run
from tests.scripts import SMALL, call, call_process, quick_pictures, start, train
from tools.score import read_both


def test_from_an_empty_folder_to_a_verified_submission(contest, trained, copy_run, tmp_path):
    """By two processes, of which the first has trained in an empty folder."""
    run = copy_run()
    out = (trained.parents[1] / "out.txt").read_text()
    assert run.name in out
    made_with = {"recipe.yaml", "changes.yaml", "data.json", "validation.txt", "permutation.json", "manifest.json"}
    came_of_it = {
        "metrics.csv",
        "best.pt",
        "last.pt",
        "events",
        "pictures",
        "environment.json",
        "console.txt",
        ".lock",
        "report.html",
        "held_out.npz",
        "regions.json",
    }
    assert {path.name for path in run.iterdir()} == made_with | came_of_it
    assert (run / "console.txt").read_text() == out
    assert len((run / "validation.txt").read_text().split()) == 16
    assert len(pd.read_csv(run / "metrics.csv")) == 1
    drawn = {path.name: path.stat().st_size for path in (run / "pictures").iterdir()}
    assert drawn.keys() == {"curves.png", "point_errors.png", "worst_train.png", "worst_validation.png"}
    assert min(drawn.values()) > 5_000
    assert re.search(r"parameters, .*FLOPs a photo; a step takes about .*B, of 16 photos", out), "before it begins"
    for line in (
        "disk         photos ",
        "speed        ",
        "memory       .* at most; on the disk ",
        "time         training ",
    ):
        assert re.search(rf"^{line}", out, re.MULTILINE), line
    images = {tag for path in (run / "events").glob("**/events*") for tag in tags_of(path)["images"]}
    assert images >= {"point_errors", "worst"}

    # Nothing else: the newest run, its best weights, its data.
    status, out, err = call_process("predict.py", tmp_path)
    assert status == 0, err
    assert str(run / "submission.csv") in out
    table = pd.read_csv(run / "submission.csv")
    asked = pd.read_csv(contest / "test/test_points.csv", sep="\t")
    assert table.file_name.tolist() == asked.file_name.tolist()
    assert list(table.columns) == ["file_name", *(f"Point_M{k}_{axis}" for k in range(30) for axis in "XY")]
    floor = Run(run).about_data().mean_shape.mse  # which so short a training hardly leaves
    assert score(*read_both(run / "submission.csv", contest / "test_truth.csv")).mse < 2 * floor
    assert (run / "pictures/test.png").stat().st_size > 10_000


def test_the_submission_does_not_depend_on_the_batch_and_decimals_only_round(copy_run, tmp_path):
    run = copy_run()
    (tmp_path / "views.json").write_text('[[], [{"MirrorAugmenter": {"probability": 1}}]]')
    values = {}
    for name, flags in {"one": ["-b", "1"], "many": ["-b", "64"], "whole": ["--decimals", "0"]}.items():
        flags = [*flags, "--views", tmp_path / "views.json", "--output", tmp_path / f"{name}.csv"]
        status, _, err = call("predict.py", tmp_path, "--run", run, *flags)
        assert status == 0, err
        values[name] = pd.read_csv(tmp_path / f"{name}.csv", index_col=0)
    assert (values["one"] - values["many"]).abs().max(axis=None) <= 0.0101
    assert (values["whole"].dtypes == np.int64).all()
    assert (values["whole"] - values["many"]).abs().max(axis=None) <= 0.51


def test_the_functions_of_the_scripts_return_the_run_and_its_submission(copy_run, tmp_path, capsys):
    """As in a notebook: arguments may be paths, and nothing is read from the command line."""
    run, output = copy_run(), tmp_path / "elsewhere.csv"
    with quick_pictures():
        assert hack_train.train(["--resume", run]) == run
        assert predict.predict(["--run", run]) == run / "submission.csv"
        assert str(run / "submission.csv") in capsys.readouterr().out
        assert predict.predict(["--run", run, "--output", output]) == output
    assert output.read_bytes() == (run / "submission.csv").read_bytes()


KILLED_AT = [
    "cache/*.building",
    "runs/*/data.json",
    "runs/*/recipe.yaml",
    "runs/*/.last.pt.partial",
    "runs/*/metrics.csv",
]


def kill_at(pattern, folder, *flags):
    """Starts a training, and kills it as soon as it has written a file of this pattern."""
    begun = time.time_ns()
    process = start("hack_train.py", folder, *flags)
    while process.is_alive() and not any(_written_since(path, begun) for path in folder.glob(pattern)):
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it ended before it wrote {pattern}"


def tags_of(path):
    return EventAccumulator(str(path)).Reload().Tags()


def _written_since(path, begun):
    try:
        return path.stat().st_mtime_ns >= begun
    except FileNotFoundError:
        return False


def test_a_run_killed_at_several_moments_ends_as_one_that_was_not(contest, tmp_path):
    """SIGKILL while it packs, starts, steps, and writes; each time it is resumed, the last time to its end."""
    flags = ["-e", "2", "--checkpoint-minutes", "1e-6"]
    (tmp_path / "whole").mkdir()
    folder = tmp_path / "killed"
    folder.mkdir()
    whole, _ = train(tmp_path / "whole", contest, *flags)
    for pattern in KILLED_AT:
        resumable = [path.parent for path in (folder / "runs").glob("*/recipe.yaml")]
        first = ["-n", "x", "-d", contest, *SMALL, *flags, "--cache", folder / "cache"]
        kill_at(pattern, folder, *(["--resume", resumable[0]] if resumable else first))
    (killed,) = {path.parent for path in (folder / "runs").glob("*/recipe.yaml")}
    status, out, err = call("hack_train.py", folder, "--resume", killed)
    assert status == 0, err
    assert "resuming     from" in out
    for name in ("best.pt", "last.pt"):
        one, other = load_checkpoint(whole / name), load_checkpoint(killed / name)
        for key, tensor in one["network"].items():
            assert torch.equal(tensor, other["network"][key]), key
    columns = ["epoch", "step", "learning_rate", "train_loss", "validation_mse"]
    pd.testing.assert_frame_equal(
        pd.read_csv(whole / "metrics.csv")[columns], pd.read_csv(killed / "metrics.csv")[columns]
    )
    assert not list(killed.glob("*.partial"))


def test_a_run_is_trained_by_one_process_at_a_time(copy_run, tmp_path):
    run = copy_run()
    with Run(run).claimed():
        status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert status == 2
    assert "trained by another process" in err
    assert Run(run).recipe().optimiser.epochs == 1  # what is resumed there is left as it is


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_where_it_started(contest, trained, tmp_path):
    first = trained
    flags = ["-d", contest, *SMALL, "-e", "1", "--init", first, "-lr", "1e-12", "--ema-decay", "0"]
    status, _, err = call("hack_train.py", tmp_path, "-n", "y", *flags)
    assert status == 0, err
    (second,) = (tmp_path / "runs").iterdir()
    (second / "last.pt").unlink()
    status, _, err = call("hack_train.py", tmp_path, "--resume", second)
    assert status == 0, err
    one, other = (load_checkpoint(run / "best.pt")["network"] for run in (first, second))
    name = next(name for name, tensor in one.items() if tensor.ndim == 4)
    torch.testing.assert_close(other[name], one[name], atol=1e-3, rtol=0)


RESIZE = '[{"AlbumentationsAugmenter": {"transforms": [{"Resize": {"height": 9, "width": 9}}]}}]'


@pytest.mark.parametrize(
    ("script", "flags", "named"),
    [
        ("predict.py", ["--batch-size", "0"], "--batch-size"),
        ("predict.py", ["--decimals", "-1"], "--decimals"),
        ("predict.py", ["--power", "0"], "--power"),
        ("predict.py", ["--output", "nowhere/submission.csv"], "--output"),
        (
            "hack_train.py",
            ["--augment", '[{"AlbumentationsAugmenter": {"transforms": [{"Resize": {"height": 9, "width": 9}}]}}]'],
            "augment",
        ),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_done(script, flags, named, contest, tmp_path):
    if "Albumentations" in flags[1]:
        pytest.importorskip("albumentations")
    where = ["-d", contest, *SMALL] if script == "hack_train.py" else []
    status, _, err = call(script, tmp_path, *where, *flags)
    assert status == 2
    assert named in err
    assert err.count("\n") == 1


def spoil_row(root):
    table = root / "train/landmarks.csv"
    lines = table.read_text().split("\n")
    lines[5] = lines[5].rsplit("\t", 1)[0]
    table.write_text("\n".join(lines))


def spoil_every_list(root):
    table = root / "test/test_points.csv"
    table.write_text(table.read_text().replace("[", "("))


def spoil_both_tables(root):
    spoil_row(root)
    spoil_list(root)


def spoil_point(root):
    table = root / "train/landmarks.csv"
    header, *rows = table.read_text().strip().split("\n")
    cells = [row.split("\t") for row in rows]
    table.write_text("\n".join([header, *("\t".join([*row[:7], "", "", *row[9:]]) for row in cells)]))


def spoil_list(root):
    table = root / "test/test_points.csv"
    table.write_text(table.read_text().replace("[", "[999, ", 1))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: (root / "train/landmarks.csv").unlink(), "landmarks.csv is missing"),
        (lambda root: (root / "test/test_points.csv").unlink(), "test_points.csv is missing"),
        (lambda root: shutil.rmtree(root / "train/images"), "images is missing"),
        (lambda root: next((root / "train/images").iterdir()).unlink(), "cannot be read: No such file"),
        (lambda root: next((root / "test/images").iterdir()).write_bytes(b"x"), "not an image"),
        (spoil_row, "landmarks.csv line 6: 1941 numbers where the header has 1942"),
        (spoil_list, "test_points.csv line 2: index 999"),
        (spoil_every_list, "12 faults"),
        (spoil_both_tables, "2 faults"),
        (spoil_point, "1 points are missing in every photo that is trained on, number 3"),
        (lambda root: (root / "train/groups.csv").write_text("file_name\tgroup\n"), "have no group"),
    ],
)
def test_bad_data_are_refused_before_training_in_one_message(contest, tmp_path, spoil, named):
    root = Path(shutil.copytree(contest, tmp_path / "contest"))
    spoil(root)
    status, _, err = call("hack_train.py", tmp_path, "-n", "x", "-d", root, *SMALL)
    assert status == 2
    assert named in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--epochs", "0"], "--epochs 0"),
        (["--model", "resnet19"], "resnet19"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--init", "nowhere"], "nowhere"),
        (["--augment", '[{"AffineAugmenter": {"angle": 3}}]'], "angle"),
        (["--split", "nowhere.txt"], "nowhere.txt"),
        (["--flip-indices", "nowhere.json"], "nowhere.json"),
        (["--model", "inception_v3", "--deepest-stride", "64", "--size", "40"], "--size 40"),
        (["--resume", "nowhere"], "nowhere"),
        (["--runs", __file__], "is no folder"),
        (["--cache", "/proc/nowhere"], "/proc/nowhere"),
        pytest.param(["--gpu"], "no usable GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has one")),
    ],
)
def test_bad_flags_are_refused_with_their_name(contest, tmp_path, flags, named):
    status, _, err = call("hack_train.py", tmp_path, "-n", "x", "-d", contest, *SMALL, *flags)
    assert status == 2
    assert named in err
    assert "Traceback" not in err


def test_without_the_network_imagenet_weights_are_an_error_that_asks_for_a_file(contest, tmp_path, monkeypatch):
    """Neither dies later nor trains something else. Any proxy that is not there stands for a missing network."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    status, _, err = call("hack_train.py", tmp_path, "-n", "x", "-d", contest, "--model", "resnet18")
    assert status == 2
    assert "cannot be downloaded" in err
    assert "--weights none" in err
    assert not (tmp_path / "runs").exists()


def test_broken_photos_can_be_skipped_and_the_submission_has_every_row(contest, tmp_path):
    root = Path(shutil.copytree(contest, tmp_path / "contest"))
    for part in ("train", "test"):
        next((root / part / "images").iterdir()).write_bytes(b"broken")
    run, out = train(tmp_path, root, "-e", "1", "--skip-bad-photos")
    assert "left out 1 photos of train" in out
    status, _, err = call("predict.py", tmp_path)
    assert status == 2
    assert "not an image" in err
    status, out, err = call("predict.py", tmp_path, "--skip-bad-photos")
    assert status == 0, err
    assert "1 photos" in out
    assert len(pd.read_csv(run / "submission.csv").dropna()) == 12


def test_a_run_starts_from_an_earlier_one_with_its_head(contest, tmp_path):
    run, _ = train(tmp_path, contest, "-e", "1", "-lr", "1e-3")
    status, out, err = call(
        "hack_train.py", tmp_path, "-n", "y", "-d", contest, *SMALL, "-e", "1", "-lr", "1e-7", "--init", run
    )
    assert status == 0, err
    assert "start at random" not in out
    (again,) = (tmp_path / "runs").glob("*_y_*")
    one, other = (load_checkpoint(path / "best.pt")["network"] for path in (run, again))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(other[name], tensor, atol=1e-4, rtol=0)


def test_the_split_of_a_run_can_be_given_to_another(contest, trained, tmp_path):
    """Which without it, from another seed, would have one of its own."""
    flags = ["--seed", "3", "--split", trained / "validation.txt"]
    run, _ = train(tmp_path, contest, "-e", "1", *flags)
    assert (run / "validation.txt").read_text() == (trained / "validation.txt").read_text()


def test_a_full_disk_is_one_line_and_what_was_there_stays(copy_run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = copy_run()
    last = (run / "last.pt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert status == 2
    assert "disk is full" in err
    assert "Traceback" not in err
    assert (run / "last.pt").read_bytes() == last


@pytest.mark.parametrize(
    "flags",
    [
        ("--head", "flat", "--loss", "l1"),
        ("--head", "low_rank", "--loss", "gaussian_nll"),
        ("--head", "simcc", "--loss", "simcc", "--focal", "2"),
        ("--head", "linear", "--deepest-stride", "64", "--loss", "laplace_nll", "--schedule", "triangular"),
        (
            "--head",
            "integral",
            "--map-stride",
            "4",
            "--loss",
            "rle",
            "--schedule",
            "exponential",
            "--final-rate",
            "1e-5",
        ),
        ("--model", "timm/test_resnet", "--loss", "soft_wing", "--optimiser", "lion"),
    ],
)
def test_every_head_and_kind_of_loss_trains_and_predicts(contest, tmp_path, flags):
    if "timm" in flags[1]:
        pytest.importorskip("timm")
    train(tmp_path, contest, "-e", "1", "--steps-per-epoch", "2", *flags, pictures=quick_pictures)
    status, out, err = call("predict.py", tmp_path, "--weights", "equal")
    assert status == 0, err
    assert "read back and verified" in out
