"""Wherever the disk is full, it is said in a line, with the status 2, and what was finished is there, whole, and can be
gone on with. A limit on the size of files stands for the disk, or it is full for files of one name: what is small and
comes after something large would else always find room."""

import csv
import errno
import io
import json
import os
import shutil
import threading
from unittest import mock

import pytest

from pipeline import files
from pipeline.checkpoint import load_checkpoint
from pipeline.inference.submission import read_submission
from tests.fuzz.campaign import MANY, NUM_CASES, campaign, check_line, one_of, tried
from tests.fuzz.damage import files_of_at_most, remove
from tests.fuzz.works import SCRIPTS, TOOLS, export_network, prepare, train_on_jpegs

FULL = ("a file grew larger than is allowed here", "the disk is full", "cannot be written")
OPEN = files._opened_alone


class Full(io.BufferedWriter):
    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def name_of(temporary):
    return temporary.name.removeprefix(".").removesuffix(".partial")


def no_room_for(name):
    """The disk is full whenever a file of that name is written."""

    def opened(path):
        file = OPEN(path)
        return Full(file.detach()) if name_of(path) == name else file

    return mock.patch.object(files, "_opened_alone", opened)


def names_written(work):
    """What comes of it, and the names of the files that it replaces, in their order."""
    names = []
    with mock.patch.object(files, "_opened_alone", lambda path: names.append(name_of(path)) or OPEN(path)):
        return work(), list(dict.fromkeys(names))


@pytest.fixture
def begin(tiny, tmp_path, monkeypatch):
    """Makes the folder as it was before the work; gives the run in it."""
    whole = next((tiny / "runs").iterdir())
    said_by_threads = []
    monkeypatch.setattr(threading, "excepthook", said_by_threads.append)

    def make(*, with_cache):
        assert not said_by_threads, said_by_threads[0].exc_value
        for path in tmp_path.iterdir():
            remove(path)
        if with_cache:
            shutil.copytree(tiny / "cache", tmp_path / "cache")
        return shutil.copytree(whole, tmp_path / "runs" / whole.name)

    return make


def check_whole(folder):
    """Every file below a folder is there to its end, and no part of one."""
    for path in (path for path in folder.rglob("*") if path.is_file() and "events" not in path.name):
        assert not path.name.endswith(".partial"), path
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".pt":
            load_checkpoint(path)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path
        elif path.name in ("submission.csv", "blend.csv"):
            read_submission(path)
        elif path.suffix == ".csv":
            separator = "\t" if b"\t" in path.read_bytes() else ","
            assert len({len(row) for row in csv.reader(path.open(newline=""), delimiter=separator)}) <= 1, path
            assert path.read_bytes()[-1:] in (b"", b"\n"), path


def check_full(work, full, folder, run, contest):
    """What comes of it on the full disk is all of it, or a line and nothing half."""

    def limited():
        with full:
            return work(folder, run, contest)

    status, _, err = tried(limited).result
    if status:
        assert status == 2, err
        check_line(err.removesuffix("\n"), *FULL)
    load_checkpoint(run / "best.pt")
    load_checkpoint(run / "last.pt")
    check_whole(folder)
    return "refused" if status else "done"


def check_again(work, folder, run, contest):
    """There is room again."""
    status, _, err = tried(lambda: work(folder, run, contest)).result
    assert status == 0, err
    check_whole(folder)


@pytest.mark.parametrize("work", SCRIPTS, ids=lambda work: work.__name__)
def test_a_full_disk_is_a_line_and_what_was_finished_stays(work, begin, tiny_contest, tmp_path):
    run = begin(with_cache=True)
    (status, _, err), names = names_written(lambda: work(tmp_path, run, tiny_contest))
    assert status == 0, err

    def check(rng):
        begin(with_cache=rng.random() < 0.5)
        if rng.random() < 0.5:
            outcome = check_full(work, files_of_at_most(int(10 ** rng.uniform(2, 6.9))), tmp_path, run, tiny_contest)
        else:
            name = one_of(rng, names)
            outcome = check_full(work, no_room_for(name), tmp_path, run, tiny_contest)
            assert outcome == "refused", name
        if MANY:
            check_again(work, tmp_path, run, tiny_contest)
        return outcome

    campaign(f"full disk, {work.__name__}", check, cases=range(one_sixth()))
    check_again(work, tmp_path, run, tiny_contest)


def test_a_training_that_finds_no_room_for_one_file_says_so(begin, tiny_contest, tmp_path):
    run = begin(with_cache=True)
    for name in ("manifest.json", "held_out.npz", "report.html"):
        assert check_full(train_on_jpegs, no_room_for(name), tmp_path, run, tiny_contest) == "refused", name
    check_again(train_on_jpegs, tmp_path, run, tiny_contest)


@pytest.mark.parametrize("work", TOOLS, ids=lambda work: work.__name__)
def test_a_tool_on_a_full_disk_says_so_and_leaves_nothing_half(work, begin, tiny_contest, tmp_path):
    """One kind of file after another finds no room; then there is room for all."""
    run = begin(with_cache=True)
    prepare(work, tmp_path)
    (status, _, err), names = names_written(lambda: work(tmp_path, run, tiny_contest))
    assert status == 0, err
    assert names
    run = begin(with_cache=True)
    prepare(work, tmp_path)
    for name in names:
        assert check_full(work, no_room_for(name), tmp_path, run, tiny_contest) == "refused", name
    check_again(work, tmp_path, run, tiny_contest)


def test_an_export_that_finds_no_room_says_so(begin, tiny_contest, tmp_path):
    """Torch, where it writes such a file by itself, would abort the process."""
    run = begin(with_cache=True)
    assert check_full(export_network, files_of_at_most(100_000), tmp_path, run, tiny_contest) == "refused"
    assert not list((tmp_path / "new").iterdir())


def one_sixth():
    return -(-NUM_CASES // 6)
