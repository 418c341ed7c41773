"""The moving average of the weights (EMA)."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models import LandmarkNet


class WeightAverage:
    """The exponential moving average of a network's weights and statistics, as a network: what is
    validated and kept.

    It forgets faster while it is young, so that a short run does not average in its random start.
    """

    def __init__(self, network: LandmarkNet, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.num_updates = 0
        self._pairs = [
            [tensor for tensor in source.state_dict().values() if tensor.is_floating_point()]
            for source in (self.network, network)
        ]

    @torch.no_grad()
    def update(self):
        """Moves the average towards the weights that the network has now."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 9))
        get_ema_multi_avg_fn(decay)(*self._pairs, None)
