"""`make bench` and `make bench-gpu`: every command of their lists parses, one that fails stops no other, and a machine
without a GPU is told so in one line."""

import importlib
import json
import re
import shlex
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

if not all(map(find_spec, ("ttach", "lightning", "kornia"))):
    pytest.skip("needs ttach, lightning and kornia", allow_module_level=True)

from benchmarks import ablation_rows, ablation_training, ablations, results, suite
from benchmarks.rounds import Ratio, in_turn, over
from pipeline.command import parse_command
from pipeline.runs import Run
from pipeline.stages import check_begun_anew
from tests.scripts import quick_pictures

MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text()
FOUND = Ratio("rate of this", "that", 2.0, 1.5, 2.5)


@pytest.mark.parametrize("command", suite.ON_CPU + suite.ON_GPU)
def test_every_command_parses(command, contest):
    name, *flags = shlex.split(command.replace(suite.DATA, str(contest)))
    module = importlib.import_module(f"benchmarks.{name}")
    module.parse(flags)
    assert 'if __name__ == "__main__":' in Path(str(module.__file__)).read_text(), "it would do nothing"


@pytest.mark.parametrize("study", ablation_rows.STUDIES.values(), ids=ablation_rows.STUDIES)
def test_every_row_of_an_ablation_can_be_begun(study, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])  # one names a file of configs/
    for flags in study.rows.values():
        check_begun_anew(parse_command([*study.base, *flags]).recipe)


def test_what_an_ablation_has_trained_is_kept_though_another_row_is_slower_or_fails(tmp_path, monkeypatch, capsys):
    slow = threading.Event()

    def train_one(options, row, split):
        if row == "muon":
            raise OSError("no memory")
        if row == "lion":
            slow.wait()
        return {"mse": 1.0, "nme": 2.0}

    def write(study, row, split, found):
        written.append(row)
        slow.set()

    written: list[str] = []
    monkeypatch.setattr(ablations, "train_one", train_one)
    monkeypatch.setattr(ablations, "write", write)
    monkeypatch.setattr(ablations, "RESULTS", tmp_path)
    monkeypatch.setattr(ablations, "SPLITS", (0,))
    options = SimpleNamespace(rows=["lion", "muon", "sgd"], jobs=3)
    assert ablations.train_rows(ablation_rows.STUDIES["faces"], options) == 1
    assert written == ["sgd", "lion"]
    assert re.search(r"muon +split 0 failed: no memory", capsys.readouterr().out)


def test_a_row_whose_locator_fails_fails_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def run_one(options, row, split, *flags):
        if flags:
            raise OSError("no memory")
        return json.dumps({"mse": 1.0, "nme": 2.0})

    monkeypatch.setattr(ablations, "run_one", run_one)
    monkeypatch.setattr(ablations, "RESULTS", tmp_path)
    monkeypatch.setattr(ablations, "SPLITS", (0,))
    study = ablation_rows.STUDIES["faces"]
    assert ablations.train_rows(study, SimpleNamespace(rows=["a locator", "default"], jobs=1)) == 1
    assert re.search(r"a locator +split 0 failed: no memory", capsys.readouterr().out)
    assert ablations.read(study, "default")["splits"]


@quick_pictures()
def test_rows_that_locate_share_the_locator_of_their_split(contest, tmp_path):
    length = ("--size", "48", "--batch-size", "4", "--steps-per-epoch", "2", "--epochs", "2", "--locate", "0.5")
    base = ("--model", "mobilenet_v3_small", "--weights", "none", "--deepest-stride", "16", *length)
    rows = {"default": (), "another loss": ("--loss", "l1"), "whole photos": ("--locate", "0")}
    study = ablation_rows.Study(base, rows, "some")
    assert [study.locator_row(row) for row in rows] == ["default", "default", None]
    where = {"data": contest, "cache": tmp_path}
    ablation_training.train_locator(study, "default", 1, **where)
    locator = Run(ablation_training.folder_of_locator(study, "default", 1, cache=tmp_path))
    weights = locator.best.read_bytes()
    ablation_training.train_locator(study, "default", 1, **where)  # again, after a stop
    assert locator.best.read_bytes() == weights
    assert ablation_training.measure(study, "default", 1, **where)["photos"] == 8
    assert ablation_training.trainer_of(study, "default", 1, **where).data.boxes is not None
    whole = ablation_training.trainer_of(study, "whole photos", 1, **where)
    assert whole.data.boxes is None
    assert set(locator.held_out_names()) == set(whole.data.pack.names[whole.data.validation])


