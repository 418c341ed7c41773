"""What goes on around a training changes nothing that it ends with, or is a line: a clock that jumps, data that may not
be written, a cache that vanishes, and others that do the same at the same time."""

import json
import shutil
import time
from itertools import count
from unittest import mock

from pipeline.checkpoint import load_checkpoint
from pipeline.data import pack
from pipeline.files import digest
from pipeline.inference.submission import read_submission
from pipeline.training.sitting import Sitting
from pipeline.training.state import TrainerState
from tests.fuzz.campaign import check_line
from tests.fuzz.conftest import TINY
from tests.fuzz.damage import same
from tests.scripts import call, start

DAY = 86_400
REMOVES_THE_CACHE = """
import shutil
from pipeline.training.callbacks import Callback

class Removes(Callback):
    def __init__(self, run):
        pass

    def after_epoch(self, trainer, result):
        shutil.rmtree({cache!r})
"""


def flags_of(tiny, contest, cache):
    return ["-n", "x", "-d", contest, "--cache", cache, "--flip-indices", tiny / "partners.json", *TINY]


def weights(runs):
    (last,) = runs.glob("*/last.pt")
    return load_checkpoint(last)["network"]


def stamps(folder):
    """All below a folder with their times."""
    paths = sorted(folder.rglob("*"))
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in (folder, *paths)}


def test_a_clock_that_jumps_and_data_that_may_not_be_written_change_no_weight(tiny, tiny_contest, tmp_path):
    """Where folders may be written whatever their mode, as by root, their times tell."""
    data = shutil.copytree(tiny_contest, tmp_path / "data")
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before, real, calls = stamps(data), time.time, count()

    def jumping():
        return real() + DAY * (-1) ** next(calls)

    with mock.patch("time.time", jumping):
        status, _, err = call("hack_train.py", tmp_path, *flags_of(tiny, data, tmp_path / "cache"))
        assert status == 0, err
        status, _, err = call("predict.py", tmp_path)
        assert status == 0, err
    assert next(calls) > 2
    assert stamps(data) == before
    assert same(weights(tmp_path / "runs"), weights(tiny / "runs"))
    for path in data.rglob("*"):
        path.chmod(0o755)


def test_the_time_of_a_training_is_that_of_no_clock_that_can_be_set(monkeypatch):
    """--minutes, plateaus by time and checkpoints go by it."""
    sitting = Sitting(TrainerState(minutes=2.0))
    for jump in (DAY, -DAY):
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        assert 2.0 <= sitting.minutes < 3.0


def test_a_cache_that_vanishes_during_a_training_is_not_missed(tiny, tiny_contest, tmp_path):
    (tmp_path / "removes.py").write_text(REMOVES_THE_CACHE.format(cache=str(tmp_path / "cache")))
    flags = [*flags_of(tiny, tiny_contest, tmp_path / "cache"), "--callbacks", f"{tmp_path}/removes.py:Removes"]
    status, _, err = call("hack_train.py", tmp_path, *flags)
    assert status == 0, err
    assert not (tmp_path / "cache").exists()
    assert same(weights(tmp_path / "runs"), weights(tiny / "runs"))
    status, _, err = call("predict.py", tmp_path)
    assert status == 0, err


def test_a_cache_that_vanishes_during_packing_is_a_line(tiny, tiny_contest, tmp_path, monkeypatch):
    def vanish(building, origin):
        shutil.rmtree(tmp_path / "cache")

    monkeypatch.setattr(pack, "note_origin", vanish)
    status, _, err = call("hack_train.py", tmp_path, *flags_of(tiny, tiny_contest, tmp_path / "cache"))
    assert status == 2
    check_line(err.removesuffix("\n"), tmp_path / "cache")
    assert not list(tmp_path.glob("runs/*"))


def ended(processes):
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def test_two_at_once_on_one_cache_and_in_one_folder_of_runs_do_what_each_alone_does(tiny, tiny_contest, tmp_path):
    flags = flags_of(tiny, tiny_contest, tmp_path / "cache")
    assert ended([start("hack_train.py", tmp_path, *flags) for _ in range(2)]) == [0, 0]
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    one, other = (load_checkpoint(run / "last.pt")["network"] for run in runs)
    assert same(one, other)
    (packed,) = (tmp_path / "cache").glob("train-*/pack.json")
    assert not list((tmp_path / "cache").glob("*.building"))
    assert json.loads(packed.read_text())["left_out"] == {}
    assert set(ended([start("predict.py", tmp_path, "--run", runs[0]) for _ in range(2)])) <= {0, 2}
    submission = runs[0] / "submission.csv"
    assert len(read_submission(submission)[0]) == 3
    assert json.loads((runs[0] / "submission.csv.json").read_text())["content"] == digest(submission.read_bytes())
    assert not list(tmp_path.rglob("*.partial"))
