"""What is looked at after a kill: whether each file of a run is whole, and in what results differ from those of a run
that was not killed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from pipeline.checkpoint import load_checkpoint

COLUMNS = ["epoch", "step", "learning_rate", "train_loss", "train_mse", "validation_mse"]


def broken_files(folder: Path) -> list[str]:
    """The files of the runs, but for unfinished ones, that cannot be read or are not whole."""
    found = []
    for path in folder.glob("runs/**/*"):
        if path.suffix in READERS and not path.name.startswith("."):
            try:
                READERS[path.suffix](path)
            except Exception as error:  # whatever it is, the file is broken
                found.append(f"{path.name}: {type(error).__name__}")
    return found


def _read_picture(path):
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert cv2.imread(str(path)) is not None


def _read_page(path):
    assert path.read_text().rstrip().endswith("</html>")


def _read_table(path):
    assert path.read_bytes().endswith(b"\n")
    pd.read_csv(path).astype({"epoch": int} if path.name == "metrics.csv" else {})


READERS = {
    ".pt": load_checkpoint,
    ".json": lambda path: json.loads(path.read_bytes()),
    ".npz": lambda path: dict(np.load(path)),
    ".csv": _read_table,
    ".png": _read_picture,
    ".html": _read_page,
}


def difference(work: str, folder: Path, reference: Path) -> str:
    """In what the results of a folder differ from those of the reference, "" where they are equal to the bit."""
    runs = [path.parent for path in folder.glob("runs/*/recipe.yaml")]
    if len(runs) != 1:
        return f"{len(runs)} runs that can be resumed"
    (run,), (whole,) = runs, (reference / "runs").glob("*_x_*")
    if work == "predict":
        return "" if (run / "submission.csv").read_bytes() == (whole / "submission.csv").read_bytes() else "submission"
    for name, keys in {"last.pt": ("network", "average", "optimiser"), "best.pt": ("network",)}.items():
        one, other = load_checkpoint(run / name), load_checkpoint(whole / name)
        if differing := [key for key in keys if not _same(one[key], other[key])]:
            return f"{differing[0]} of {name}"
    one, other = (pd.read_csv(path / "metrics.csv")[COLUMNS] for path in (run, whole))
    return "" if one.equals(other) else "metrics.csv"


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return all(map(_same, one, other)) and len(one) == len(other) if isinstance(one, list | tuple) else one == other
