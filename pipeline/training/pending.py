"""What the steps have measured and the host has not read yet: it waits on the device, so that the host need not."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.checkpoint import check_tensor
from pipeline.errors import UserError

NUM_NAMED = 3  # photos, in an error


class StepResult(NamedTuple):
    """What the host has read of a step: its number, its loss, the mean of recent losses, its learning rate, and the
    norm of its gradient before it was clipped, which in fp16 need not be finite."""

    step: int
    loss: float
    smoothed_loss: float
    rate: float
    gradient_norm: float


class MeasuredStep(NamedTuple):
    """The same before it is averaged, with the samples of the step and their squared errors."""

    step: int
    samples: np.ndarray
    loss: float
    gradient_norm: float
    rate: float
    errors: list[float]


class PendingSteps:
    """The steps that were done since the host last read. names: (N,) of the photos, for errors."""

    def __init__(self, names: Sequence[str] | np.ndarray):
        self.names = names
        self.clear()

    def clear(self):
        self._steps: list[tuple[np.ndarray, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, samples: np.ndarray, measured: torch.Tensor, norm: torch.Tensor, rate: float):
        """measured: (1 + B,) the loss and the squared error of each photo. norm: () of the gradient."""
        self._steps.append((samples, torch.cat((measured, norm[None], torch.full_like(norm[None], rate)))))

    def last_loss(self) -> float:
        """The loss of the last step, for which the host waits."""
        return self._steps[-1][1][0].item()

    def read(self, first: int, *, overflows: bool) -> list[MeasuredStep]:
        """What each step has measured; the first has the number `first`.

        overflows: whether gradients may overflow, as in fp16, where that is one step among many. Raises UserError, with
        the photos' names, for a step that is not finite. The weights have not been moved by it.
        """
        found = []
        for step, (samples, values) in enumerate(self._steps, start=first):
            loss, *errors, norm, rate = values.tolist()
            if not np.isfinite([loss, *errors]).all():
                raise UserError(self._not_finite(f"loss is {loss}", step, samples[~np.isfinite(errors)]))
            if not (np.isfinite(norm) or overflows):
                raise UserError(self._not_finite(f"gradient's norm is {norm}", step, samples[:0]))
            found.append(MeasuredStep(step, samples, loss, norm, rate, errors))
        return found

    def _not_finite(self, what, step, samples):
        names = self.names[samples]
        more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        photos = f" (photos {', '.join(names[:NUM_NAMED])}{more})" if len(names) else ""
        return f"the {what} at step {step}{photos}; start anew with a lower --learning-rate or --precision fp32"

    def state(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.from_numpy(samples), measured.cpu()) for samples, measured in self._steps]

    def load(self, state: list[Any]):
        """Loads what `state` gave. Raises one of checkpoint.DAMAGE for anything else."""
        self.clear()
        for samples, measured in state:
            if len(measured) == 1 + len(samples):  # earlier versions kept neither the gradient's norm nor the rate
                measured = torch.cat((measured, torch.zeros(2)))
            check_tensor(measured, torch.zeros(3 + len(self.names[samples])), "pending", gaps=True)
            self._steps.append((samples.numpy(), measured))
