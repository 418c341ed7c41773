"""Where the time of a training step goes on the CPU:

    python -m benchmarks.profiling --data PATH [flags of hack_train.py]

Some steps of configs/from_scratch.yaml as trained, at its full size, under torch's profiler: shares of the processor
time by kind of operation. What the profiler does not see is the thread that reads, draws and warps; the processor time
of the same batches alone is set beside the whole. Drawn into readme_img/profile.svg.
"""

import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from torch.profiler import ProfilerActivity, profile

from benchmarks.results import write_result
from pipeline.command import Command, parse_command
from pipeline.data.dataset import load_training_data
from pipeline.data.loader import parse_chain, training_batches
from pipeline.networks import make_network
from pipeline.runtime import Runtime
from pipeline.training.trainer import Trainer

PICTURE = Path(__file__).parents[1] / "readme_img/profile.svg"
STEPS = 20
DATA = "reading, drawing and warping photos"
# The first whose word is in the operation's name takes it.
KINDS = {
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("convolution",),
    "batch normalisation": ("batch_norm",),
    "matrix products": ("addmm", "::mm", "::bmm", "linear"),
    "optimiser, clipping and average": ("_foreach", "_fused", "adam", "lerp"),
    "activations, pooling and scaling of maps": ("relu", "threshold", "pool", "upsample", "interpolate"),
    "softmax of the head": ("softmax",),
    "copies and conversions": ("copy_", "_to_copy", "clone", "contiguous", "cat"),
}
OTHERS = "everything else"


def parse(arguments: list[str]) -> Command:
    """The command of a training by the recipe, all of it at its full size."""
    steps = ["--weights", "none", "--epochs", "1000", "--steps-per-epoch", str(STEPS), "--progressive", "[]"]
    return parse_command(["--config", "configs/from_scratch.yaml", *arguments, *steps])


def main():
    recipe = parse(sys.argv[1:]).recipe
    runtime = Runtime.choose(gpu=False, precision=recipe.network.precision)
    data = load_training_data(recipe)
    trainer = Trainer(make_network(recipe, None, mean_shape=data.mean_shape), recipe, data, runtime, callbacks=[])
    chain = parse_chain(recipe)

    def train():
        trainer.state.epoch += 1
        trainer.state.batch = 0
        trainer.train_epoch(chain)

    def make_batches():
        order = trainer.order.of_pass(0)[:STEPS]
        for _ in training_batches(data.pack, trainer.source, order, chain, data.flip_indices, seed=0, epoch=0):
            pass

    train(), make_batches()
    whole, batches = seconds(train), seconds(make_batches)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train()
    shares = shares_of(profiler.key_averages(), batches / whole)
    for kind, share in shares.items():
        print(f"{kind:44}{share:7.1%}")
    draw(shares)
    about = f"{recipe.network.model} at {recipe.photos.size} px, batches of {recipe.optimiser.batch_size}"
    about += f", {data.num_points} points, {runtime.precision}"
    write_result("profile", {"steps": about, "shares of processor time": shares})


def seconds(work) -> float:
    """Processor time."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def shares_of(events: Any, share_of_data: float) -> dict[str, float]:
    """The share of each kind, the largest first; operations share what the batches leave."""
    totals = dict.fromkeys([*KINDS, OTHERS], 0.0)
    for event in events:
        totals[kind_of(event.key)] += event.self_cpu_time_total
    whole = sum(totals.values())
    shares = {kind: round((1 - share_of_data) * total / whole, 4) for kind, total in totals.items()}
    return dict(sorted((shares | {DATA: round(share_of_data, 4)}).items(), key=lambda item: -item[1]))


def kind_of(operation: str) -> str:
    name = operation.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), OTHERS)


def draw(shares: dict[str, float]):
    plt.rcParams.update({"svg.hashsalt": "profile", "font.size": 9})
    figure, axis = plt.subplots(figsize=(7.5, 3), layout="constrained")
    kinds = list(shares)[::-1]
    colours = ["#d98e04" if kind == DATA else "#1f6f8b" for kind in kinds]
    bars = axis.barh(kinds, [100 * shares[kind] for kind in kinds], color=colours)
    axis.bar_label(bars, fmt="%.1f %%", padding=3)
    axis.set(xlabel="processor time of a training step, %", xlim=(0, 112 * max(shares.values())))
    axis.spines[["top", "right"]].set_visible(False)
    metadata: dict[str, Any] = {"Date": None}
    figure.savefig(PICTURE, metadata=metadata)
    print(PICTURE)


if __name__ == "__main__":
    main()
