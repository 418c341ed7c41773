"""Time is counted for what it was spent on."""

import pytest

from pipeline.training.phases import Phases


def test_seconds_are_those_of_the_phase_and_waiting_is_not_use():
    now = [0.0]
    phases = Phases(lambda: now[0])

    def slow(count):
        for item in range(count):
            now[0] += 2
            yield item

    with phases.spent_on("training"):
        for _ in phases.waited_for("waiting", slow(3)):
            now[0] += 5

    def fail():
        now[0] += 1
        raise KeyError

    with pytest.raises(KeyError), phases.spent_on("validation"):
        fail()
    assert dict(phases.seconds) == {"training": 21, "waiting": 6, "validation": 1}
