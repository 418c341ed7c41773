"""What K views cost, over K forward passes, beside ttach with the same flips: python -m benchmarks.views

Both are given the same network and the same photos in memory. Ours takes each view out of the larger squares that a
pack keeps around its ROI, predicts, brings points home and merges them; ttach is given the ROIs, flips, predicts,
flips keypoints back (without swapping left and right) and averages. In turn, in one process.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
import ttach

from augment import RegionOfInterest
from benchmarks.results import write_result
from benchmarks.rounds import Ratio, in_turn, over
from models import build_network
from pipeline.data.pack import Squares
from pipeline.inference.merge import merge
from pipeline.inference.predict import predict_views
from pipeline.inference.tta import parse_views
from pipeline.recipe import VIEWS
from pipeline.runtime import Runtime

MODEL, SIZE, BATCH, NUM_POINTS = "resnet18", 128, 64, 971
ROI = RegionOfInterest(square=160, left=16, top=16, size=SIZE)
MIRROR = [{"MirrorAugmenter": {"probability": 1}}]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(arguments)


def works_on(runtime: Runtime) -> dict[str, Callable[[], None]]:
    """Predictions through views of the same photos by the same network, ours and ttach's, and bare forward passes."""
    rng = np.random.default_rng(0)
    num_photos = BATCH * (16 if runtime.device.type == "cuda" else 2)
    squares = rng.integers(0, 256, (num_photos, ROI.square, ROI.square, 3), dtype=np.uint8)
    names = np.arange(num_photos).astype(str)
    pack = Squares(squares, np.tile(ROI.matrix, (num_photos, 1, 1)), ROI, names)
    network = build_network(MODEL, rng.uniform(0, SIZE, (NUM_POINTS, 2)), SIZE).to(runtime.device).eval()
    images = torch.from_numpy(ROI.cut(squares).copy()).permute(0, 3, 1, 2)
    partners = np.arange(NUM_POINTS)

    def passes(count):
        """`count` forward passes over the photos, and nothing else."""
        for start in range(0, num_photos, BATCH):
            batch = images[start : start + BATCH].to(runtime.device)
            for _ in range(count):
                with runtime.autocast():
                    network(batch).cpu()

    def ours(views):
        for found in predict_views(
            network, pack, np.arange(num_photos), views, partners, runtime=runtime, batch_size=BATCH
        ):
            merge(found.points, np.ones(len(views)), found.counts)

    class Flat(torch.nn.Module):
        """The network as ttach wants it: (B, 2 K) keypoints as shares of the image."""

        def forward(self, batch):
            with runtime.autocast():
                return (network(batch) / SIZE).flatten(1)

    wrapped = ttach.KeypointsTTAWrapper(Flat(), ttach.Compose([ttach.HorizontalFlip()]), scaled=True)

    def ttachs():
        for start in range(0, num_photos, BATCH):
            wrapped(images[start : start + BATCH].to(runtime.device)).cpu()

    flips = parse_views([[], MIRROR], size=SIZE, mirroring=True, source="views")
    all_views = parse_views(VIEWS, size=SIZE, mirroring=True, source="views")
    return {
        "2 passes": lambda: passes(2),
        "ours, 2 views": lambda: ours(flips),
        "ttach, 2 views": ttachs,
        f"{len(VIEWS)} passes": lambda: passes(len(VIEWS)),
        f"ours, {len(VIEWS)} views": lambda: ours(all_views),
    }


@torch.no_grad()
def main():
    options = parse()
    runtime = Runtime.choose(gpu=options.gpu)
    found = in_turn(works_on(runtime), rounds=options.rounds)
    ratios = []
    for name, times in found.items():
        reference = "2 passes" if "2" in name else f"{len(VIEWS)} passes"
        if name != reference:
            ratios.append(Ratio.of(f"time of {name}", reference, over(times.clock, found[reference].clock)))
    write_result(
        "views",
        {
            "network": f"{MODEL} at {SIZE} px, {runtime.precision}, batches of {BATCH}, {NUM_POINTS} points",
            "time over that of the forward passes": {ratio.name: ratio.ratio for ratio in ratios},
        },
        ratios=ratios,
        gpu=runtime.device.type == "cuda",
    )


if __name__ == "__main__":
    main()
