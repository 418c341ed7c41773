"""Trains a landmark regressor on a contest's folder: `python hack_train.py --name x --data PATH --gpu`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.console import recorded_console
from pipeline.errors import run_script
from pipeline.stopping import Stopped, terminated_as_interrupted
from pipeline.together import started_together


def train(arguments: Sequence[str | os.PathLike[str]]) -> Path:
    """Trains as the script does with these arguments, such as `["--name", "x", "--data", path]`. Returns the folder of
    the run, of its folds or stages, or of the sweep of --find-lr.

    --session-minutes counts from the start of this process, which in a notebook is the kernel's. Raises UserError for
    what cannot be trained, and Stopped, a KeyboardInterrupt, when a signal ends the training.
    """
    with terminated_as_interrupted(), started_together(), recorded_console() as console:
        from pipeline.command import parse_command

        command = parse_command([os.fspath(argument) for argument in arguments])

        # This needs torch, which takes seconds to import; --help does not wait for it.
        from pipeline.training.command import train_command

        return train_command(command, console)


def main():
    try:
        train(sys.argv[1:])
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.status)


if __name__ == "__main__":
    run_script(main)
