"""Writes the submission: `python predict.py` takes the newest run, its best weights, its views and its data."""

from pipeline.errors import run_script
from pipeline.together import started_together


def main():
    with started_together():
        from pipeline.cli import parse_flags
        from pipeline.inference.options import PredictOptions

        options = parse_flags(PredictOptions, __doc__)
        options.check()

        # This needs torch, which takes seconds to import; --help does not wait for it.
        from pipeline.inference.command import predict_command

        predict_command(options)


if __name__ == "__main__":
    run_script(main)
