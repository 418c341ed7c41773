"""What the tests of a campaign share: how many cases there are, what a case may cost, and what may come of it.

FUZZ_CASES    cases of each test; `make fuzz` takes many
FUZZ_SEED     of all of them
"""

import os
import resource
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError

NUM_CASES = int(os.environ.get("FUZZ_CASES", "10"))
MANY = "FUZZ_CASES" in os.environ  # more than those of every day
SEED = int(os.environ.get("FUZZ_SEED", "0"))
ENOUGH = 10  # cases of which not all are so spoiled that they have to be refused
MOST_SECONDS = 30.0  # of a case that goes through a script on a busy machine; most take milliseconds
MOST_BYTES = 2 << 30  # of memory, above what the process has
NUM_SHOWN = 8  # of what a test has found

OUTCOMES: Counter[tuple[str, str]] = Counter()  # by test and kind; tests/fuzz/conftest.py prints them


class TooSlow(BaseException):
    """A case that takes too long. No Exception: what is tried may catch these."""


@dataclass(frozen=True)
class Outcome:
    """result: what came of it. refused: or the line of a UserError. status, output: of a script."""

    result: Any = None
    refused: str = ""


def rng_of(kind: str, case: int) -> np.random.Generator:
    return np.random.default_rng([SEED, case, *kind.encode()])


def tried(work: Callable[[], Any]) -> Outcome:
    """What comes of it within the limits. What is neither a result nor a UserError is raised."""
    try:
        with limits():
            return Outcome(result=work())
    except UserError as error:
        return Outcome(refused=str(error))


@contextmanager
def limits() -> Iterator[None]:
    def stop(number, frame):
        raise TooSlow(f"more than {MOST_SECONDS} seconds")

    before, memory = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, memory[1]))
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def campaign(kind: str, check: Callable[[np.random.Generator], str], *, cases: Iterable[int] | None = None):
    """Calls `check` with the generator of each case. It gives the kind of the outcome, and raises for what may not be;
    all of that is collected and said at once. Where there are enough cases, some of them have to be taken.
    """
    found: dict[str, list[str]] = {}
    outcomes = []
    for case in range(NUM_CASES) if cases is None else cases:
        try:
            outcome = check(rng_of(kind, case))
        except (Exception, TooSlow, SystemExit) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            about = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {str(error)[:300]}"
            found.setdefault(about.split(":")[0] + type(error).__name__, []).append(f"case {case}: {about}")
            outcome = "found"
        OUTCOMES[kind, outcome] += 1
        outcomes.append(outcome)
    lines = [line for lines in found.values() for line in lines[:NUM_SHOWN]]
    assert not lines, f"{sum(map(len, found.values()))} cases of {kind} (seed {SEED}):\n" + "\n".join(lines)
    taken = [outcome for outcome in outcomes if "refused" not in outcome]
    assert taken or len(outcomes) < ENOUGH, f"all cases of {kind} (seed {SEED}) are refused"


def check_line(line: str, *names: str | Path):
    """A refusal is one line that names one of `names`, or the known form of faults of the data."""
    assert line.strip(), "no reason"
    first, *others = line.split("\n")
    assert not others or (first.endswith("in the data:") and all(other.startswith("  ") for other in others)), line
    assert "Traceback" not in line
    assert len(line) < 8000, f"{len(line)} characters"
    assert any(str(name) in line for name in names), f"names none of {[str(name) for name in names]}: {line}"


def one_of(rng: np.random.Generator, choices: Iterable[Any]) -> Any:
    choices = list(choices)
    return choices[rng.integers(len(choices))]
