"""Callbacks of a user's own: told of the training as the others are, kept in the checkpoint, refused in one line."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoint import load_checkpoint
from pipeline.errors import UserError
from pipeline.runs import Run
from pipeline.training import callbacks, trainer
from pipeline.training.callbacks import Checkpoint, default_callbacks
from pipeline.training.user_callbacks import load_callbacks
from tests.pipeline.training.test_trainer import recipe_of, run_to_end, start

HEAD = "from pipeline.training.trainer import Callback\n"
COUNT = (
    HEAD
    + """
class Count(Callback):
    def __init__(self, run):
        self.path, self.steps = run.folder / "steps.txt", 0

    def after_step(self, trainer):
        self.steps += 1

    def after_epoch(self, trainer, result):
        self.path.write_text(f"{result.row['epoch']} {self.steps}")

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state.get("steps", 0)
"""
)


def write(folder, text):
    path = folder / "own.py"
    path.write_text(text)
    return f"{path}:Count"


def test_a_callback_of_a_users_own_is_called_and_its_state_lies_in_the_checkpoint(contest, tmp_path):
    name = write(tmp_path, COUNT)
    recipe = recipe_of(contest, tmp_path, "-e", "1", "--callbacks", name)
    assert recipe.running.callbacks == (name,)
    training = start(recipe)
    training.callbacks = default_callbacks(training.run, load_callbacks(recipe.running.callbacks))
    run_to_end(training)
    assert (training.run.folder / "steps.txt").read_text() == "0 4"
    assert load_checkpoint(training.run.last)["callbacks"]["Count"] == {"steps": 4}


def test_a_state_that_a_checkpoint_could_not_give_back_is_refused_and_a_new_callback_is_given_none(contest, tmp_path):
    name = write(tmp_path, COUNT.replace('state.get("steps", 0)', 'state["steps"]'))
    recipe = recipe_of(contest, tmp_path, "-e", "1", "--callbacks", name)
    training = start(recipe)
    state = training.state_dict()
    training.callbacks = default_callbacks(training.run, load_callbacks(recipe.running.callbacks))
    training.load_state_dict(state)  # of a run that had no such callback
    (own,) = (callback for callback in training.callbacks if type(callback).__name__ == "Count")
    own.steps = [{"best": np.float64(3)}]
    with pytest.raises(UserError, match="the state_dict of Count holds a float64"):
        training.state_dict()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: No module named"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("", "has no such class"),
        ("Count = 3", "has a Count that is no Callback"),
        ("class Count: ...", "has a Count that is no Callback"),
    ],
)
def test_what_cannot_be_imported_or_is_no_callback_is_refused_in_one_line(tmp_path, text, said):
    name = write(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        load_callbacks([name])
    assert str(caught.value).startswith(f"--callbacks {name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["own.py", "Count", "own:Count", "own.py:", "own.py:not a name", "nowhere.py:Count"])
def test_what_names_no_class_of_a_file_is_refused(name):
    with pytest.raises(UserError, match=f"^--callbacks {re.escape(name)}: "):
        load_callbacks([name])


def test_names_that_are_taken_and_classes_that_do_not_take_the_run_are_refused(tmp_path):
    name = write(tmp_path, COUNT)
    with pytest.raises(UserError, match="two are called Count"):
        load_callbacks([name, name])
    write(tmp_path, HEAD + "class Count(Callback): ...\nclass Checkpoint(Callback): ...")
    with pytest.raises(UserError, match="there is a Checkpoint already"):
        load_callbacks([name.replace("Count", "Checkpoint")])
    with pytest.raises(UserError, match=r"def __init__\(self, run\)"):
        load_callbacks([name])


def test_a_checkpoint_within_an_epoch_holds_what_a_callback_has_done_in_all_its_steps(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "FLUSH_EVERY", 2)
    recipe = recipe_of(contest, tmp_path, "-e", "1", "--callbacks", write(tmp_path, COUNT))
    training, held = start(recipe), []
    training.callbacks = default_callbacks(training.run, load_callbacks(recipe.running.callbacks))
    monkeypatch.setattr(Checkpoint, "after_flush", lambda self, trainer, measured: self._save(trainer))
    monkeypatch.setattr(
        callbacks,
        "save_checkpoint",
        lambda path, state: (
            held.append((state["progress"]["step"], state["callbacks"]["Count"]["steps"]))
            if path == training.run.last
            else None
        ),
    )
    run_to_end(training)
    assert [step for step, _ in held] == [2, 4, 4, 4]  # the last two at the end of the epoch
    assert all(step == counted for step, counted in held)


def test_the_example_of_the_documentation_is_a_callback(tmp_path):
    text = (Path(__file__).parents[3] / "docs/callbacks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "notify.py").write_text(example)
    found = load_callbacks([f"{tmp_path / 'notify.py'}:Notify"])
    assert any(isinstance(callback, found[0]) for callback in default_callbacks(Run(tmp_path), found))


def test_a_stop_saves_whatever_a_callback_of_a_users_own_raises(contest, tmp_path):
    name = write(tmp_path, f"{COUNT}\n    def on_stop(self, trainer):\n        raise OSError('no network')\n")
    recipe = recipe_of(contest, tmp_path, "-e", "1", "--callbacks", name)
    training = start(recipe)
    training.callbacks = default_callbacks(training.run, load_callbacks(recipe.running.callbacks))
    for callback in training.callbacks:
        callback.begin(training)
    with pytest.raises(OSError, match="no network"):
        training._save_and_stop()
    assert training.run.last.exists()
