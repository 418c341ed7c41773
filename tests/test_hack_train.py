"""What the training script says and returns when a training ends otherwise than by its last epoch."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import hack_train
from pipeline.console import recorded_console
from pipeline.metrics import Scores
from pipeline.recipe import Recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime
from pipeline.stopping import Stopped
from pipeline.training import command as training_command
from pipeline.training import one_run
from pipeline.training.state import TrainerState


def test_a_run_without_an_epoch_ends_with_a_line(tmp_path, capsys):
    """As when --minutes were used up before the first one: it was a traceback."""
    runtime = Runtime(torch.device("cpu"), "fp32")
    trainer = SimpleNamespace(state=TrainerState(), runtime=runtime)
    one_run.print_result(Run(tmp_path), trainer, floor=Scores(1, 1, 1, 1))
    assert "raise --minutes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trained_by", "flags"),
    [
        ("train_run", []),
        ("train_folds", ["--folds", "2"]),
        ("train_stages", ["--stages", '[{"epochs": 1}]']),
        ("find_learning_rate", ["--find-lr"]),
    ],
)
def test_the_function_returns_the_folder_of_what_was_trained(monkeypatch, tmp_path, trained_by, flags):
    monkeypatch.setattr(training_command, trained_by, lambda *_, job=None: tmp_path)
    assert hack_train.train(["--data", tmp_path, *flags]) == tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_exits_with_the_signals_status(monkeypatch, capsys, number):
    def stop(*_, job):
        raise Stopped(number)

    monkeypatch.setattr(training_command, "train_run", stop)
    monkeypatch.setattr("sys.argv", ["hack_train.py"])
    with pytest.raises(SystemExit) as caught:
        hack_train.main()
    assert caught.value.code == 128 + number
    assert capsys.readouterr().err == f"stopped by {signal.Signals(number).name}\n"


def test_sigterm_while_photos_are_packed_ends_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(training_command, "train_run", lambda *_, job: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("sys.argv", ["hack_train.py"])
    with pytest.raises(SystemExit) as caught:
        hack_train.main()
    assert caught.value.code == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_a_stopped_run_and_stopped_folds_say_what_resumes_them(contest, tmp_path, monkeypatch, capsys):
    """Of folds the whole loop ends, and their folder is named."""
    from tests.pipeline.training.test_trainer import recipe_of

    def stop(training, *_):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("pipeline.training.one_run.Trainer.train", stop)
    recipe: Recipe = recipe_of(contest, tmp_path / "a b", "-e", "1")
    folders: set[Path] = set()
    works = (
        lambda console: one_run.train_run(recipe, console, None),
        lambda console: training_command.train_folds(recipe, console, 2, None),
    )
    for work in works:
        with pytest.raises(Stopped), recorded_console() as console:
            work(console)
        *_, last = lines = capsys.readouterr().out.splitlines()
        (folder,) = set((tmp_path / "a b/runs").iterdir()) - folders
        folders.add(folder)
        assert last == f"stopped      to resume: python hack_train.py --resume '{folder}'"
        assert "fold 1" not in lines
