"""How cost grows with points, image size, views and photos: python -m benchmarks.growth

Processor time, in turn, in one process, over that of each curve's first entry; the median of rounds. Points and size: a
training step of a ResNet18. Views: its prediction of a batch. Photos: reading, drawing and warping batches in the order
of an epoch from a mapped file, which is as large as a pack and has nothing but zeros in it, so that no disk is read.
The curves are drawn into readme_img/growth.svg.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import FixedLocator, NullLocator

from augment import RegionOfInterest, parse_augmenters
from benchmarks.heads import Step
from benchmarks.results import write_result
from benchmarks.rounds import Ratio, Work, in_turn, over
from models import build_network
from pipeline.data.loader import epoch_order, training_batches
from pipeline.data.pack import Pack, Squares
from pipeline.data.source import HostSource
from pipeline.inference.predict import predict_views
from pipeline.inference.tta import parse_views
from pipeline.recipe import VIEWS, Recipe
from pipeline.runtime import Runtime

PICTURE = Path(__file__).parents[1] / "readme_img/growth.svg"
MODEL, SIZE, BATCH, NUM_POINTS = "resnet18", 96, 16, 68
HEAD = Recipe().network.head
POINTS = (68, 250, 971, 2000)
SIZES = (64, 96, 128, 160)
VIEW_COUNTS = (1, 2, 4, 8)
PHOTOS = (4_000, 40_000, 400_000)
SMALL = RegionOfInterest(square=32, left=0, top=0, size=32)
NUM_BATCHES = 20


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(arguments)


def main():
    options = parse()
    runtime = Runtime.choose(gpu=False)
    with tempfile.TemporaryDirectory() as folder:
        curves = {
            "points": {count: step(runtime, num_points=count) for count in POINTS},
            "size": {size: step(runtime, size=size) for size in SIZES},
            "views": views(runtime),
            "photos": {count: batches(Path(folder), count) for count in PHOTOS},
        }
        found = {what: grown(what, works, rounds=options.rounds) for what, works in curves.items()}
    draw(found)
    about = f"{MODEL} with the {HEAD} head at {SIZE} px and {NUM_POINTS} points where they are not the curve's, "
    about += runtime.precision
    ratios = [ratio for one in found.values() for ratio in one.values()]
    write_result("growth", {"network": about}, ratios=ratios)


def grown(what: str, works: dict[int, Work], *, rounds: int) -> dict[int, Ratio]:
    """The processor time of each entry over the first's."""
    times = in_turn({str(count): work for count, work in works.items()}, rounds=rounds)
    first = min(works)
    return {
        count: Ratio.of(
            f"time for {what}: {count:,}",
            f"{what}: {first:,}",
            over(times[str(count)].processor, times[str(first)].processor),
        )
        for count in works
    }


def step(runtime: Runtime, *, num_points: int = NUM_POINTS, size: int = SIZE) -> Work:
    shape = np.random.default_rng(0).uniform(0.2, 0.8, (num_points, 2)) * size
    images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    return Step(build_network(MODEL, shape, size, head=HEAD), images, runtime)


def views(runtime: Runtime) -> dict[int, Work]:
    """Predictions through so many of the default views."""
    roi = RegionOfInterest(square=SIZE + 24, left=12, top=12, size=SIZE)
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (BATCH, roi.square, roi.square, 3), dtype=np.uint8)
    pack = Squares(squares, np.tile(roi.matrix, (BATCH, 1, 1)), roi, np.arange(BATCH).astype(str))
    network = build_network(MODEL, rng.uniform(0, SIZE, (NUM_POINTS, 2)), SIZE, head=HEAD).eval()
    parsed = parse_views(VIEWS, size=SIZE, mirroring=True, source="views")

    def predict(count):
        list(predict_views(network, pack, np.arange(BATCH), parsed[:count], np.arange(NUM_POINTS), runtime=runtime))

    return {count: partial(predict, count) for count in VIEW_COUNTS}


def batches(folder: Path, num_photos: int) -> Work:
    """Some batches of an epoch of so many photos."""
    shape = (num_photos, SMALL.square, SMALL.square, 3)
    squares = np.memmap(folder / f"{num_photos}.u8", np.uint8, "w+", shape=shape)
    values = np.random.default_rng(0).uniform(0, 32, (1, NUM_POINTS, 2)).repeat(num_photos, axis=0)
    matrices = np.tile(np.eye(3), (num_photos, 1, 1))
    pack = cast(Pack, SimpleNamespace(photo_to_image=matrices, values=values, roi=SMALL))
    source, chain = HostSource(squares, torch.device("cpu")), parse_augmenters(Recipe().augmentation.augment)
    order = epoch_order(np.arange(num_photos), seed=0, epoch=0, batch_size=BATCH)[:NUM_BATCHES]

    def take():
        for _ in training_batches(pack, source, order, chain, np.arange(NUM_POINTS), seed=0, epoch=0):
            pass

    return take


def draw(found: dict[str, dict[int, Ratio]]):
    """One small picture for each curve, with a line of proportional growth."""
    plt.rcParams.update({"svg.hashsalt": "growth", "font.size": 9})
    figure, axes = plt.subplots(1, len(found), figsize=(11, 2.9), layout="constrained")
    titles = {
        "points": "points (training step)",
        "size": "side of the image, px (training step)",
        "views": "views (prediction)",
        "photos": "photos (a batch, without disk)",
    }
    for axis, (what, ratios) in zip(np.ravel(axes), found.items(), strict=True):
        counts = sorted(ratios)
        middle, low, high = (np.array([getattr(ratios[n], kind) for n in counts]) for kind in ("ratio", "low", "high"))
        axis.errorbar(counts, middle, [middle - low, high - middle], fmt="o-", color="#1f6f8b", capsize=3)
        power = 2 if what == "size" else 1
        axis.plot(counts, [(n / counts[0]) ** power for n in counts], "--", color="#aaaaaa", zorder=0)
        axis.set(xscale="log", yscale="log", title=titles[what], ylim=(0.5, max(3, 1.3 * float(high.max()))))
        axis.xaxis.set_major_locator(FixedLocator(counts))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([f"{n // 1000}k" if n >= 4000 else f"{n}" for n in counts])
        ticks = [tick for tick in (0.5, 1, 2, 4, 8, 16) if tick < axis.get_ylim()[1]]
        axis.yaxis.set_major_locator(FixedLocator(ticks))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_yticklabels([f"{tick:g}" for tick in ticks])
        axis.grid(alpha=0.3)
    np.ravel(axes)[0].set_ylabel("processor time, first = 1")
    metadata: dict[str, Any] = {"Date": None}
    figure.savefig(PICTURE, metadata=metadata)
    print(PICTURE)


if __name__ == "__main__":
    main()
