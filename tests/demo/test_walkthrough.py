"""The walkthrough's page is what the figures of its walk give, its commands are those of the scripts, and a walk goes
on where it was stopped."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from demo.walkthrough import walk as walking
from demo.walkthrough.page import PAGE, render
from demo.walkthrough.pictures import CHARTS, DRAWN, expected_and_said
from demo.walkthrough.steps import STEPS, SUBMISSIONS, Step
from demo.walkthrough.walk import Walked, figures_of, quoted, walk
from pipeline.cli import parse_flags
from pipeline.command import parse_command
from pipeline.errors import UserError
from pipeline.inference.options import PredictOptions
from pipeline.recipe import to_yaml
from pipeline.recipe_file import read_recipe
from tools.ledger import Entry, ScoreOptions, print_ledger

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "benchmarks/results/walkthrough_cpu.json").read_text())
COMMANDS = [command for step in KEPT["result"].values() for command in step["commands"]]
PICTURES = ROOT / "readme_img/walkthrough"
MAX_BYTES, MAX_TOGETHER = 100_000, 1_000_000


def test_the_page_is_what_the_figures_give():
    assert (ROOT / PAGE).read_text() == render(KEPT["result"], KEPT["made with"]["device"])


def test_the_figures_are_of_these_steps():
    assert list(KEPT["result"]) == [step.name for step in STEPS]
    figures = {f"{name}_{key}": value for name, step in KEPT["result"].items() for key, value in step.items()}
    for step in STEPS:
        assert KEPT["result"][step.name]["commands"] == [command.format(**figures) for command in step.commands]


def test_the_ledgers_chart_has_what_the_ledger_prints_of_each_submission(capsys):
    for number, name in enumerate(SUBMISSIONS):
        low, high = (None, None) if number else (15.5, 24.0)
        about = {"made": 0.0, "runs": 1, "views": 8, "decimals": 2, "leaderboard": 27.25, "is_same": True}
        print_ledger([Entry(path=Path(f"{name}.csv"), expected=20.0, low=low, high=high, is_bound=number > 0, **about)])
    said = {f"score_{name}": ["MSE 27.250 px² (20.500 … 36.000)"] for name in SUBMISSIONS}
    lines = {"ledger": capsys.readouterr().out.splitlines(), **said}
    rows = expected_and_said({step: SimpleNamespace(said=found) for step, found in lines.items()})
    assert rows[:2] == [("low, expected", 20, 15.5, 24), ("low, scored", 27.25, 20.5, 36)]
    assert rows[2::2] == [(f"{name}, at most", 20, 20, 20) for name in list(SUBMISSIONS)[1:]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_the_scripts_take(command, tmp_path, monkeypatch):
    """Paths of runs are replaced by that of a run, of which such a command needs the recipe."""
    (tmp_path / "recipe.yaml").write_text(to_yaml(read_recipe(ROOT / "configs/walkthrough.yaml")))
    monkeypatch.chdir(ROOT)
    python, *words = shlex.split(command.replace("\\\n", ""))
    assert python == "python"
    words = [str(tmp_path) if "*" in word else word for word in words]
    monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
    arguments = sys.argv[1:]
    if words[0] == "hack_train.py":
        assert parse_command(arguments)
    elif words[0] == "predict.py":
        assert parse_flags(PredictOptions, None).run
    elif words[1] == "tools.ledger" and arguments[0] == "score":
        assert parse_flags(ScoreOptions, None).value > 0
    else:
        module = "demo.__main__" if words[1] == "demo" else words[1]
        assert parse_flags(importlib.import_module(module).Options, None)


def test_all_pictures_and_links_are_there_and_small():
    page = (ROOT / PAGE).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", page) if not link.startswith("http")]
    for link in links:
        assert (ROOT / PAGE.parent / link).exists(), link
    shown = {Path(link).name for link in links if "readme_img" in link}
    assert (
        shown
        == {f"{name}.jpg" for name in [*DRAWN, *CHARTS, "ledger", "errors"]}
        == {path.name for path in PICTURES.iterdir()}
    )
    sizes = [path.stat().st_size for path in PICTURES.iterdir()]
    assert max(sizes) < MAX_BYTES
    assert sum(sizes) < MAX_TOGETHER


def says(name, words, **more) -> Step:
    return Step(name, (f"echo {words}; echo x >> {name}.log",), **more)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(walking, "ROOT", tmp_path)
    return tmp_path


def times_run(root, name):
    return len((root / f"{name}.log").read_text().split())


def test_a_walk_goes_on_where_it_was_stopped_and_walks_what_follows_a_change_anew(root):
    first, last = says("first", "MSE 3", figures={"mse": r"MSE (\d)"}), says("last", "{first_mse}")
    broken = Step("middle", ("echo half; echo why >&2; exit 3",))
    with pytest.raises(UserError, match=r"(?s)step middle: .*half\nwhy\n"):
        walk((first, broken, last), root)
    assert times_run(root, "first") == 1
    middle = says("middle", "whole")
    done = walk((first, middle, last), root)
    assert [done[name].said for name in ("middle", "last")] == [["whole"], ["3"]]
    assert walk((first, middle, last), root) == done
    assert [times_run(root, name) for name in ("first", "middle", "last")] == [1, 1, 1]
    walk((first, says("middle", "changed"), last), root)
    assert [times_run(root, name) for name in ("first", "middle", "last")] == [1, 2, 2]


def test_what_an_earlier_attempt_has_left_is_removed_and_nothing_else(root):
    for name in ("runs/1_x_9px", "runs/1_y_9px"):
        (root / name).mkdir(parents=True)
    walk((says("x", "x", makes=("runs/*_x_*px",)),), root)
    assert [path.name for path in (root / "runs").iterdir()] == ["1_y_9px"]


def test_a_figure_is_the_last_that_was_said_and_one_that_was_not_is_named():
    step = Step("s", (), quotes="^b", figures={"mse": r"MSE ([\d.]+)"})
    said = ["a MSE 2.5", "b MSE 1.5", "b" + 200 * "c"]
    assert figures_of(step, Walked([], 0, said)) == {"mse": "1.5"}
    short, long = quoted(step, Walked([], 0, said))
    assert short == said[1]
    assert long.endswith(" …")
    assert len(long) <= walking.MAX_WIDE
    with pytest.raises(UserError, match="step s says no mse"):
        figures_of(step, Walked([], 0, ["nothing"]))
