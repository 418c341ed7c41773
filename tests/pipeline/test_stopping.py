"""Signals: the first is noted, a second one does what it did before, and handlers are as they were."""

import os
import signal
import threading

import pytest

from pipeline.stopping import SIGNALS, Stopped, stop_request, terminated_as_interrupted


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_with_one_line(number, capfd):
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_request() as stop:
        assert not stop
        stop.raise_if_stopped()
        send(number)
        assert stop
        assert [signal.getsignal(each) for each in SIGNALS] == before  # a second one is not noted
        with pytest.raises(Stopped) as caught:
            stop.raise_if_stopped()
        assert caught.value.status == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_what_can_be_done_again_is_ended_at_once():
    done = []

    def work(stop):
        with stop.at_once():
            send(signal.SIGTERM)
            done.append("went on")

    with stop_request() as stop:
        for _ in range(2):  # the second time it is not begun
            with pytest.raises(Stopped):
                work(stop)
    assert not done


def test_a_signal_that_was_ignored_still_is():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_request() as stop:
            send(signal.SIGINT)
            assert not stop
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_a_training_sigterm_ends_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, terminated_as_interrupted():
        send(signal.SIGTERM)
    assert caught.value.status == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_nothing_is_noted_and_nothing_fails():
    noted = []

    def work():
        with terminated_as_interrupted(), stop_request() as stop:
            noted.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [False]


def test_of_several_processes_each_takes_a_signal_that_comes_twice_for_one(monkeypatch):
    """A batch system sends it to all of them, and torchrun passes it on; a later one still stops at once."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with terminated_as_interrupted(), stop_request() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            send(number)
        assert stop.number == signal.SIGTERM
        monkeypatch.setattr("pipeline.stopping.SAME", 0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