def test_where_the_default_looks_at_whole_photos_a_row_that_locates_has_its_own_locator():
    study = ablation_rows.Study(("--epochs", "2"), {"default": (), "a locator": ("--locate", "0.5")}, "some")
    assert [study.locator_row(row) for row in study.rows] == [None, "a locator"]


@pytest.mark.parametrize("command", suite.ON_CPU + suite.ON_GPU)
def test_only_what_runs_on_a_gpu_asks_for_one(command):
    assert ("--gpu" in command.split()) == (command in suite.ON_GPU)


@pytest.mark.parametrize("command", ["growth --rounds 3", "profiling --data DATA"])
def test_what_draws_the_pictures_parses(command, contest):
    test_every_command_parses(command, contest)


def test_a_flag_that_a_benchmark_does_not_know_does_not_parse():
    with pytest.raises(SystemExit):
        importlib.import_module("benchmarks.views").parse(["--round", "x"])


@pytest.mark.parametrize("target", ["bench", "bench-gpu"])
def test_the_targets_are_the_suite(target):
    (recipe,) = re.findall(rf"^{target}:.*\n\t(.+)$", MAKEFILE, re.MULTILINE)
    _, _, module, *flags = shlex.split(recipe)
    assert module == "benchmarks.suite"
    assert suite.parse(flags).gpu == (target == "bench-gpu")


def test_one_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    path = tmp_path / "machine.json"
    monkeypatch.setattr(sys, "argv", ["suite", "--output", str(path)])
    monkeypatch.setattr(suite, "ON_CPU", ["breaks --data DATA", "is_silent", "works"])
    monkeypatch.setattr(suite, "write_contest", lambda *_, **__: None)

    def call(command, where):
        name = command[2].removeprefix("benchmarks.")
        if name == "works":
            monkeypatch.setattr(results, "FOLDER", where)
            results.write_result(name, {}, ratios=[FOUND])
        return 1.0, "status 3: no photos" if name == "breaks" else None

    monkeypatch.setattr(suite, "call", call)
    with pytest.raises(SystemExit) as ended:
        suite.main()
    assert ended.value.code == 1
    kept = json.loads(path.read_text())
    assert [one.get("failure") for one in kept["benchmarks"].values()] == [
        "status 3: no photos",
        "it wrote no ratios",
        None,
    ]
    assert Ratio(**kept["benchmarks"]["works"]["ratios"][0]) == FOUND
    assert {"date", "commit", "device", "packages"} <= set(kept["made with"])
    out = capsys.readouterr().out
    assert "FAILED  breaks --data DATA: status 3: no photos" in out
    assert re.search(r"rate of this +that +2.000 +1.500 +2.500", out)


def test_a_process_that_fails_says_why():
    seconds, failure = suite.call([sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"], None)
    assert failure == "status 3: two"
    assert seconds > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["suite", "--gpu"])
    monkeypatch.setattr(suite, "write_contest", lambda *_, **__: pytest.fail("it drew photos first"))
    with pytest.raises(SystemExit) as ended:
        suite.run_script(suite.main)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 1
    assert "no usable GPU" in said.err


def test_a_ratio_is_the_median_of_rounds_in_turn():
    done = []
    times = in_turn({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, rounds=3)
    assert done == ["a", "b"] * 4
    assert {name: len(one.clock) for name, one in times.items()} == {"a": 3, "b": 3}
    assert Ratio.of("x", "y", over([2, 6, 20], [1, 2, 5])) == Ratio("x", "y", 3, 2, 4)
