"""Keeps what `make demo` reached: python -m benchmarks.demo, after it.

The scores of the network and of the mean shape, the epochs as the training's table has them, and what the views brought
on held-out photos: all that the README shows of the demo.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.results import write_result
from demo.result import scores_of
from pipeline.runs import Run, find_run

CONTEST = Path("demo_contest")
COLUMNS = ["epoch", "minutes", "images_per_second", "train_loss", "train_mse", "validation_mse", "validation_nme"]


def reached_by(run: Run) -> dict[str, Any]:
    """The epochs of a run, and the scores of its views."""
    epochs = pd.read_csv(run.metrics)[COLUMNS].round(4)
    return {
        "epochs": {"columns": COLUMNS, "rows": epochs.to_numpy().tolist()},
        "views on held-out photos": json.loads(run.views.read_text())["scores"],
    }


if __name__ == "__main__":
    scores = scores_of(CONTEST, CONTEST / "runs")
    rounded = {name: {part: round(mse, 2) for part, mse in row.items()} for name, row in scores.items()}
    write_result("demo", rounded | reached_by(find_run(None, CONTEST / "runs")))
