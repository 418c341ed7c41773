"""How weights move: AdamW, and which of them do."""

import torch
from torch import nn

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


def freeze_backbone(network: LandmarkNet, *, frozen: bool):
    """Whether only the head learns; a frozen backbone keeps the statistics of its norms too."""
    network.train()
    if frozen:
        network.eval()
    for parameter in network.backbone.parameters():
        parameter.requires_grad_(not frozen)
    for parameter in network.head.parameters():
        parameter.requires_grad_(True)
