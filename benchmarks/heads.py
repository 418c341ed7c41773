"""What a head costs: time and memory of a training step against the linear head's, for a contest of many points.

    python -m benchmarks.heads [--model resnet50] [--points 971] [--size 128] [--batch-size 32] [--gpu]
        [--rounds 7]

Steps (forward, SmoothL1, backward, AdamW) of all heads are timed in turn, several rounds, in one process. Memory is
what a step keeps for its backward pass, counted tensor by tensor, and weights with their gradients and moments.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.results import write_result
from benchmarks.rounds import Ratio
from models import LandmarkNet, build_network
from models.heads import HEADS
from pipeline.recipe import OptimiserOptions
from pipeline.runtime import Runtime
from pipeline.training.optim import build_optimiser

WARM_UP = 3  # rounds: until then a CPU's allocator fetches pages from the system
COPIES = 4  # of the weights: themselves, their gradients and AdamW's two moments


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--points", type=int, default=971)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(arguments)


def main():
    options = parse()
    runtime = Runtime.choose(gpu=options.gpu)
    shape = np.random.default_rng(0).uniform(0.2, 0.8, (options.points, 2)) * options.size
    images = torch.randint(0, 256, (options.batch_size, 3, options.size, options.size), dtype=torch.uint8)
    images = images.to(runtime.device)
    networks = {
        head: build_network(options.model, shape, options.size, head=head).to(runtime.device)
        for head in ("linear", *HEADS)
    }
    steps = {head: Step(network, images, runtime) for head, network in networks.items()}
    seconds: dict[str, list[float]] = {head: [] for head in networks}
    for measured in (*[False] * WARM_UP, *[True] * options.rounds):
        for head, step in steps.items():
            begun = wait(runtime)
            step()
            if measured:
                seconds[head].append(wait(runtime) - begun)
    rows, found = {}, []
    for head, step in steps.items():
        ratios = [one / other for one, other in zip(seconds[head], seconds["linear"], strict=True)]
        if head != "linear":
            found.append(Ratio.of(f"time of a step, {head} head, {options.model}", "linear head", ratios))
        own = step.memory()
        rows[head] = {
            "time of a step": round(statistics.median(ratios), 3),
            "memory of a step, MB": round(own / 1e6),
            "memory of a step": round(own / steps["linear"].memory(), 3),
            "parameters beside the backbone's, millions": round(count(networks[head]) / 1e6, 2),
        }
        print(f"{head:10} {json.dumps(rows[head])}")
    about = {name: getattr(options, name) for name in ("model", "points", "size", "batch_size")}
    write_result("heads", {**about, "precision": runtime.precision, "heads": rows}, ratios=found, gpu=options.gpu)


class Step:
    """A training step of a network on images of noise."""

    def __init__(self, network: LandmarkNet, images: torch.Tensor, runtime: Runtime):
        self.network, self.images, self.runtime = network, images, runtime
        self.optimiser = build_optimiser(network, OptimiserOptions())

    def __call__(self):
        self.optimiser.zero_grad()
        self._loss().backward()
        self.optimiser.step()

    def _loss(self):
        with self.runtime.autocast():
            points = self.network(self.images)
        return torch.nn.functional.smooth_l1_loss(points, self.network.mean_shape.expand_as(points))

    def memory(self) -> int:
        """Bytes that the step keeps until its backward pass, each tensor once, and those of weights in all copies."""
        kept: dict[int, int] = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss = self._loss()  # all that is saved lives until here, so no address is given twice
        weights = {parameter.untyped_storage().data_ptr(): parameter.nbytes for parameter in self.network.parameters()}
        del loss
        return sum(size for address, size in kept.items() if address not in weights) + COPIES * sum(weights.values())


def count(network: LandmarkNet) -> int:
    """Parameters of the head."""
    return sum(parameter.numel() for parameter in network.head.parameters())


def wait(runtime: Runtime) -> float:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
