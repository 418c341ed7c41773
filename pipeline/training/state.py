"""How far a training has come, and whether a checkpoint is that of a training like this one."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from pipeline.checkpoint import MAX_SHOWN, check_keys, check_tensor, check_type
from pipeline.training.optim import begins_empty, group_numbers, state_like

MOST, MOST_COUNTED = 1e300, 10**12


@dataclass
class TrainerState:
    """How far a run has come. `batch` is the next one of `epoch`; `minutes` counts over all sittings."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    minutes: float = 0.0
    smoothed_loss: float = float("nan")
    best_mse: float = float("inf")
    seen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def read_state(found: dict[str, Any]) -> TrainerState:
    """The state that was found. Raises one of DAMAGE for anything else."""
    state = TrainerState(**found)
    check_keys(found, {field.name for field in fields(TrainerState)}, "its progress")
    numbers_like(found, {"epoch": 0, "batch": 0, "step": 0, "minutes": 0.0, "seen": 0, "best_mse": math.inf})
    if not (0 in (state.epoch, state.step) and math.isnan(state.smoothed_loss)):  # nothing has been read
        numbers_like(found, {"smoothed_loss": 0.0}, lowest=-MOST)  # likelihoods have losses below 0
    for row in state.history:
        numbers_like(row, {"epoch": 0, "validation_mse": 0.0})
    if [row["epoch"] for row in state.history] != list(range(state.epoch)):
        raise ValueError(f"it has {len(state.history)} rows of {state.epoch} epochs")
    return state


def load_optimiser(optimiser: torch.optim.Optimizer, found: dict[str, Any]):
    """Loads the state and the rates of an optimiser of the same kind and parameters, any of which have moved so far.

    Raises one of DAMAGE if it is of any other.
    """
    groups = optimiser.state_dict()["param_groups"]
    if [group["params"] for group in found["param_groups"]] != [group["params"] for group in groups]:
        reason = "as those of earlier versions have; --init begins anew from its weights"
        raise ValueError(f"its optimiser has other parameters, {reason}")
    like = {
        index: state_like(optimiser, group, parameter)
        for group, indices in zip(optimiser.param_groups, groups, strict=True)
        for index, parameter in zip(indices["params"], group["params"], strict=True)
    }
    for number, kept in found["state"].items():
        about = f"the optimiser's state of parameter {number}"
        check_type(number, int, about)
        if kept == {} and begins_empty(optimiser):
            continue
        check_keys(kept, set(like[number]), about)
        for name, tensor in like[number].items():
            check_tensor(kept[name], tensor, about)
    numbers = [numbers_like(group, group_numbers(optimiser)) for group in found["param_groups"]]
    groups = [group | own for group, own in zip(groups, numbers, strict=True)]
    optimiser.load_state_dict({"state": found["state"], "param_groups": groups})


def numbers_like(found: dict[str, Any], like: dict[str, Any], *, lowest: float = 0) -> dict[str, Any]:
    """The numbers that `like` has. Raises one of DAMAGE unless each is a number of at least `lowest`, whole if that of
    `like` is, and infinite only if that is.
    """
    for name, own in like.items():
        number = found[name]
        most = MOST_COUNTED if type(own) is int else max(own, MOST)
        if type(number) not in (int, type(own)) or not lowest <= number <= most:
            raise ValueError(f"{name} is {str(number)[:MAX_SHOWN]}")
    return {name: found[name] for name in like}
