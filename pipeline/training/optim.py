"""How weights move: the optimiser that a recipe names, which weights decay, and at which rate each moves.

The rate of a group of parameters is that of the schedule times the group's `factor`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import schedulefree
import torch
from torch import nn

from models import LandmarkNet
from pipeline.recipe import OptimiserOptions
from pipeline.training.optimisers import DecoupledSGD, Lion, Muon

ENOUGH_STAGES = 4
DECAYED = ("weight", "in_proj_weight")  # names of matrices and filters, in torchvision and timm
WHOLE_BACKBONE = 0.8  # of its weights: a child that has more is not a stage but holds the stages

Groups = list[dict[str, Any]]


def build_optimiser(
    network: LandmarkNet, options: OptimiserOptions, others: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimiser of the recipe for a network and for `others`, such as the weights of a loss, which move at the full
    rate and do not decay. Matrices and filters of the network decay; biases, norms, embeddings and scales do not."""
    groups = parameter_groups(network, options, others)
    optimiser = OPTIMISERS[options.optimiser](groups, options)
    set_rate(optimiser, options.learning_rate)
    return optimiser


def _adamw(groups: Groups, options: OptimiserOptions) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=_betas(options), fused=True)


def _sgd(groups: Groups, options: OptimiserOptions) -> torch.optim.Optimizer:
    momentum = _given_or(options.momentum, 0.9)
    return DecoupledSGD(groups, lr=options.learning_rate, momentum=momentum, nesterov=momentum > 0)


def _muon(groups: Groups, options: OptimiserOptions) -> torch.optim.Optimizer:
    momentum, beta2 = _given_or(options.momentum, 0.95), _given_or(options.beta2, 0.999)
    return Muon(groups, lr=options.learning_rate, momentum=momentum, beta2=beta2)


def _lion(groups: Groups, options: OptimiserOptions) -> torch.optim.Optimizer:
    return Lion(groups, lr=options.learning_rate, betas=_betas(options, beta2=0.99))


def _schedule_free(groups: Groups, options: OptimiserOptions) -> torch.optim.Optimizer:
    """Source: A. Defazio et al., "The Road Less Scheduled", NeurIPS 2024. Its warm-up is that of the schedule."""
    on_gpu = groups[0]["params"][0].is_cuda  # on a CPU, one parameter after the other stays in the processor's caches
    optimiser = schedulefree.AdamWScheduleFree(groups, lr=options.learning_rate, betas=_betas(options), foreach=on_gpu)
    for group in optimiser.param_groups:
        group["lr_max"] = 0.0  # the library has -1, which means the same but would need an exception in a checkpoint
    optimiser.train()
    return optimiser


