"""Says what came of a campaign, by test and kind of outcome, where it is more than that of every day."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fuzz.campaign import MANY, OUTCOMES, SEED
from tests.scripts import call

NUM_POINTS = 5
TINY = ["--model", "shufflenet_v2_x0_5", "--weights", "none", "--size", "32", "-b", "16", "--train-share", "0.6"]
TINY += ["--precision", "fp32", "--roi", "whole", "-e", "1", "--deepest-stride", "8"]
TINY += ["--views", '[[], [{"AffineAugmenter": {"scale": 1.08}}], [{"MirrorAugmenter": {"probability": 1}}]]']
PARTNERS = [1, 0, 2, 4, 3]


def pytest_terminal_summary(terminalreporter):
    if MANY and OUTCOMES:
        terminalreporter.write_line(f"\nseed {SEED}")
        for (kind, outcome), count in sorted(OUTCOMES.items()):
            terminalreporter.write_line(f"{kind:40} {outcome:30} {count:7,}")
        terminalreporter.write_line(f"{'all':40} {'':30} {OUTCOMES.total():7,}")


@pytest.fixture(scope="session")
def tiny_contest(tmp_path_factory) -> Path:
    """A contest of 64 photos of noise with five points, two pairs and one on the axis, and 3 of a test."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    shape = np.array([(10, 15), (30, 15), (20, 25), (14, 32), (26, 32)], float)
    for part, count in (("train", 64), ("test", 3)):
        (root / part / "images").mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / part / "images" / f"{part}{index}.png")
    rows = [(shape + rng.normal(scale=2, size=shape.shape)).round(2).ravel().tolist() for _ in range(64)]
    lines = [f"train{index}.png\t" + "\t".join(map(str, row)) for index, row in enumerate(rows)]
    header = "file_name" + "\tx\ty" * NUM_POINTS
    (root / "train/landmarks.csv").write_text("\n".join([header, *lines, ""]))
    lines = [f"test{index}.png\t[0, 3, 4]" for index in range(3)]
    (root / "test/test_points.csv").write_text("\n".join(["file_name\tpoints", *lines, ""]))
    return root


@pytest.fixture(scope="session")
def tiny(tiny_contest, tmp_path_factory) -> Path:
    """A folder with `runs` and `cache` of a tiny network that was trained on the tiny contest and has predicted."""
    folder = tmp_path_factory.mktemp("tiny_runs")
    (folder / "partners.json").write_text(json.dumps(PARTNERS))
    flags = ["-d", tiny_contest, "--cache", folder / "cache", "--flip-indices", folder / "partners.json", *TINY]
    status, _, err = call("hack_train.py", folder, "-n", "x", *flags)
    assert status == 0, err
    status, _, err = call("predict.py", folder)
    assert status == 0, err
    return folder
