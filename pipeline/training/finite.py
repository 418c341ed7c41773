"""Leaves out steps of the optimiser whose loss or gradient is not finite, before the weights have moved.

Nothing here waits for a GPU, as long as the optimiser is one of torch's fused ones. The host learns of such a step when
it reads what the steps measured.
"""

from collections.abc import Iterable

import torch
from torch import nn


def mark_not_finite(parameters: Iterable[nn.Parameter], measured: torch.Tensor):
    """Puts a NaN into the gradient if what was measured is not finite, and otherwise leaves it as it is: the loss of a
    photo may not be finite while the gradient is, for instance if the photo is trimmed."""
    gradient = next(parameter.grad for parameter in parameters if parameter.grad is not None)
    gradient.mul_(torch.where(measured.isfinite().all(), 1.0, torch.nan))


def step_if_finite(optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, norm: torch.Tensor):
    """One step of the optimiser, unless the norm of the gradient is not finite: then weights and moments stay as they
    are. In fp16 the scaler does the same.

    A fused optimiser decides this on the device, by the attributes that a GradScaler sets. For others the host checks,
    which makes it wait for a GPU.
    """
    if scaler.is_enabled():
        scaler.step(optimiser)
    elif getattr(optimiser, "_step_supports_amp_scaling", False):
        optimiser.grad_scale, optimiser.found_inf = None, (~norm.isfinite()).float()  # type: ignore[attr-defined]
        optimiser.step()
        del optimiser.grad_scale, optimiser.found_inf  # type: ignore[attr-defined]
    elif norm.isfinite():
        optimiser.step()