OPTIMISERS: dict[str, Callable[[Groups, OptimiserOptions], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "muon": _muon,
    "lion": _lion,
    "schedule_free": _schedule_free,
}


def _betas(options, beta2=0.999):
    return _given_or(options.momentum, 0.9), _given_or(options.beta2, beta2)


def _given_or(value, default):
    return default if value is None else value


def state_like(optimiser: torch.optim.Optimizer, group: dict[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
    """What the optimiser keeps for a parameter once it has moved it: tensors of these names, types and shapes."""
    if isinstance(optimiser, Lion):
        return {"momentum": parameter}
    if isinstance(optimiser, Muon) and group["hidden"]:
        return {"step": torch.tensor(0.0), "momentum": parameter}
    if isinstance(optimiser, torch.optim.SGD):
        return {"momentum_buffer": parameter} if group["momentum"] else {}
    if isinstance(optimiser, schedulefree.AdamWScheduleFree):
        return {"z": parameter, "exp_avg_sq": parameter}
    assert isinstance(optimiser, torch.optim.AdamW)
    return {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}


def begins_empty(optimiser: torch.optim.Optimizer) -> bool:
    """Whether the optimiser has an empty state for a parameter before it has moved it."""
    return isinstance(optimiser, schedulefree.AdamWScheduleFree)


def group_numbers(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The numbers of a group that change while it trains, as they are at the start."""
    if isinstance(optimiser, schedulefree.AdamWScheduleFree):
        return {"lr": 0.0, "k": 0, "weight_sum": 0.0, "lr_max": 0.0, "scheduled_lr": 0.0}
    return {"lr": 0.0}


def set_rate(optimiser: torch.optim.Optimizer, rate: float):
    """Sets the rate of the schedule; each group has its part of it."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def rate_of(optimiser: torch.optim.Optimizer) -> float:
    """The rate of the schedule."""
    group = optimiser.param_groups[0]
    return group["lr"] / group["factor"]


def parameter_groups(network: LandmarkNet, options: OptimiserOptions, others: Iterable[nn.Parameter] = ()) -> Groups:
    """The parameters, grouped by what differs for them: the decay, the factor of the rate, and with Muon whether they
    are hidden. Those that decay come first."""
    factors = stage_factors(network, options.layer_decay)
    hidden = hidden_matrices(network) if options.optimiser == "muon" else set()
    beside = options.adamw_factor if options.optimiser == "muon" else 1.0
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decays, is_hidden = _decays(name, parameter), parameter in hidden
        factor = factors.get(parameter, 1.0) * (1.0 if is_hidden else beside)
        groups.setdefault((decays, factor, is_hidden), []).append(parameter)
    if others := list(others):
        groups.setdefault((False, beside, False), []).extend(others)
    return [
        {
            "params": parameters,
            "weight_decay": options.weight_decay if decays else 0.0,
            "factor": factor,
            "hidden": is_hidden,
        }
        for (decays, factor, is_hidden), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def _decays(name, parameter):
    """Whether a parameter is a matrix or filters. In backbones, embeddings and scales may have several dimensions."""
    in_backbone = name.startswith("backbone.")
    return parameter.ndim > 1 and (not in_backbone or name.rpartition(".")[2] in DECAYED)


def hidden_matrices(network: LandmarkNet) -> set[nn.Parameter]:
    """Weights of the backbone that are one matrix, except those of the first layer and of the head.

    Grouped filters are several matrices, in a depthwise convolution of one column each: they are not included.
    """
    head = set(network.head.parameters())
    layers = [
        module
        for module in network.backbone.modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight not in head
    ]
    matrices = [layer for layer in layers[1:] if isinstance(layer, nn.Linear) or layer.groups == 1]
    return {parameter for layer in matrices for name, parameter in layer.named_parameters() if name == "weight"}


def stage_factors(network: LandmarkNet, decay: float) -> dict[nn.Parameter, float]:
    """The factor of the rate for each parameter of the backbone; everything else, such as the head, has 1.

    Source: J. Howard and S. Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.
    """
    if decay == 1:
        return {}
    stages = backbone_stages(network)
    return {parameter: decay ** (len(stages) - index) for index, stage in enumerate(stages) for parameter in stage}


def backbone_stages(network: LandmarkNet) -> list[list[nn.Parameter]]:
    """The parameters of the backbone by stages, from the image to the head, which is left out.

    Stages are the children of the backbone. If they are few, or one of them holds nearly all weights, as `features` and
    `encoder` do in torchvision, the largest is replaced by its own children. Norms that stand alone belong to the layer
    before them. What a module opened in this way holds itself (a class token, a position embedding) moves with the
    first stage.
    """
    head = set(network.head.parameters())

    def of(module):
        return [parameter for parameter in module.parameters() if parameter not in head]

    def size(module):
        return sum(parameter.numel() for parameter in of(module))

    modules, first = _children(network.backbone), list(network.backbone.parameters(recurse=False))
    while True:
        modules = [module for module in modules if of(module)]
        openable = [module for module in modules if any(of(child) for child in module.children())]
        if not openable:
            break
        largest = max(openable, key=size)
        if len(modules) >= ENOUGH_STAGES and size(largest) < WHOLE_BACKBONE * size(network.backbone):
            break
        index = modules.index(largest)
        first += largest.parameters(recurse=False)
        modules[index : index + 1] = _children(largest)
    stages: list[list[nn.Parameter]] = [[]]
    for module in modules:
        parameters = of(module)
        if any(parameter.ndim > 1 for parameter in stages[-1]) and any(parameter.ndim > 1 for parameter in parameters):
            stages.append([])
        stages[-1] += parameters
    stages[0] += [parameter for parameter in first if parameter not in head]
    return stages


def _children(module):
    return list(module.children())


def freeze_backbone(network: LandmarkNet, *, frozen: bool):
    """Sets whether only the head learns; a frozen backbone keeps the statistics of its norms too, the head does not."""
    network.train()
    if frozen:
        network.backbone.eval()
        network.head.train()  # which may be a layer of the backbone
    for parameter in set(network.backbone.parameters()) - set(network.head.parameters()):
        parameter.requires_grad_(not frozen)
