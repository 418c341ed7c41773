"""Progress of what takes long: a bar in a terminal, and elsewhere, as in a batch job's log, a plain line a minute."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

from tqdm import tqdm

EVERY = 60.0  # seconds between two plain lines


class Bar(Protocol):
    """What tqdm and `PlainProgress` have in common."""

    n: float

    def update(self, n: float = 1): ...
    def set_postfix_str(self, s: str, refresh: bool = True): ...
    def close(self): ...
    def __enter__(self): ...
    def __exit__(self, *error): ...


def progress(total: float, description: str | None, *, unit: str, clock: Callable[[], float] = time.monotonic) -> Bar:
    """Shows how far something has come that counts to `total`, in `unit`s such as "photo" or "B"; nothing without a
    description."""
    if description is None:
        return tqdm(total=total, disable=True)
    if sys.stderr.isatty():
        return tqdm(total=total, desc=description, unit=unit, unit_scale=unit == "B", leave=False)
    return PlainProgress(total, description, unit=unit, clock=clock)


def training_progress(clock: Callable[[], float] = time.monotonic) -> Bar:
    """Shows the share of a training that is done, which counts to 1, and what `set_postfix_str` is told."""
    if sys.stderr.isatty():
        return tqdm(total=1.0, leave=False, bar_format="{percentage:3.0f}%|{bar}|{postfix}")
    return PlainProgress(1.0, "training", unit="", clock=clock)


def print_line(line: str):
    """Prints a line at once, above any bar."""
    tqdm.write(line)
    sys.stdout.flush()


def format_seconds(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    return tqdm.format_interval(max(seconds, 0))


class PlainProgress:
    """Prints a line a minute, and a last one if there was any before."""

    def __init__(self, total: float, description: str, *, unit: str, clock: Callable[[], float] = time.monotonic):
        self.n = 0.0
        self._total, self._description, self._unit, self._clock = total, description, unit, clock
        self._begun = self._said = clock()
        self._postfix = ""

    def update(self, n: float = 1):
        self.n += n
        if self._clock() - self._said >= EVERY:
            self._say()

    def set_postfix_str(self, s: str, refresh: bool = True):
        self._postfix = s

    def close(self):
        if self._said > self._begun:
            self._say()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _say(self):
        self._said = self._clock()
        seconds = self._said - self._begun
        percent = f"{100 * self.n / self._total:.0f} %" if self._total else "100 %"
        parts = [f"{self._description} {percent}"]
        if self._unit:
            unit = "" if self._unit == "B" else f" {self._unit}s"
            parts.append(f"{self._counted(self.n)} of {self._counted(self._total)}{unit}")
            parts.append(f"{self._counted(self.n / max(seconds, 1e-9))}{unit}/s")
            parts.append(f"{format_seconds(seconds * (self._total / self.n - 1))} left" if self.n else "none so far")
        print_line(", ".join([*parts, *([self._postfix] if self._postfix else [])]))

    def _counted(self, amount: float) -> str:
        return f"{tqdm.format_sizeof(amount)}B" if self._unit == "B" else f"{amount:,.0f}"
