"""The gradient of a batch, at once or accumulated from parts of it to save memory.

Parts sum to the whole: the photos that count, and the number that the sum is divided by, are those of the whole batch,
so that a shorter last part has no more weight than its photos. Normalisation layers that are trained see one part only.

The same holds for ranks, each of which computes a part of the batch and then has the gradient of all of it. torch's
DistributedDataParallel would average where this has to sum, wants every weight to have a gradient, and follows one
forward pass of the network, while a loss may have weights of its own and a trimmed one passes twice. So the gradients
are summed after the backward pass, not during it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from augment import Key
from models import LandmarkNet
from pipeline.blocks import parts
from pipeline.data.mixup import Mixed
from pipeline.runtime import Runtime
from pipeline.training.criterion import Criterion, PhotoLosses
from pipeline.training.losses import squared_errors
from pipeline.training.norms import own_statistics
from pipeline.training.trimming import mean_of_selected


class Gradient:
    """Adds the gradient of a batch to that of the parameters, computed in this many parts on each rank."""

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
        """(1 + B,) the loss, and the squared error of each photo. mixed: this rank's photos of the batch. key: of the
        whole batch. epoch: how many are done. With several ranks, no parameter may have a gradient before."""
        num_parts = min(self.num_parts, len(key.samples) // self.runtime.ranks.num_ranks)
        if num_parts > 1:  # the same on all ranks, which wait for each other in norms of all photos
            micro = [(mixed.part(rows), rows) for rows in parts(len(mixed.batch.samples), num_parts)]
            measured = self._add_parts(micro, key, epoch, scaler)
        else:
            losses, errors = self._measure(mixed)
            kept, num_kept = self._select(losses.ranks, key, epoch)
            total = mean_of_selected(losses.weighted, kept, losses.ranks, num_kept=num_kept)
            scaler.scale(total).backward()
            measured = torch.cat((total.detach()[None], errors))
        return self._sum_over_ranks(measured, len(key.samples))

    def _add_parts(self, micro, key, epoch, scaler):
        trims = self.criterion.trims(epoch)
        if trims:  # which photos count depends on the losses of all, before the first gradient
            with torch.no_grad(), _without_side_effects(self.network):
                beforehand = torch.cat([self._measure(part)[0].ranks for part, _ in micro])
            kept, num_kept = self._select(beforehand, key, epoch)
        else:
            kept = torch.ones(micro[-1][1].stop, dtype=torch.bool, device=self.runtime.device)
            num_kept = torch.as_tensor(len(key.samples))
        totals, ranks, errors = [], [], []
        for part, rows in micro:
            losses, squares = self._measure(part)
            share = mean_of_selected(losses.weighted, kept[rows], losses.ranks, num_kept=num_kept)
            scaler.scale(share).backward()
            totals.append(share.detach())
            ranks.append(losses.ranks)
            errors.append(squares)
        if not trims:
            self._select(torch.cat(ranks), key, epoch)  # all count, and their losses are remembered
        return torch.cat((torch.stack(totals).sum()[None], *errors))

    def _select(self, own, key, epoch):
        """(B,) bool: which of this rank's photos count, by its losses and those of the other ranks, and () how many of
        all photos count."""
        ranks, count = self.runtime.ranks, len(key.samples)
        rows = ranks.part(count)
        kept = self.criterion.select(ranks.gather_rows(own, rows, count), key, epoch=epoch)
        return kept[rows], kept.sum()

    def _sum_over_ranks(self, measured, count):
        """What all ranks have measured; also sums their gradients and averages their statistics of norms."""
        ranks = self.runtime.ranks
        if ranks.num_ranks == 1:
            return measured
        own = ranks.part(count)
        found = measured.new_zeros(1 + count)
        found[0] = measured[0]
        found[1:][own] = measured[1:]
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        statistics = own_statistics(self.network)
        for statistic in statistics:
            statistic.div_(ranks.num_ranks)
        ranks.all_reduce([found, *statistics, *(each.grad for each in parameters if each.grad is not None)])
        return found

    def _measure(self, mixed: Mixed) -> tuple[PhotoLosses, torch.Tensor]:
        """The losses of the photos, and (B,) their squared errors."""
        mixed = mixed.as_shown(self.network.shift)
        with self.runtime.autocast():
            predicted = self.network.predict(mixed.batch.images)
        losses = self.criterion.measure(predicted, mixed.batch)
        if mixed.other is not None:
            others = self.criterion.measure(predicted, mixed.other)
            losses = PhotoLosses(mixed.blend(losses.weighted, others.weighted), losses.ranks)
        return losses, squared_errors(predicted.points, mixed.batch).detach()


@contextmanager
def _without_side_effects(network: LandmarkNet) -> Iterator[None]:
    """What passes through the network inside changes neither statistics of norms nor random numbers."""
    kept = [buffer.clone() for buffer in network.buffers()]
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    for buffer, before in zip(network.buffers(), kept, strict=True):
        buffer.copy_(before)
