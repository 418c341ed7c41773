"""How long a start takes before the first step, for many photos: python -m benchmarks.starting [PHOTOS]

A contest of small photos, which are links to a few files, is opened three times, each by a process of its own: packed,
opened as any later start opens it, and with each photo looked at. The time of the imports is not in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.results import write_result
from benchmarks.rounds import Ratio

ROOT = Path(__file__).parents[1]
NUM_POINTS = 68
NUM_SOURCES = 500
OLD = 1e9  # seconds: long before any start
SCRIPT = """
import json, sys, time
from pipeline.command import parse_command
from pipeline.data.dataset import leaks, load_training_data, mean_shape_score
from pipeline.training import command as training_command
recipe = parse_command(sys.argv[1:]).recipe
clock, processor = time.perf_counter(), time.process_time()
data = load_training_data(recipe)
mean_shape_score(data), leaks(data)
print(json.dumps([time.perf_counter() - clock, time.process_time() - processor, len(data.pack)]))
"""


def write_contest(folder: Path, count: int):
    """Photos of noise with random shapes of a kind; 1 % of the photos are a test."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(8, 28, (NUM_POINTS, 2))
    for part, number in (("train", count), ("test", count // 100)):
        images = folder / part / "images"
        images.mkdir(parents=True)
        for source in range(NUM_SOURCES):
            path = folder / f"{part}{source}.jpg"
            cv2.imwrite(str(path), rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))
            os.utime(path, (OLD, OLD))
        for row in range(number):
            os.link(folder / f"{part}{row % NUM_SOURCES}.jpg", images / f"{row}.jpg")
        os.utime(images, (OLD, OLD))
    with (folder / "train/landmarks.csv").open("w") as table:
        table.write("file_name" + "\tx" * 2 * NUM_POINTS + "\n")
        for row in range(count):
            shape = (mean + rng.normal(0, 2, 2)).round().astype(int)
            table.write(f"{row}.jpg\t" + "\t".join(map(str, shape.ravel().tolist())) + "\n")
    with (folder / "test/test_points.csv").open("w") as table:
        table.write("file_name\tpoint_index_list\n")
        table.writelines(f"{row}.jpg\t[0, 1, 2]\n" for row in range(count // 100))
    for name in ("train/landmarks.csv", "test/test_points.csv"):
        os.utime(folder / name, (OLD, OLD))


def start(folder: Path, *flags: str) -> dict[str, float]:
    paths = ["--data", folder / "contest", "--cache", folder / "cache", "--runs", folder / "runs"]
    command = [sys.executable, "-c", SCRIPT, *map(str, paths), "--size", "32", "--roi", "whole", *flags]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()[-1]
    clock, processor, _ = json.loads(found)
    return {"s by the clock": round(clock, 2), "s of processor time": round(processor, 2)}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=int, default=400_000)
    return parser.parse_args(arguments)


def main():
    count = parse().photos
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_contest(folder / "contest", count)
        found = {
            "first, which packs": start(folder),
            "next": start(folder),
            "the one after it": start(folder),
            "with --check-photos": start(folder, "--check-photos"),
        }
    for what, seconds in found.items():
        print(f"{what:24}{seconds}")
    packs, *others = [seconds["s of processor time"] for seconds in found.values()]
    ratios = [
        Ratio.of(f"processor time of a start, {what}", "the first, which packs", [seconds / packs])
        for what, seconds in zip(list(found)[1:], others, strict=True)
    ]
    result = {"photos": count, "points": NUM_POINTS, "a start, beyond its imports": found}
    write_result("starting", result, ratios=ratios)


if __name__ == "__main__":
    main()
