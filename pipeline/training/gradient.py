"""The gradient of a batch, at once or accumulated from parts of it to save memory.

Parts sum to the whole: the photos that count, and the number that the sum is divided by, are those of the whole batch,
so that a shorter last part has no more weight than its photos. Normalisation layers that are trained see a part alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from augment import Key
from models import LandmarkNet
from pipeline.data.mixup import Mixed
from pipeline.runtime import Runtime
from pipeline.training.criterion import Criterion, PhotoLosses
from pipeline.training.losses import squared_errors
from pipeline.training.trimming import mean_of_selected


class Gradient:
    """Adds the gradient of a batch to that of the parameters, computed in so many parts."""

    def __init__(
        self,
        network: LandmarkNet,
        criterion: Criterion,
        *,
        runtime: Runtime,
        num_parts: int,
    ):
        self.network, self.criterion, self.runtime, self.num_parts = network, criterion, runtime, num_parts

    def add(self, mixed: Mixed, key: Key, *, epoch: float, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """(1 + B,) the loss, and the squared error of each photo. key: of the batch. epoch: how many are done."""
        rows = _rows(len(key.samples), self.num_parts)
        if len(rows) > 1:
            return self._add_parts([(mixed.part(each), each) for each in rows], key, epoch, scaler)
        predicted, losses = self._measure(mixed)
        kept = self.criterion.select(losses.ranks, key, epoch=epoch)
        total = mean_of_selected(losses.weighted, kept, losses.ranks)
        scaler.scale(total).backward()
        return torch.cat((total.detach()[None], squared_errors(predicted, mixed.batch)))

    def _add_parts(self, parts, key, epoch, scaler):
        kept = None
        if self.criterion.trims(epoch):  # which photos count depends on the losses of all, before the first gradient
            with torch.no_grad(), _undone(self.network):
                beforehand = torch.cat([self._measure(part)[1].ranks for part, _ in parts])
            kept = self.criterion.select(beforehand, key, epoch=epoch)
        totals, ranks, errors = [], [], []
        for part, rows in parts:
            predicted, losses = self._measure(part)
            counts = torch.ones_like(losses.ranks, dtype=torch.bool) if kept is None else kept[rows]
            num_kept = torch.as_tensor(len(key.samples)) if kept is None else kept.sum()
            share = mean_of_selected(losses.weighted, counts, losses.ranks, num_kept=num_kept)
            scaler.scale(share).backward()
            totals.append(share.detach())
            ranks.append(losses.ranks)
            errors.append(squared_errors(predicted, part.batch))
        if kept is None:
            self.criterion.select(torch.cat(ranks), key, epoch=epoch)  # all count, and their losses are remembered
        return torch.cat((torch.stack(totals).sum()[None], *errors))

    def _measure(self, mixed: Mixed) -> tuple[torch.Tensor, PhotoLosses]:
        """(B, K, 2) predicted points, detached, and the losses of the photos."""
        with self.runtime.autocast():
            predicted = self.network.predict(mixed.batch.images)
        losses = self.criterion.measure(predicted, mixed.batch)
        if mixed.other is not None:
            others = self.criterion.measure(predicted, mixed.other)
            losses = PhotoLosses(*(mixed.blend(*pair) for pair in zip(losses, others, strict=True)))
        return predicted.points.detach(), losses


def _rows(count: int, num_parts: int) -> list[slice]:
    """Slices of the rows of a batch, in order, of sizes that differ by one at most."""
    num_parts = min(num_parts, count)
    ends = [count * part // num_parts for part in range(num_parts + 1)]
    return [slice(begin, end) for begin, end in pairwise(ends)]


@contextmanager
def _undone(network: LandmarkNet) -> Iterator[None]:
    """What passes through the network leaves neither statistics of norms nor random numbers changed."""
    kept = [buffer.clone() for buffer in network.buffers()]
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    for buffer, before in zip(network.buffers(), kept, strict=True):
        buffer.copy_(before)
