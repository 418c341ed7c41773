"""A contest of drawn bodies in any pose, for no recipe to be chosen on faces alone: 14 joints, a fifth of them missing.

    python -m benchmarks.poses OUT --photos 1500
    python -m benchmarks.ablations --study poses --data OUT

Each body is a chain of limbs of random lengths and angles, turned by up to 60 degrees, in front of other shapes. Eyes
on the head tell its left side from its right.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

SIDE = 160  # pixels of a photo
MISSING = 0.2
JOINTS = (
    "head", "neck", "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
    "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip
LIMBS = ((2, 4), (4, 6), (3, 5), (5, 7), (8, 10), (10, 12), (9, 11), (11, 13))


def body(rng: np.random.Generator) -> np.ndarray:
    """(14, 2) joints of a body of height 1 around its middle, before it is turned; angles are against straight down."""
    points = np.zeros((14, 2))
    shoulder, hip, torso = rng.uniform(0.09, 0.13), rng.uniform(0.06, 0.09), rng.uniform(0.28, 0.33)
    points[1] = 0, -torso / 2
    points[0] = points[1] + (rng.normal(0, 0.02), -rng.uniform(0.11, 0.15))
    for side, sign in ((0, 1), (1, -1)):  # the body's left is on the photo's right
        points[2 + side] = sign * shoulder, -torso / 2 + 0.02
        points[8 + side] = sign * hip, torso / 2
        for first, length, spread in ((2 + side, 0.17, 1.2), (8 + side, 0.23, 0.6)):
            upper = sign * abs(rng.normal(0.3, spread))
            lower = upper + sign * rng.uniform(-1.5, 0.8)
            at = points[first]
            for step, angle in ((2, upper), (4, lower)):
                at = at + length * rng.uniform(0.85, 1.15) * np.array([np.sin(angle), np.cos(angle)])
                points[first + step] = at
    return points


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A photo and the joints in its pixels."""
    angle, scale = np.radians(rng.uniform(-60, 60)), SIDE * rng.uniform(0.6, 0.8)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = scale * body(rng) @ turn.T + SIDE / 2 + rng.uniform(-0.06, 0.06, 2) * SIDE
    photo = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):  # what stands behind
        start, end = (tuple(int(value) for value in rng.integers(0, SIDE, 2)) for _ in range(2))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.line(photo, start, end, colour, int(rng.integers(2, 12)), cv2.LINE_AA)
    skin, shirt, trousers = (tuple(int(value) for value in rng.integers(30, 226, 3)) for _ in range(3))
    pixels = [tuple(round(value) for value in point) for point in points]
    width = round(0.055 * scale)
    cv2.fillConvexPoly(photo, np.array([pixels[i] for i in (2, 3, 9, 8)]), shirt, cv2.LINE_AA)
    for first, second in LIMBS:
        colour = trousers if first >= 8 else shirt if first < 4 else skin
        cv2.line(photo, pixels[first], pixels[second], colour, width, cv2.LINE_AA)
    cv2.circle(photo, pixels[0], round(0.07 * scale), skin, -1, cv2.LINE_AA)
    for sign in (-1, 1):
        eye = points[0] + scale * turn @ (0.028 * sign, -0.015)
        cv2.circle(photo, (round(eye[0]), round(eye[1])), max(1, round(0.012 * scale)), (20, 20, 20), -1, cv2.LINE_AA)
    noisy = photo + rng.normal(0, 6, photo.shape)
    return noisy.clip(0, 255).astype(np.uint8), points


def write_contest(folder: Path, *, photos: int, seed: int = 0):
    """The contest's layout, of training photos alone; a missing joint is an empty cell."""
    images = folder / "train/images"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    header = ["file_name", *(f"Point_M{i}_{axis}" for i in range(len(JOINTS)) for axis in "XY")]
    lines = ["\t".join(header)]
    for number in tqdm(range(photos), desc="drawing bodies", disable=None):
        photo, points = draw(rng)
        cells = [f"{x:.0f}\t{y:.0f}" if rng.random() > MISSING else "\t" for x, y in points]
        name = f"{number:05}.jpg"
        cv2.imwrite(str(images / name), photo)
        lines.append("\t".join([name, *cells]))
    (folder / "train/landmarks.csv").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=int, default=1500)
    options = parser.parse_args()
    write_contest(options.out, photos=options.photos)


if __name__ == "__main__":
    main()
