"""Memory of a prediction and of a training, for few and for many photos: python -m benchmarks.memory

A small network is trained on a few drawn faces; then contests of many small photos are predicted, first packed and then
from the pack, each by a process of its own, and contests of as many photos are trained on for a few steps, and
validated on 500 of them. What is measured is the largest memory that is the process's own: pages of
the pack's file, which the system takes back as it likes, are not in it. (Linux only.)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.results import write_result
from benchmarks.rounds import Ratio
from benchmarks.starting import write_contest as write_train
from demo.contest import write_contest

ROOT = Path(__file__).parents[1]
COUNTS = (10_000, 100_000)
NUM_VALIDATED = 500
NUM_SOURCES = 200
SIZE = 32
TRAINING = ["--model", "mobilenet_v3_small", "--weights", "none", "--size", SIZE, "--epochs", "1", "--batch-size", "16"]


def run(script: str, *arguments) -> float:
    """Runs a script to its end; the largest memory of its own that it was seen to have, in MB."""
    process = subprocess.Popen([sys.executable, str(ROOT / script), *map(str, arguments)], stdout=subprocess.DEVNULL)
    status, largest = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        own = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("RssAnon")]
        largest = max([largest, *map(int, own)])
        time.sleep(0.05)
    assert process.returncode == 0
    return largest / 1024


def write_test(folder: Path, count: int):
    """A contest's test of `count` photos, which are links to a few drawn at random."""
    images = folder / "test/images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for source in range(NUM_SOURCES):
        cv2.imwrite(str(folder / f"{source}.jpg"), rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))
    with (folder / "test/test_points.csv").open("w") as table:
        table.write("file_name\tpoint_index_list\n")
        for number in range(count):
            os.link(folder / f"{number % NUM_SOURCES}.jpg", images / f"{number}.jpg")
            table.write(f"{number}.jpg\t{json.dumps(rng.permutation(971)[:30].tolist())}\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs=2, type=int, default=COUNTS, metavar=("FEW", "MANY"))
    return parser.parse_args(arguments)


def main():
    counts, found = parse().counts, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = ["--runs", folder / "runs", "--cache", folder / "cache"]
        write_contest(folder / "faces", train=60, test=5, seed=0)
        run("hack_train.py", "--data", folder / "faces", *paths, *TRAINING)
        views = folder / "views.json"
        views.write_text('[[], [{"AffineAugmenter": {"scale": 1.1}}]]')
        for count in counts:
            contest = folder / f"contest{count}"
            write_test(contest, count)
            for what in ("packing and predicting", "predicting"):
                flags = ["--data", contest, "--views", views, "--weights", "equal"]
                flags += ["--output", folder / "submission.csv"]
                found[f"{what} {count:,} photos, MB"] = round(run("predict.py", *flags, *paths))
            trained = folder / f"trained{count}"
            write_train(trained, count)
            where = ["--runs", folder / "others", "--cache", folder / "cache"]  # predict.py takes the newest of runs
            flags = [
                "--data",
                trained,
                "--steps-per-epoch",
                20,
                "--train-share",
                1 - min(NUM_VALIDATED, count // 4) / count,
            ]
            for what in ("packing and training", "training"):
                found[f"{what} on {count:,} photos, MB"] = round(run("hack_train.py", *flags, *where, *TRAINING))
    for what, memory in found.items():
        print(f"{what:48}{memory:8}")
    few, many = (f"{count:,} photos" for count in counts)
    ratios = [
        Ratio.of(f"memory of {what.partition(', MB')[0]}", few, [memory / found[what.replace(many, few)]])
        for what, memory in found.items()
        if many in what
    ]
    write_result("memory", {"largest memory of the process": found}, ratios=ratios)


if __name__ == "__main__":
    main()
