"""Batch normalisation when several ranks train one network.

On GPUs torch's SyncBatchNorm normalises by the photos of all ranks, so that ranks together act as one. On CPUs torch
has none: there each rank normalises by its own photos, as accumulated micro-batches do. The running statistics, with
which the network predicts, are the mean of those of all ranks, so that all have the same network after each step.
"""

import torch
from torch import nn

from models import LandmarkNet
from models.timm_backbones import synchronise_norms
from pipeline.runtime import Runtime


def build_norms(network: LandmarkNet, runtime: Runtime, *, synchronised: bool) -> LandmarkNet:
    """The network with norms for these ranks; names and weights stay."""
    if runtime.ranks.num_ranks > 1 and runtime.device.type == "cuda" and synchronised:
        synchronise_norms(network)
    return network


def describe_norms(network: nn.Module, runtime: Runtime) -> str:
    """Which photos they see, in a few words; empty if no norm sees more than one photo, or one rank sees all."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if runtime.ranks.num_ranks == 1 or not norms:
        return ""
    if all(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
        return "batch normalisation sees the photos of all processes (SyncBN)"
    return "batch normalisation sees the photos of each process alone; its statistics are averaged"


def own_statistics(network: nn.Module) -> list[torch.Tensor]:
    """Running statistics that each rank measures on its own photos."""
    return [
        statistic
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        if module.training and module.running_mean is not None and module.running_var is not None
        for statistic in (module.running_mean, module.running_var)
    ]
