"""SIGTERM and Ctrl-C: a training that is told to stop ends its step, saves and raises `Stopped`; a second signal ends
it at once. What is not a training ends at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.launch import read_launch

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME = 10.0  # seconds in which a batch system and torchrun, which passes it on, send one signal twice


class Stopped(KeyboardInterrupt):
    """Raised where work ends because a signal asked for it. `status` is the exit status that says which."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class StopRequest:
    """Whether a signal has asked the training to stop. Within `at_once` nothing has to be ended first."""

    def __init__(self):
        self.number: int | None = None
        self.noted = 0.0
        self._at_once = False

    def __bool__(self) -> bool:
        return self.number is not None

    def raise_if_stopped(self):
        """Raises Stopped if a signal has come."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What can be done again from the last checkpoint: a signal raises Stopped within it, at once."""
        self.raise_if_stopped()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def learn(self, number: int):
        """Notes a signal that came to this process, or to another one that it computes with."""
        self.number, self.noted = number, time.monotonic()

    def receive(self, number: int):
        self.learn(number)
        if self._at_once:
            raise Stopped(number)
        if read_launch().is_main:
            say(f"{signal.Signals(number).name}: ends this step and saves; once more stops at once")


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within it the first SIGTERM or Ctrl-C is noted, and a second one does what it did before.

    A signal that was ignored, as Ctrl-C is by a job in the background, still is. Handlers belong to the main thread;
    in another one nothing is noted. Of several processes each may get a signal twice, and takes it for one.
    """
    request, several = StopRequest(), read_launch().num_ranks > 1
    before: dict[signal.Signals, Any] = {}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, frame: FrameType | None):
        if request and time.monotonic() - request.noted < SAME:
            return
        if request or not several:
            restore()
        if request:
            os.kill(os.getpid(), number)  # which now does what it did before
        else:
            request.receive(number)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, receive)
        yield request
    finally:
        restore()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within it SIGTERM raises Stopped at once, so that what was begun is left as Ctrl-C leaves it. Handlers belong to
    the main thread; in another one SIGTERM does what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None):
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(line: str):
    """Writes a line to stderr from within a signal's handler, where print may be in the middle of a line itself."""
    os.write(2, f"\n{line}\n".encode())
