"""Prediction by torch and by ONNX Runtime on the CPU, side by side: python -m benchmarks.backends

Networks of random weights, in batches as predict.py uses; the rate is that of the networks alone. In turn, in one
process, with one number of threads; a ratio is of the time by the clock, and of the processor's.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import write_result
from benchmarks.rounds import Ratio, in_turn, over
from models import build_network
from pipeline.inference.onnx_network import check_installed, through_onnx
from pipeline.inference.options import PredictOptions
from pipeline.runtime import Runtime

NETWORKS = ("resnet18:96", "resnet50:128")
NUM_POINTS = 971
BATCH = PredictOptions().batch_size
REFERENCE = "torch, fp32"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="MODEL:SIZE")
    parser.add_argument("--rounds", type=int, default=11)
    return parser.parse_args(arguments)


@torch.no_grad()
def main():
    options = parse()
    check_installed()
    ratios = [ratio for network in options.networks for ratio in compare(*network.split(":"), rounds=options.rounds)]
    write_result(
        "backends", {"batch": BATCH, "points": NUM_POINTS, "head": "linear"}, ratios=ratios, peers=("onnxruntime",)
    )


def compare(model: str, size: str, *, rounds: int) -> list[Ratio]:
    """Rates over that of torch in float32."""
    side = int(size)
    rng = np.random.default_rng(0)
    network = build_network(model, rng.uniform(0, side, (NUM_POINTS, 2)), side).eval()
    images = torch.from_numpy(rng.integers(0, 256, (BATCH, 3, side, side), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as cache:
        onnx = through_onnx(network, size=side, cache=Path(cache), key=("benchmark",))

    def by_torch(precision):
        with Runtime(torch.device("cpu"), precision).autocast():
            network.predict(images)

    works = {
        REFERENCE: lambda: by_torch("fp32"),
        "torch, bf16": lambda: by_torch("bf16"),
        "ONNX Runtime, fp32": lambda: onnx.predict(images),
    }
    found = in_turn(works, rounds=rounds)
    ratios = []
    for name, times in found.items():
        if name == REFERENCE:
            continue
        what = f"{name}, {model} at {side} px"
        for kind in ("clock", "processor"):
            rates = over(getattr(found[REFERENCE], kind), getattr(times, kind))
            ratios.append(Ratio.of(f"rate of {what}, by the {kind}", REFERENCE, rates))
    return ratios


if __name__ == "__main__":
    main()
