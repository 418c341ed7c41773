"""Schedules of the learning rate. Each answers before a step, after a step and after an epoch, and has a state.

`progress` is the share of the training that is done, by steps or by the clock.
"""

import math
from typing import Any, Protocol

import torch

from pipeline.recipe import OptimiserOptions
from pipeline.training.state import numbers_like

LEARNED = {"best": math.inf, "num_bad_epochs": 0, "cooldown_counter": 0, "last_epoch": 0}  # all else is of the recipe


class Schedule(Protocol):
    """Sets the rates of an optimiser."""

    def before_step(self, progress: float): ...
    def after_step(self, progress: float, loss: float): ...
    def after_epoch(self, progress: float, mse: float): ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]): ...


def build_schedule(optimiser: torch.optim.Optimizer, options: OptimiserOptions, steps_per_epoch: int) -> Schedule:
    """The schedule that the recipe names."""
    if options.schedule == "cosine":
        return Cosine(optimiser, options)
    return Plateau(optimiser, options, steps_per_epoch)


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


class Cosine:
    """From 0 to the highest rate over the warm-up, then along a cosine to 0. It has no state: progress is all."""

    def __init__(self, optimiser: torch.optim.Optimizer, options: OptimiserOptions):
        self.optimiser, self.options = optimiser, options

    def before_step(self, progress: float):
        _set_rate(self.optimiser, cosine_rate(progress, highest=self.options.learning_rate, warmup=self.options.warmup))

    def after_step(self, progress: float, loss: float):
        pass

    def after_epoch(self, progress: float, mse: float):
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]):
        pass


class Plateau:
    """Lowers the rate when what it follows stops falling: `plateau` follows the smoothed training loss of each step,
    `plateau_validation` the validation MSE of each epoch.

    Until the warm-up is over it follows nothing, and the rate rises.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, options: OptimiserOptions, steps_per_epoch: int):
        self.optimiser, self.options = optimiser, options
        self.follows_steps = options.schedule == "plateau"
        patience = max(1, round(options.plateau_patience * (steps_per_epoch if self.follows_steps else 1)))
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=options.plateau_factor, patience=patience
        )

    def before_step(self, progress: float):
        if self.plateau.last_epoch == 0:
            rate = warmup_rate(progress, highest=self.options.learning_rate, warmup=self.options.warmup)
            _set_rate(self.optimiser, rate)

    def after_step(self, progress: float, loss: float):
        if self.follows_steps:
            self._follow(progress, loss)

    def after_epoch(self, progress: float, mse: float):
        if not self.follows_steps:
            self._follow(progress, mse)

    def _follow(self, progress, value):
        if progress >= self.options.warmup:
            self.plateau.step(value)

    def state_dict(self) -> dict[str, Any]:
        return self.plateau.state_dict()

    def load_state_dict(self, state: dict[str, Any]):
        self.plateau.load_state_dict(self.plateau.state_dict() | numbers_like(state, LEARNED))


def _set_rate(optimiser, rate):
    for group in optimiser.param_groups:
        group["lr"] = rate
