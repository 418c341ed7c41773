"""`python -m demo OUT --train N --test N`: writes a contest of drawn faces into the folder OUT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from tyro.conf import Positional

from demo.contest import TRUTH, write_contest
from pipeline.cli import parse_flags
from pipeline.data.contest import LANDMARKS
from pipeline.errors import UserError, run_script


@dataclass(frozen=True)
class Options:
    out: Positional[Path]
    """The folder to write into; made if it is not there."""
    train: Annotated[int, Ge(1)] = 1500
    """Photos to train on."""
    test: Annotated[int, Ge(1)] = 300
    """Photos to predict."""
    seed: Annotated[int, Ge(0)] = 0
    """Another seed draws other faces."""


def main():
    options = parse_flags(Options, __doc__)
    if (options.out / LANDMARKS).exists() and not (options.out / TRUTH).exists():
        raise UserError(f"{options.out} holds a contest that is not the demo's; give another folder")
    write_contest(options.out, train=options.train, test=options.test, seed=options.seed)
    print(f"{options.out}: {options.train} photos to train on, {options.test} to predict; answers in test_truth.csv")


if __name__ == "__main__":
    run_script(main)
