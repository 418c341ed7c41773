"""What a step minimises: the loss of each photo in its unit, and which photos of a batch count."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from augment import Key
from augment.warp import on_device
from models import Prediction
from pipeline.checkpoint import check_tensor, load_network
from pipeline.data.loader import Batch
from pipeline.recipe import LossOptions
from pipeline.training.flow import Flow
from pipeline.training.losses import (
    UNIT_POWERS,
    edge_losses,
    nearest_neighbours,
    photo_weights,
    sample_losses,
)
from pipeline.training.trimming import (
    as_many_at_random,
    empty_window,
    no_running_losses,
    remember,
    select_samples,
    slide,
)

RANDOM_TRIM = 1_000_003  # an index in the key that no augmenter of a chain has


class PhotoLosses(NamedTuple):
    """weighted: (B,) in the unit that is minimised. ranks: (B,), detached, in a unit that the photo's size does not
    change, for its own points, whatever it is mixed with."""

    weighted: torch.Tensor
    ranks: torch.Tensor


class Criterion:
    """The losses of the photos of a step, and which of them count.

    Its state: the recent losses that a batch is ranked against, the running mean of each photo's losses, and for
    residual log-likelihood estimation a flow, whose weights the optimiser trains.

    size: of the images in whose pixels points are given. typical_scale: pixels of a photo per pixel of its image, for
    the data set's typical photo. mean_shape: (K, 2), whose neighbours are the ends of edges. batch_size: of a step.
    num_photos: of the pack. sample_weights: (N,) factors for the losses of the photos of the pack, with a mean of 1
    over the training photos, so that the mean over a batch need not be divided by anything else: divided by the
    weights of its batch, a loss would depend on the other photos in it. Photos are ranked without them.
    """

    def __init__(
        self,
        options: LossOptions,
        *,
        size: int,
        typical_scale: float,
        mean_shape: np.ndarray,
        batch_size: int,
        num_photos: int,
        device: torch.device,
        sample_weights: np.ndarray | None = None,
    ):
        self.options, self.size, self.typical_scale, self.device = options, size, typical_scale, device
        self.recent_losses = empty_window(batch_size, device)
        self.running_losses = no_running_losses(num_photos, device)
        self.sample_weights = None if sample_weights is None else on_device(sample_weights, device, np.float32)
        with device:  # a new one in each stage and with --init: best.pt, from which they start, has none
            self.flow = Flow() if options.loss == "rle" else None
        self.edges = torch.from_numpy(nearest_neighbours(mean_shape)).to(device) if options.edge_weight else None

    def measure(self, predicted: Prediction, batch: Batch) -> PhotoLosses:
        """The losses of the photos of a step, or of a part of it."""
        options = self.options
        losses = sample_losses(predicted, batch, options, size=self.size, flow=self.flow)
        weighted = self._weights(batch, UNIT_POWERS.get(options.loss, 0)) * losses
        if self.edges is not None:
            lengths = edge_losses(predicted.points, batch, self.edges, outside_weight=options.outside_weight)
            weighted = weighted + options.edge_weight * self._weights(batch, 1) * lengths
        if self.sample_weights is not None:
            weighted = self.sample_weights[on_device(batch.samples, weighted.device)] * weighted
        return PhotoLosses(weighted, losses.detach())

    def _weights(self, batch, power):
        return photo_weights(batch.scale, unit=self.options.loss_unit, typical_scale=self.typical_scale, power=power)

    def select(self, losses: torch.Tensor, key: Key, *, epoch: float) -> torch.Tensor:
        """(B,) bool: the photos that count. Called once per step, with the losses and the key of all its photos, in
        whichever rank or micro-batch they are.

        key: (seed, epoch, samples), for the random control. epoch: how many are done, with the share of this one.
        """
        options, samples = self.options, on_device(key.samples, losses.device)
        self.recent_losses = slide(self.recent_losses, losses)
        self.running_losses = remember(self.running_losses, samples, losses)
        if not self.trims(epoch):
            return torch.ones_like(losses, dtype=torch.bool)
        window = self.recent_losses
        if options.trim_by == "sample":
            losses, window = self.running_losses[samples], self.running_losses
        top, without = options.top_perc_train, options.without_top_perc_train
        chosen = select_samples(losses, window, top_percent=top, without_top_percent=without)
        if not options.trim_at_random:
            return chosen
        return as_many_at_random(chosen, on_device(key.child(RANDOM_TRIM).uniform(1)[:, 0], losses.device))

    def trims(self, epoch: float) -> bool:
        """Whether some photos may be left out after this many epochs."""
        return self.options.trims and epoch >= self.options.trim_from

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser trains besides the network."""
        return list(self.flow.parameters()) if self.flow else []

    def state_dict(self) -> dict[str, Any]:
        state = {"recent_losses": self.recent_losses, "running_losses": self.running_losses}
        return state | ({"flow": self.flow.state_dict()} if self.flow else {})

    def load_state_dict(self, state: dict[str, Any]):
        """Loads the state. Raises one of checkpoint.DAMAGE if it is that of another criterion."""
        check_tensor(state["recent_losses"], self.recent_losses, "recent_losses", gaps=True)
        self.recent_losses = state["recent_losses"].to(self.device)
        if "running_losses" in state:  # earlier versions had none
            check_tensor(state["running_losses"], self.running_losses, "running_losses", gaps=True)
            self.running_losses = state["running_losses"].to(self.device)
        if self.flow:
            load_network(self.flow, state["flow"])
