"""Optimisers that torch does not have, or not in the form that is needed here: Muon for filters, SGD with the decay of
AdamW, and Lion."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from pipeline.runtime import choose_precision

QUINTIC = (3.4445, -4.7750, 2.0315)  # of the Newton–Schulz iteration: steep at 0, so that five steps are enough
NUM_ITERATIONS = 5
RMS_OF_ADAMW = 0.2  # of an update, in units of the rate


class Muon(torch.optim.AdamW):
    """Muon for the groups that are `hidden`, AdamW for the others.

    The update of a hidden parameter is its momentum, brought to the nearest semi-orthogonal matrix. The filters of a
    convolution, (out, in, height, width), are one matrix (out, in * height * width). Updates are as long as AdamW's, so
    that both use one rate and one decay.

    Sources: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, and his airbench for
    filters; J. Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, for the length.
    """

    def __init__(self, params: ParamsT, *, lr: float, momentum: float, beta2: float):
        # Not fused: a fused step itself leaves out gradients that are not finite, and the hidden parameters would be
        # moved all the same.
        super().__init__(params, lr=lr, betas=(0.9, beta2))
        for group in self.param_groups:
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        hidden = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            if group["hidden"]
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for parameter, gradient, group in hidden:
            self._move(parameter, gradient, group)
            parameter.grad = None  # so that AdamW leaves it as it is
        super().step()
        for parameter, gradient, _ in hidden:
            parameter.grad = gradient

    def _move(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]):
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(parameter))
        state["step"] += 1  # nothing needs it here, but AdamW's loading looks for it
        state["momentum"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(state["momentum"], momentum)  # Nesterov's
        matrix = orthogonalise(ahead.flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        length = RMS_OF_ADAMW * max(matrix.shape) ** 0.5
        parameter.add_(matrix.view(parameter.shape).to(parameter.dtype), alpha=-group["lr"] * length)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Roughly the semi-orthogonal matrix that is nearest to a (rows, columns) matrix: its singular values, except those
    near 0, become numbers between 0.7 and 1.2.

    Five steps of the Newton-Schulz iteration, with Jordan's coefficients.
    """
    a, b, c = QUINTIC
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    wide = wide.bfloat16() if choose_precision("auto", matrix.device) == "bf16" else wide
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide.T if len(matrix) > matrix.shape[1] else wide).contiguous()


class DecoupledSGD(torch.optim.SGD):
    """SGD whose weights decay by the rate times the weight decay, as those of the other optimisers do. torch adds the
    decay to the gradient, after clipping, so that momentum makes it ten times as large.

    Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (SGDW).
    """

    def __init__(self, params: list[dict[str, Any]], *, lr: float, momentum: float, nesterov: bool):
        own = [group | {"weight_decay": 0.0, "decay": group["weight_decay"]} for group in params]
        super().__init__(own, lr=lr, momentum=momentum, nesterov=nesterov)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["decay"])
        super().step(closure)


class Lion(torch.optim.Optimizer):
    """Each weight moves by the rate, in the direction of the sign of a momentum.

    Source: X. Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, algorithm 2.
    """

    def __init__(self, params: ParamsT, *, lr: float, betas: tuple[float, float]):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                direction = state["momentum"].lerp(parameter.grad, 1 - beta1).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                state["momentum"].lerp_(parameter.grad, 1 - beta2)
