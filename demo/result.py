"""What a run on the demo's contest achieved: `python -m demo.result CONTEST`, after hack_train.py and predict.py."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from pipeline.cli import parse_flags
from pipeline.data.dataset import load_test_data
from pipeline.errors import UserError, run_script
from pipeline.inference.submission import read_submission
from pipeline.metrics import score, to_photo_coordinates
from pipeline.networks import load_run_network
from pipeline.runs import find_run

NOT_LEARNED = 0.5  # of the mean shape's error


@dataclass(frozen=True)
class Options:
    contest: Positional[Path]
    """The folder of the demo's contest."""
    runs: Path = Path("runs")
    """Where run folders are; the newest one counts."""


def scores_of(contest: Path, runs: Path) -> dict[str, dict[str, float]]:
    """Mean squared errors of the newest run and of the mean shape, on the validation and the test photos."""
    run = find_run(None, runs)
    whole = run.whole_photo_run
    mean_shape = load_run_network(whole, "best").mean_shape.numpy()
    table, pack = load_test_data(whole.recipe(), len(mean_shape))
    names, truth = read_submission(contest / "test_truth.csv")
    _, predicted = read_submission(run.submission)
    assert names == table.names
    blind = np.take_along_axis(to_photo_coordinates(pack.photo_to_image, mean_shape), table.values[..., None], axis=1)
    return {
        "mean shape": {"validation": whole.about_data().mean_shape.mse, "test": score(blind, truth).mse},
        "network": {
            "validation": run.best_mse,
            "test": score(predicted, truth).mse,
        },
    }


def main():
    options = parse_flags(Options, __doc__)
    print(f"\n{'mean squared error, px²':26}{'validation':>12}{'test':>12}")
    scores = scores_of(options.contest, options.runs)
    for name, row in scores.items():
        print(f"{'  ' + name:26}{row['validation']:12.2f}{row['test']:12.2f}")
    if scores["network"]["test"] > NOT_LEARNED * scores["mean shape"]["test"]:
        raise UserError(
            "the network has learned next to nothing in its few minutes: were the cores busy with other programs? "
            "Run the demo when they are free, or with OMP_NUM_THREADS=1, or for longer: minutes in configs/demo.yaml"
        )
    run = find_run(None, options.runs)
    print(f"\npredicted points on test faces   {run.picture('test')}")
    print(f"submission                       {run.submission}")


if __name__ == "__main__":
    run_script(main)
