"""Where other programs compute, the number of threads that is fastest then is taken; elsewhere it is left alone."""

import psutil
import pytest
import torch

from pipeline import threads
from pipeline.runtime import Runtime
from pipeline.threads import candidates, choose_threads, measure_speeds

CPU = Runtime(torch.device("cpu"), "fp32")


@pytest.fixture
def four_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    torch.set_num_threads(4)
    threads.all_threads.cache_clear()
    yield
    torch.set_num_threads(before)
    threads.all_threads.cache_clear()


@pytest.mark.parametrize(
    ("busy", "speeds", "taken", "said"),
    [
        (5, {4: 1.0, 2: 9.0, 1: 9.0}, 4, ""),
        (75, {4: 1.0, 2: 3.0, 1: 2.0}, 2, "2 of 4 threads compute, 3.0 times as fast as all"),
        (75, {4: 1.0, 2: 1.05, 1: 0.5}, 4, "4 of 4 threads compute, still the fastest"),
    ],
)
def test_on_busy_cores_the_fastest_number_of_threads_is_taken(
    four_threads, busy, speeds, taken, said, monkeypatch, capsys
):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    monkeypatch.setattr(threads, "measure_speeds", lambda counts: {count: speeds[count] for count in counts})
    choose_threads(CPU)
    assert torch.get_num_threads() == taken
    out = capsys.readouterr().out
    assert said in out
    assert bool(out) == bool(said)


def test_a_later_run_takes_all_threads_again_on_quiet_cores(four_threads, monkeypatch):
    """As the folds of a training that began on busy ones."""
    monkeypatch.setattr(threads, "measure_speeds", lambda counts: {count: 1 / count for count in counts})
    for busy, taken in ((75, 1), (75, 1), (5, 4)):
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, busy=busy: busy)
        choose_threads(CPU)
        assert torch.get_num_threads() == taken


def test_a_number_of_threads_that_the_user_gives_holds(four_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100)
    monkeypatch.setattr(threads, "measure_speeds", lambda counts: {count: 1 / count for count in counts})
    choose_threads(CPU)
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("available", "tried"), [(1, [1]), (2, [2, 1]), (12, [12, 6, 3, 1])])
def test_each_number_that_is_tried_is_half_of_the_one_before(available, tried):
    assert candidates(available) == tried


def test_trying_leaves_the_random_numbers_as_they_are(monkeypatch):
    monkeypatch.setattr(threads, "ROUNDS", 1)
    monkeypatch.setattr(threads, "SECONDS", 0.01)
    before, state = torch.get_num_threads(), torch.get_rng_state()
    assert all(speed > 0 for speed in measure_speeds([2, 1]).values())
    torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
