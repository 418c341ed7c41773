"""What a step minimises: the loss of each photo in its unit, and which photos of a batch count."""

from typing import Any

import torch

from augment import Key
from augment.warp import on_device
from models import Prediction
from pipeline.checkpoint import check_tensor
from pipeline.data.loader import Batch
from pipeline.recipe import LossOptions
from pipeline.training.losses import (
    as_many_at_random,
    empty_window,
    mean_of_selected,
    photo_weights,
    sample_losses,
    select_samples,
    slide,
)

RANDOM_TRIM = 1_000_003  # a place in the key that no augmenter of a chain has


class Criterion:
    """The mean loss of the photos of a batch that count. Its state: the recent losses that a batch is ranked against.

    typical_scale: pixels of a photo per pixel of its image, of the data set's typical photo.
    """

    def __init__(self, options: LossOptions, *, typical_scale: float, batch_size: int, device: torch.device):
        self.options, self.typical_scale, self.device = options, typical_scale, device
        self.recent_losses = empty_window(batch_size, device)

    def __call__(self, predicted: Prediction, batch: Batch, key: Key) -> torch.Tensor:
        """() the loss of what was predicted. key: (seed, epoch, samples), for the random control."""
        options = self.options
        losses = sample_losses(predicted.points, batch, beta=options.beta, outside_weight=options.outside_weight)
        weights = photo_weights(batch.scale, unit=options.loss_unit, typical_scale=self.typical_scale)
        self.recent_losses = slide(self.recent_losses, losses)
        return mean_of_selected(weights * losses, self._select(losses, key), losses)

    def _select(self, losses, key):
        """(B,) bool: the photos that count."""
        top, without = self.options.top_perc_train, self.options.without_top_perc_train
        chosen = select_samples(losses, self.recent_losses, top_percent=top, without_top_percent=without)
        if not self.options.trim_at_random:
            return chosen
        return as_many_at_random(chosen, on_device(key.child(RANDOM_TRIM).uniform(1)[:, 0], losses.device))

    def state_dict(self) -> dict[str, Any]:
        return {"recent_losses": self.recent_losses}

    def load_state_dict(self, state: dict[str, Any]):
        check_tensor(state["recent_losses"], self.recent_losses, "recent_losses", gaps=True)
        self.recent_losses = state["recent_losses"].to(self.device)
