"""`python -m demo OUT --train N --test N`: writes a contest of drawn faces into the folder OUT."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from demo.contest import write_contest
from pipeline.flags import parse_flags


@dataclass(frozen=True)
class Options:
    out: Positional[Path]
    """The folder to write into; made if it is not there."""
    train: int = 1500
    """Photos to train on."""
    test: int = 300
    """Photos to predict."""
    seed: int = 0
    """Another seed draws other faces."""


if __name__ == "__main__":
    options = parse_flags(Options, __doc__)
    write_contest(options.out, train=options.train, test=options.test, seed=options.seed)
    print(f"{options.out}: {options.train} photos to train on, {options.test} to predict; answers in test_truth.csv")
