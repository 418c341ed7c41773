"""Schedules of the learning rate. Each acts before a step, after a step and after an epoch, and has a state.

`progress` is the share of the training that is done, by steps or by the clock.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from pipeline.recipe import OptimiserOptions
from pipeline.training.optim import set_rate
from pipeline.training.state import MOST, numbers_like

# Of a plateau's state; the rest, but for its best, comes from the recipe.
COUNTED = {"num_bad_epochs": 0, "cooldown_counter": 0, "last_epoch": 0}
PROGRESS = 1e-4  # of the size of the best value: a smaller fall counts for nothing
RISING = ("one_cycle", "triangular")  # which begin with a rise, and so need no warm-up
RISE = 0.3  # of one cycle
START_OF_CYCLE = 25  # the highest rate over the one it starts from


class Schedule:
    """Sets the rates of an optimiser. This one leaves them as they are."""

    def before_step(self, progress: float):
        pass

    def after_step(self, progress: float, loss: float):
        pass

    def after_epoch(self, progress: float, mse: float):
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]):
        pass


def build_schedule(optimiser: torch.optim.Optimizer, options: OptimiserOptions, steps_per_epoch: int) -> Schedule:
    """The schedule that the recipe names."""
    if options.schedule in CURVES:
        return Curve(optimiser, options)
    return Plateau(optimiser, options, steps_per_epoch)


def scheduled_rate(progress: float, options: OptimiserOptions) -> float:
    """The rate at a share of the training, for a schedule that is a curve: from 0 to the highest rate over the warm-up,
    then along the curve. One-cycle and triangular schedules have a rise of their own."""
    warmup = 0.0 if options.schedule in RISING else options.warmup
    if progress < warmup:
        return warmup_rate(progress, highest=options.learning_rate, warmup=warmup)
    return CURVES[options.schedule](progress - warmup, max(1 - warmup, 1e-9), options)


def warmup_rate(progress: float, *, highest: float, warmup: float) -> float:
    """The rate at a share of the training: from 0 to `highest` over `warmup`, and no lower after it."""
    return highest * progress / warmup if progress < warmup else highest


def _cosine(done: float, length: float, options: OptimiserOptions) -> float:
    """Source: Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts."""
    return _along_cosine(options.learning_rate, options.final_rate, done, length)


def _cosine_restarts(done: float, length: float, options: OptimiserOptions) -> float:
    """The same, with restarts after equal times."""
    return _along_cosine(options.learning_rate, options.final_rate, _in_cycle(done / length, options.cycles), 1)


def _triangular(done: float, length: float, options: OptimiserOptions) -> float:
    """Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017."""
    height = 1 - abs(2 * _in_cycle(done / length, options.cycles) - 1)
    return options.final_rate + (options.learning_rate - options.final_rate) * height


def _one_cycle(done: float, length: float, options: OptimiserOptions) -> float:
    """From a 25th of the highest rate along a cosine to it, then along another to the lowest.

    Source: Smith and Topin, "Super-Convergence", 2018, with the shares that torch and fastai give it.
    """
    highest, top = options.learning_rate, RISE * length
    if done < top:
        return _along_cosine(highest / START_OF_CYCLE, highest, done, top)
    return _along_cosine(highest, options.final_rate, done - top, length - top)


def _exponential(done: float, length: float, options: OptimiserOptions) -> float:
    return options.learning_rate * (options.final_rate / options.learning_rate) ** (done / length)


def _linear(done: float, length: float, options: OptimiserOptions) -> float:
    return options.learning_rate + (options.final_rate - options.learning_rate) * (done / length)


def _constant(done: float, length: float, options: OptimiserOptions) -> float:
    return options.learning_rate


def _along_cosine(first, last, done, length):
    return last + (first - last) * (1 + math.cos(math.pi * done / length)) / 2


def _in_cycle(share, cycles):
    """The share of its cycle that is done; at the end the last one is complete, and none is started."""
    return share * cycles - min(math.floor(share * cycles), cycles - 1)


# The rate when this much of the time after the warm-up is done, out of `length`, in the same unit.
CURVES: dict[str, Callable[[float, float, OptimiserOptions], float]] = {
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "triangular": _triangular,
    "one_cycle": _one_cycle,
    "exponential": _exponential,
    "linear": _linear,
    "constant": _constant,
}


class Curve(Schedule):
    """A rate that is a function of progress, and so has no state."""

    def __init__(self, optimiser: torch.optim.Optimizer, options: OptimiserOptions):
        self.optimiser, self.options = optimiser, options

    def before_step(self, progress: float):
        set_rate(self.optimiser, scheduled_rate(progress, self.options))


class Plateau(Schedule):
    """Lowers the rate when what it follows stops falling: `plateau` follows the smoothed training loss of each step,
    `plateau_validation` the validation MSE of each epoch.

    Until the warm-up is over it follows nothing, and the rate rises.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, options: OptimiserOptions, steps_per_epoch: int):
        self.optimiser, self.options = optimiser, options
        self.follows_steps = options.schedule == "plateau"
        patience = max(1, round(options.plateau_patience * (steps_per_epoch if self.follows_steps else 1)))
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            factor=options.plateau_factor,
            patience=patience,
            eps=0,
            min_lr=[options.final_rate * group["factor"] for group in optimiser.param_groups],
        )

    def before_step(self, progress: float):
        if self.plateau.last_epoch == 0:
            rate = warmup_rate(progress, highest=self.options.learning_rate, warmup=self.options.warmup)
            set_rate(self.optimiser, rate)

    def after_step(self, progress: float, loss: float):
        if self.follows_steps:
            self._follow(progress, loss)

    def after_epoch(self, progress: float, mse: float):
        if not self.follows_steps:
            self._follow(progress, mse)

    def _follow(self, progress, value):
        if progress >= self.options.warmup:
            if self.plateau.last_epoch == 0:  # that of the last step is from within the warm-up
                set_rate(self.optimiser, self.options.learning_rate)
            self.plateau.threshold = math.copysign(PROGRESS, self.plateau.best)
            self.plateau.step(value)

    def state_dict(self) -> dict[str, Any]:
        return self.plateau.state_dict()

    def load_state_dict(self, state: dict[str, Any]):
        best = numbers_like(state, {"best": math.inf}, lowest=-MOST)  # of a likelihood's loss, which may be below 0
        self.plateau.load_state_dict(self.plateau.state_dict() | numbers_like(state, COUNTED) | best)
