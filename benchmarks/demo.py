"""Keeps what `make demo` reached: python -m benchmarks.demo, after it.

The scores of the network and of the mean shape, what is known of the data, the epochs as the training's table has them,
and what the views brought on held-out photos: all that the README shows of the demo.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.results import write_result
from demo.result import scores_of
from pipeline.runs import Run, find_run

CONTEST = Path("demo_contest")
COLUMNS = ["epoch", "minutes", "images_per_second", "train_loss", "train_mse", "validation_mse", "validation_nme"]


def reached_by(run: Run) -> dict[str, Any]:
    """What a run was trained on, its epochs, and the scores of its views."""
    about, partners = run.about_data(), np.array(json.loads((run.folder / "permutation.json").read_text()))
    on_the_axis = int((partners == np.arange(len(partners))).sum())
    epochs = pd.read_csv(run.metrics)[COLUMNS].round(4)
    return {
        "photos to train on": about.num_train,
        "photos held out": about.num_validation,
        "points": about.num_points,
        "pairs of points": (len(partners) - on_the_axis) // 2,
        "points on the axis": on_the_axis,
        "mean shape on held-out photos": asdict(about.mean_shape),
        "epochs": {"columns": COLUMNS, "rows": epochs.to_numpy().tolist()},
        "views on held-out photos": json.loads(run.views.read_text())["scores"],
    }


if __name__ == "__main__":
    scores = scores_of(CONTEST, CONTEST / "runs")
    rounded = {name: {part: round(mse, 2) for part, mse in row.items()} for name, row in scores.items()}
    write_result("demo", rounded | reached_by(find_run(None, CONTEST / "runs")))
