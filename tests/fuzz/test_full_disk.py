"""Wherever the disk is full, it is said in a line, with the status 2, and what was finished is there and can be
resumed. A limit on the size of files stands for the disk."""

import resource
import shutil
import signal
import threading
from contextlib import contextmanager

import pytest

from pipeline.checkpoint import load_checkpoint
from pipeline.inference.submission import read_submission
from tests.fuzz.campaign import NUM_CASES, campaign, check_line, tried
from tests.fuzz.conftest import TINY
from tests.fuzz.damage import remove
from tests.scripts import call


@contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def train_anew(folder, run, contest):
    return call(
        "hack_train.py",
        folder,
        "-n",
        "new",
        "-d",
        contest,
        "--cache",
        folder / "cache",
        *TINY,
        "--runs",
        folder / "new",
    )


def resume(folder, run, contest):
    return call("hack_train.py", folder, "--resume", run, "-e", "2")


def predict(folder, run, contest):
    (run / "views.json").unlink(missing_ok=True)
    return call("predict.py", folder, "--run", run, "--uncertainty", folder / "sd.csv")


@pytest.mark.parametrize("work", [train_anew, resume, predict], ids=lambda work: work.__name__)
def test_a_full_disk_is_a_line_and_what_was_finished_stays(work, tiny, tiny_contest, tmp_path, monkeypatch):
    whole = next((tiny / "runs").iterdir())
    said_by_threads = []
    monkeypatch.setattr(threading, "excepthook", said_by_threads.append)

    def check(rng):
        for name in ("runs", "cache", "new"):
            remove(tmp_path / name)
        run = shutil.copytree(whole, tmp_path / "runs" / whole.name)
        if rng.random() < 0.5:
            shutil.copytree(tiny / "cache", tmp_path / "cache")
        size = int(10 ** rng.uniform(2, 6.9))

        def limited():
            with files_of_at_most(size):
                return work(tmp_path, run, tiny_contest)

        status, _, err = tried(limited).result
        assert not said_by_threads, said_by_threads[0].exc_value
        if status:
            assert status == 2
            check_line(err.removesuffix("\n"), "a file grew larger than is allowed here", "cannot be written")
        for path in (run / "best.pt", run / "last.pt"):
            load_checkpoint(path)
        if (run / "submission.csv").exists():
            read_submission(run / "submission.csv")
        assert not list(tmp_path.rglob("*.partial"))
        status_again, _, err = tried(lambda: work(tmp_path, run, tiny_contest)).result
        assert status_again == 0, err
        return "refused" if status else "done"

    campaign(f"full disk, {work.__name__}", check, cases=range(one_sixth()))


def one_sixth():
    return -(-NUM_CASES // 6)
