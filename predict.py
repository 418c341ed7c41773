"""Writes the submission: `python predict.py` takes the newest run, its best weights, its views and its data."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import run_script
from pipeline.together import started_together


def predict(arguments: Sequence[str | os.PathLike[str]]) -> Path:
    """Predicts as the script does with these arguments, such as `["--run", run]`. Returns the path of the submission,
    or with --photo the folder of its results.

    Raises UserError for runs or data that cannot be predicted.
    """
    with started_together():
        from pipeline.cli import parse_flags
        from pipeline.inference.options import PredictOptions

        options = parse_flags(PredictOptions, __doc__, arguments=[os.fspath(argument) for argument in arguments])
        options.check()

        # This needs torch, which takes seconds to import; --help does not wait for it.
        from pipeline.inference.command import predict_command

        return predict_command(options)


def main():
    predict(sys.argv[1:])


if __name__ == "__main__":
    run_script(main)
