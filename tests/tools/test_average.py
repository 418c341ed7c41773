"""The average of a run's best epochs is the mean of their weights, with statistics of its own, and a run."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.data.dataset import load_training_data
from pipeline.errors import UserError
from pipeline.networks import load_run_network
from pipeline.runs import Run, folder_of
from pipeline.runtime import Runtime
from pipeline.stages import write_finished
from tests.conftest import made_once
from tests.scripts import call, train
from tools import average, compare
from tools.average import average_runs, folder_of_average, plain_images

CPU = Runtime(torch.device("cpu"), "fp32")


@pytest.fixture(scope="session")
def kept_run(contest, tmp_path_factory):
    flags = [
        "-e",
        "3",
        "--head",
        "linear",
        "--deepest-stride",
        "64",
        "--keep-best",
        "3",
        "--ema-decay",
        "0",
        "--precision",
        "fp32",
        "-lr",
        "0.01",
    ]
    folder = made_once("kept", lambda folder: train(folder, contest, *flags), tmp_path_factory)
    return Run(next((folder / "runs").iterdir()))


@pytest.fixture
def copy(kept_run, tmp_path):
    return Run(shutil.copytree(kept_run.folder, tmp_path / "runs" / kept_run.folder.name))


def test_runs_whose_held_out_photos_are_one_group_are_alike(kept_run, monkeypatch):
    """The interval of what the mean shape scores has no ends then, and no number is equal to what is none."""
    about = kept_run.about_data()

    def about_data(self):
        ends = {"low": float("nan"), "high": float("nan")}  # read from a file each time, so never the same object
        return dataclasses.replace(about, mean_shape=dataclasses.replace(about.mean_shape, **ends))

    monkeypatch.setattr(Run, "about_data", about_data)
    average.check_alike([kept_run, kept_run])
    contents = iter(["one", "other"])
    monkeypatch.setattr(Run, "about_data", lambda run: dataclasses.replace(about, fingerprint=next(contents)))
    with pytest.raises(UserError, match="are of other data"):
        average.check_alike([kept_run, kept_run])


def test_the_average_is_the_mean_of_the_weights_and_is_predicted_with(copy, tmp_path, capsys):
    run = average_runs([copy], tmp_path / "runs" / "mean", CPU)
    found = load_run_network(run, "best")
    states = [load_checkpoint(path)["network"] for path in copy.best_epochs().values()]
    assert len(states) == 3
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, torch.stack([state[name] for state in states]).mean(0))
    assert "average of 3" in capsys.readouterr().out
    assert run.best_mse > 0
    with pytest.raises(UserError, match="is an average"):
        run.check_resumable()
    assert Run(run.folder) in compare.all_runs(compare.Options(runs=run.folder.parent))
    assert compare.row_of(run, None, below=tmp_path, same=()).mse == pytest.approx(run.best_mse)
    status, out, err = call("predict.py", tmp_path, "--run", run.folder)
    assert status == 0, err
    assert (run.folder / "submission.csv").exists(), out


def test_statistics_of_norms_are_those_of_the_averaged_network_on_training_photos(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(average, "BATCH", 16)
    run = average_runs([copy], tmp_path / "mean", CPU)
    network = load_run_network(run, "best")
    data = load_training_data(dataclasses.replace(run.recipe(), photos=run.photo_options()))
    convolution, norm = network.backbone.features[0][0], network.backbone.features[0][1]
    with torch.no_grad():
        means = [
            convolution((images.float() - network.colour_mean) / network.colour_std).mean((0, 2, 3))
            for images in plain_images(data.pack, data.train, CPU.device, seed=run.recipe().run.seed)
        ]
    assert len(means) == len(data.train) // 16
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-3, atol=1e-4)


def test_statistics_of_norms_that_were_frozen_stay(copy, tmp_path):
    frozen, trained = "backbone.features.0.1", "backbone.features.1.block.0.1"
    for path in copy.best_epochs().values():
        content = load_checkpoint(path)
        for name in ("running_mean", "running_var"):
            content["network"][f"{frozen}.{name}"].fill_(3.0)
        save_checkpoint(path, content)
    found = load_run_network(average_runs([copy], tmp_path / "mean", CPU), "best").state_dict()
    assert (found[f"{frozen}.running_mean"] == 3).all()
    assert (found[f"{frozen}.running_var"] == 3).all()
    assert not any(
        torch.equal(found[f"{trained}.running_mean"], load_checkpoint(path)["network"][f"{trained}.running_mean"])
        for path in copy.best_epochs().values()
    )


def test_an_average_of_a_stage_or_a_fold_is_a_run_beside_the_folder_of_all(tmp_path):
    (tmp_path / "x_stages").mkdir()
    write_finished(tmp_path / "x_stages", 3)
    (tmp_path / "y_folds-5").mkdir()
    (tmp_path / "y_folds-5/folds.json").touch()
    for name, whole in (("stage-2", tmp_path / "x_stages"), ("fold-0", tmp_path / "y_folds-5")):
        run = Run(whole / name)
        assert folder_of(run) == whole
        assert folder_of_average(run) == tmp_path / f"{whole.name}-{name}-average"
        inside = Run(whole / f"{name}-average")
        assert folder_of(inside) == inside.folder
    assert folder_of_average(Run(tmp_path / "run")) == tmp_path / "run-average"
    copied = Run(tmp_path / "fold-0")  # out of its folder
    assert folder_of(copied) == copied.folder


def test_the_best_are_averaged_alone(copy, tmp_path):
    run = average_runs([copy], tmp_path / "mean", CPU, best=2)
    contents = sorted((load_checkpoint(path) for path in copy.best_epochs().values()), key=lambda each: each["mse"])
    weights = [content["network"]["backbone.features.0.0.weight"] for content in contents[:2]]
    found = load_run_network(run, "best").backbone.features[0][0].weight
    torch.testing.assert_close(found, torch.stack(weights).mean(0))


def test_what_cannot_be_averaged_is_refused(copy, tmp_path, monkeypatch):
    other = Run(shutil.copytree(copy.folder, tmp_path / "other"))
    monkeypatch.setattr(Run, "held_out_names", lambda run: [run.folder.name])
    with pytest.raises(UserError, match="held out other photos"):
        average_runs([copy, other], tmp_path / "mean", CPU)
    monkeypatch.undo()
    with pytest.raises(UserError, match="moved"):
        average_runs([copy], tmp_path / "mean", CPU, data=tmp_path / "moved", cache=tmp_path / "cache")
    first, *more = copy.best_epochs().values()
    content = load_checkpoint(first)
    content["network"]["mean_shape"] += 1
    save_checkpoint(first, content)
    with pytest.raises(UserError, match=rf"{first.name}.*mean_shape is another"):
        average_runs([copy], tmp_path / "mean", CPU)
    for path in more:
        path.unlink()
    with pytest.raises(UserError, match=r"1 epochs were kept.*--keep-best"):
        average_runs([copy], tmp_path / "mean", CPU)
    assert not (tmp_path / "mean").exists()
    content["mse"] = float("nan")
    save_checkpoint(first, content)
    with pytest.raises(UserError, match=f"{first.name} is damaged"):
        average_runs([copy], tmp_path / "mean", CPU)


def test_images_of_statistics_come_in_full_batches():
    """A short last one would count as much as a full one."""
    squares = np.zeros((150, 32, 32, 3), np.uint8)
    pack = SimpleNamespace(squares=squares, roi=SimpleNamespace(size=32, then=lambda view: view))
    assert [len(images) for images in plain_images(pack, np.arange(150), CPU.device, seed=0)] == [64, 64]
    assert [len(images) for images in plain_images(pack, np.arange(50), CPU.device, seed=0)] == [50]
