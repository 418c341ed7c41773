"""Photos in a GPU's memory beside photos that are sent there batch by batch: python -m benchmarks.resident --gpu

The rate at which batches of squares are there for a training, and the GPU's memory that they take over the bytes that
they have. In turn, in one process.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import write_result
from benchmarks.rounds import Ratio, in_turn, over
from pipeline.data.source import DeviceSource, HostSource, Source
from pipeline.errors import run_script
from pipeline.runtime import choose_device

BATCH = 128


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", required=True)
    parser.add_argument("--photos", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(arguments)


def main():
    options = parse()
    device = choose_device(gpu=True)
    shape = (options.photos, options.size, options.size, 3)
    order = np.random.default_rng(0).permutation(options.photos)
    batches = [order[start : start + BATCH] for start in range(0, options.photos, BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        squares = np.memmap(Path(folder) / "images.u8", np.uint8, "w+", shape=shape)
        before = torch.cuda.memory_allocated()
        resident = DeviceSource.of(squares, device)
        memory = (torch.cuda.memory_allocated() - before) / squares.nbytes
        works = {
            "in the GPU's memory": lambda: take_all(resident, batches),
            "sent": lambda: take_all(HostSource(squares, device), batches),
        }
        found = in_turn(works, rounds=options.rounds)
    rates = over(found["sent"].clock, found["in the GPU's memory"].clock)
    ratios = [
        Ratio.of("memory of photos on the GPU", "their bytes", [memory]),
        Ratio.of("rate of batches in the GPU's memory", "batches that are sent", rates),
    ]
    write_result("resident", {"photos": options.photos, "size": options.size}, ratios=ratios, gpu=True)


def take_all(source: Source, batches: list[np.ndarray]):
    for batch in batches:
        source.take(batch)
    torch.cuda.synchronize()


if __name__ == "__main__":
    run_script(main)
