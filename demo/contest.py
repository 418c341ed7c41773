"""Writes the drawn contest in the real one's layout.

Beside the contest's own files there is `test_truth.csv`, the answers in the form of a submission.
"""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from demo.photo import draw_photo
from pipeline.data.contest import LANDMARKS

NUM_ASKED = 30
TRUTH = "test_truth.csv"  # what is to be found in the test photos
QUALITY = 92
PARTS = {"train": 0, "test": 1}


def write_contest(out: Path, *, train: int, test: int, seed: int):
    """Draws the photos with all cores and writes the contest's files."""
    names, points = draw_part(out / "train/images", "train", train, seed)
    header = "\t".join(["file_name", *(f"Point_M{k}_{axis}" for k in range(points.shape[1]) for axis in "XY")])
    rows = (
        "\t".join([name, *map(str, row)]) for name, row in zip(names, points.reshape(train, -1).tolist(), strict=True)
    )
    landmarks = "\n".join([header, *rows]) + "\n"

    names, points = draw_part(out / "test/images", "test", test, seed)
    rng = np.random.default_rng((seed, 2))
    asked = np.stack([rng.choice(points.shape[1], NUM_ASKED, replace=False) for _ in names])
    rows = (f"{name}\t{json.dumps(row)}" for name, row in zip(names, asked.tolist(), strict=True))
    (out / "test/test_points.csv").write_text("\n".join(["file_name\tpoint_index_list", *rows]) + "\n")
    answers = np.take_along_axis(points, asked[..., None], axis=1).reshape(test, -1)
    header = ",".join(["file_name", *(f"Point_M{k}_{axis}" for k in range(NUM_ASKED) for axis in "XY")])
    rows = (",".join([name, *map(str, row)]) for name, row in zip(names, answers.tolist(), strict=True))
    (out / TRUTH).write_text("\n".join([header, *rows]) + "\n")
    (out / LANDMARKS).write_text(landmarks)  # last: without it, what a stop has left is no contest


def draw_part(folder: Path, part: str, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Draws the photos of a part. Returns their names and (count, 971, 2) whole numbers, as the contest's are."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = partial(draw_and_write, folder, part, seed)
    spawned = multiprocessing.get_context("spawn")  # a fork of a process that has threads can hang
    with ProcessPoolExecutor(os.cpu_count(), spawned) as pool:
        drawn = list(tqdm(pool.map(draw, range(count), chunksize=8), total=count, desc=f"drawing {part}", disable=None))
    names, points = zip(*drawn, strict=True)
    return list(names), np.stack(points)


def draw_and_write(folder: Path, part: str, seed: int, number: int) -> tuple[str, np.ndarray]:
    """One photo, into the folder. Returns its name and its points as whole numbers."""
    cv2.setNumThreads(1)
    photo = draw_photo(seed, PARTS[part], number)
    name = blake2b(f"{seed} {part} {number}".encode(), digest_size=6).hexdigest() + ".jpg"
    encoded = cv2.imencode(".jpg", cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[
        1
    ]
    (folder / name).write_bytes(encoded.tobytes())
    return name, np.rint(photo.points).astype(int)
