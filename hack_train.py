"""Trains a landmark regressor on a contest's folder: `python hack_train.py --name x --data PATH --gpu`."""

import sys

from pipeline.console import recorded_console
from pipeline.errors import run_script
from pipeline.stopping import Stopped, terminated_as_interrupted
from pipeline.together import started_together


def main():
    try:
        with terminated_as_interrupted(), started_together(), recorded_console() as console:
            from pipeline.command import parse_command

            command = parse_command(sys.argv[1:])

            # This needs torch, which takes seconds to import; --help does not wait for it.
            from pipeline.training.session import train_command

            train_command(command, console)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.status)


if __name__ == "__main__":
    run_script(main)
