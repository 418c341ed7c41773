"""The average of the weights, which is validated and kept: a moving one (EMA), or that of a schedule-free optimiser."""

import copy

import schedulefree
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models import LandmarkNet


def build_average(network: LandmarkNet, optimiser: torch.optim.Optimizer, decay: float) -> "WeightAverage":
    """The average that is kept beside a network while the optimiser trains it."""
    if isinstance(optimiser, schedulefree.AdamWScheduleFree):
        return ScheduleFreeAverage(network, optimiser, decay)
    return WeightAverage(network, decay)


class WeightAverage:
    """The exponential moving average of a network's weights and statistics, as a network: what is validated and kept.

    It forgets faster while it is young, so that a short run does not average in its random start.
    """

    def __init__(self, network: LandmarkNet, decay: float):
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.num_updates = 0
        self._pairs = [
            [tensor for name, tensor in source.state_dict().items() if self._is_averaged(name, tensor)]
            for source in (self._network, network)
        ]

    @property
    def network(self) -> LandmarkNet:
        """The average up to now, in eval mode."""
        return self._network

    def _is_averaged(self, name: str, tensor: torch.Tensor) -> bool:
        return tensor.is_floating_point()

    @torch.no_grad()
    def update(self):
        """Moves the average towards the weights that the network has now."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 9))
        get_ema_multi_avg_fn(decay)(*self._pairs, None)


class ScheduleFreeAverage(WeightAverage):
    """The weights x that a schedule-free optimiser has found, while the network has those at which gradients are taken,
    y = (1 - beta1) z + beta1 x. Statistics of norms, which are measured at y, are averaged as by an EMA; x is computed
    when somebody asks for the network, not at every step.

    Source: A. Defazio et al., "The Road Less Scheduled", NeurIPS 2024.
    """

    def __init__(self, network: LandmarkNet, optimiser: schedulefree.AdamWScheduleFree, decay: float):
        self._names = dict(network.named_parameters()).keys()
        super().__init__(network, decay)
        self.optimiser, self._is_behind = optimiser, False
        own = dict(self._network.named_parameters())
        self._own = {parameter: own[name] for name, parameter in network.named_parameters()}

    def _is_averaged(self, name: str, tensor: torch.Tensor) -> bool:
        return super()._is_averaged(name, tensor) and name not in self._names

    def update(self):
        super().update()
        self._is_behind = True

    @property
    def network(self) -> LandmarkNet:
        if self._is_behind:
            self._catch_up()
            self._is_behind = False
        return self._network

    @torch.no_grad()
    def _catch_up(self):
        for group in self.optimiser.param_groups:
            for parameter in group["params"]:
                if parameter in self._own:  # the others belong to the loss
                    self._own[parameter].copy_(parameter)
                    if "z" in self.optimiser.state[parameter]:
                        z, beta1 = self.optimiser.state[parameter]["z"], group["betas"][0]
                        self._own[parameter].lerp_(z, 1 - 1 / beta1)
