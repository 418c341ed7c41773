"""Without a terminal there is a line a minute, and in one a bar."""

import pytest

from pipeline.progress import EVERY, PlainProgress, progress, training_progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_without_a_terminal_there_is_a_line_a_minute_and_one_at_the_end(clock, capsys):
    with progress(394_000, "packing train", unit="photo", clock=clock) as bar:
        for _ in range(3940):
            clock.now += 0.5
            bar.update(100)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == int(3940 * 0.5 / EVERY) + 1
    assert lines[0] == "packing train 3 %, 12,000 of 394,000 photos, 200 photos/s, 31:50 left"
    assert lines[-1] == "packing train 100 %, 394,000 of 394,000 photos, 200 photos/s, 00:00 left"


def test_what_takes_less_than_a_minute_says_nothing(clock, capsys):
    with progress(10, "packing", unit="photo", clock=clock) as bar:
        clock.now += EVERY - 1
        bar.update(10)
    assert capsys.readouterr().out == ""


def test_bytes_are_said_in_units_that_can_be_read(clock, capsys):
    bar = progress(4.9e9, "landmarks.csv", unit="B", clock=clock)
    clock.now += EVERY
    bar.update(1.2e9)
    assert capsys.readouterr().out == "landmarks.csv 24 %, 1.20GB of 4.90GB, 20.0MB/s, 03:04 left\n"


def test_nothing_to_do_and_nothing_done_divide_by_no_zero(clock, capsys):
    clock_of = {"unit": "photo", "clock": clock}
    for total in (0, 5):
        bar = progress(total, "packing", **clock_of)
        clock.now += EVERY
        bar.update(0)
        bar.close()
    assert capsys.readouterr().out.splitlines()[0].startswith("packing 100 %")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_has_no_description_says_nothing(clock, capsys, monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with progress(10, None, unit="photo", clock=clock) as bar:
        clock.now += EVERY
        bar.update(5)
    assert capsys.readouterr() == ("", "")


def test_a_training_says_what_it_is_told(clock, capsys):
    bar = training_progress(clock)
    bar.set_postfix_str("epoch 1/3")
    bar.update(0.25)
    assert capsys.readouterr().out == ""
    clock.now += EVERY
    bar.set_postfix_str("epoch 2/3")
    bar.update(0.25)
    assert capsys.readouterr().out == "training 50 %, epoch 2/3\n"


def test_in_a_terminal_there_is_a_bar_and_no_line(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for bar in (progress(10, "packing", unit="photo", clock=clock), training_progress(clock)):
        assert not isinstance(bar, PlainProgress)
        clock.now += EVERY
        bar.set_postfix_str("epoch 1/3")
        bar.update(1)
        bar.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 1/3" in captured.err
