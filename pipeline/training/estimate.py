"""What a training will need, printed before it starts, and what it has needed, printed after it."""

import copy
import math
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from models import LandmarkNet
from pipeline.progress import format_seconds
from pipeline.runtime import Runtime
from pipeline.training.optim import state_like
from pipeline.training.trainer import Trainer

COPIES = 3  # of the weights during training, beside what the optimiser keeps: weights, gradients, and the average
SAVED_COPIES = 3  # on the disk, likewise: best.pt has one, last.pt all but the gradients


@dataclass(frozen=True)
class Cost:
    """num_parameters: of the network. flops: operations of the prediction of one photo, counting a multiply-add as two.
    Bytes that a step keeps: fixed, beside the weights, and for each photo of a batch."""

    num_parameters: int
    flops: int
    fixed: int
    per_photo: int

    def step_bytes(self, batch_size: int, *, moments: int) -> int:
        """What a step keeps until its gradient is computed, without what layers need only in passing. moments: how many
        numbers the optimiser keeps."""
        return 4 * (COPIES * self.num_parameters + moments) + self.fixed + batch_size * self.per_photo

    def checkpoint_bytes(self, *, keep_best: int, moments: int) -> int:
        """The disk space of best.pt, last.pt and the weights of this many best epochs."""
        return 4 * ((SAVED_COPIES + keep_best) * self.num_parameters + moments)


def network_cost(network: LandmarkNet, *, size: int, runtime: Runtime) -> Cost:
    """The cost of images of `size` pixels, measured on two of them. The network and the state of the random numbers are
    left as they are."""
    probe = copy.deepcopy(network).eval().requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        one = _saved_bytes(probe, 1, size, runtime)
    per_photo = _saved_bytes(probe, 2, size, runtime) - one
    num_parameters = sum(parameter.numel() for parameter in probe.parameters())
    return Cost(num_parameters, counter.get_total_flops(), max(one - per_photo, 0), per_photo)


def _saved_bytes(network, batch_size, size, runtime):
    """Bytes that are kept for the gradient, besides the weights."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    saved: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would refer to the graph that refers to it, and stay for good

    images = torch.zeros(batch_size, 3, size, size, dtype=torch.uint8, device=runtime.device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), runtime.autocast():
        predicted = network.predict(images)  # it keeps alive what is saved, so that no storage is counted for another
    assert predicted.points.requires_grad
    return sum(saved.values())


def num_moments(optimiser: torch.optim.Optimizer) -> int:
    """How many numbers an optimiser keeps once it has moved all its parameters."""
    moved = [(group, parameter) for group in optimiser.param_groups for parameter in group["params"]]
    return sum(kept.numel() for group, parameter in moved for kept in state_like(optimiser, group, parameter).values())


def print_estimate(trainer: Trainer):
    """Prints what the training will need. How long it takes is printed once some steps have been timed."""
    recipe, pack, runtime = trainer.recipe, trainer.data.pack, trainer.runtime
    cost = network_cost(trainer.average.network, size=recipe.photos.size, runtime=runtime)
    options, moments = recipe.optimiser, num_moments(trainer.optimiser)
    at_once = math.ceil(options.batch_size / (options.accumulate * runtime.ranks.num_ranks))
    runtime.print(
        f"             {amount(cost.num_parameters)} parameters, {amount(cost.flops)}FLOPs a photo;"
        f" a step takes about {amount(cost.step_bytes(at_once, moments=moments))}B, of {at_once:,} photos at once"
    )
    runtime.print(
        f"disk         photos {amount(folder_bytes(pack.folder))}B in {pack.folder.parent},"
        f" checkpoints about {amount(cost.checkpoint_bytes(keep_best=options.keep_best, moments=moments))}B"
    )


def print_account(trainer: Trainer, folder: Path):
    """Prints what this sitting has needed: time, photos, memory; and the disk space of the run."""
    seconds, runtime = trainer.phases.seconds, trainer.runtime
    if not (trained := seconds.get("training")):
        return
    waited = 100 * seconds.get("waiting for photos", 0) / trained
    others = [name for name in seconds if name not in ("training", "waiting for photos")]
    parts = [f"training {format_seconds(trained)} ({waited:.0f} % waiting for photos)"]
    parts += [f"{name} {format_seconds(seconds[name])}" for name in others]
    runtime.print(f"time         {', '.join(parts)}")
    runtime.print(f"speed        {trainer.sitting.num_seen / trained:.0f} photos a second while training")
    memory = [f"{amount(peak_bytes())}B at most"]
    if runtime.device.type == "cuda":
        memory.append(f"{amount(torch.cuda.max_memory_allocated())}B of the GPU")
    runtime.print(f"memory       {', '.join(memory)}; on the disk {amount(folder_bytes(folder))}B")


def peak_bytes() -> int:
    """The peak memory of this process, mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def folder_bytes(folder: Path) -> int:
    return sum(os.path.getsize(path) for path in folder.rglob("*") if path.is_file())


def amount(count: float) -> str:
    """Such as 1.23G."""
    return tqdm.format_sizeof(count)
