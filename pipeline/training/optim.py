"""How weights move: AdamW, the schedules of its rate, and the moving average of the weights."""

import copy
import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models import LandmarkNet
from pipeline.recipe import OptimiserOptions


def build_optimiser(network: nn.Module, options: OptimiserOptions) -> torch.optim.AdamW:
    """AdamW that decays matrices and filters, and neither biases nor norms."""
    parameters = list(network.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=options.learning_rate,
        fused=True,
    )


def cosine_rate(progress: float, *, highest: float, warmup: float) -> float:
    """The rate at a share of the training: from 0 to `highest` over `warmup`, then along a cosine to 0.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    if progress < warmup:
        return warmup_rate(progress, highest=highest, warmup=warmup)
    return highest * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-9))) / 2


def warmup_rate(progress: float, *, highest: float, warmup: float) -> float:
    """The rate at a share of the training: from 0 to `highest` over `warmup`, and no lower after it."""
    return highest * progress / warmup if progress < warmup else highest


def build_plateau(optimiser: torch.optim.Optimizer, options: OptimiserOptions, steps_per_epoch: int):
    """ReduceLROnPlateau, to be fed with each step's smoothed loss (`plateau`) or each epoch's MSE (the other two)."""
    steps = steps_per_epoch if options.schedule == "plateau" else 1
    patience = max(1, round(options.plateau_patience * steps))
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=options.plateau_factor, patience=patience)


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


def freeze_backbone(network: LandmarkNet, *, frozen: bool):
    """Whether only the head learns; a frozen backbone keeps the statistics of its norms too."""
    network.train()
    if frozen:
        network.eval()
    for parameter in network.backbone.parameters():
        parameter.requires_grad_(not frozen)
    for parameter in network.head.parameters():
        parameter.requires_grad_(True)
