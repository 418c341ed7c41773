"""Proposes a learning rate to begin with: `python hack_train.py --find-lr …`.

The rate rises exponentially, one step at each rate, from where nothing moves to where the loss diverges. Source: Smith,
"Cyclical Learning Rates for Training Neural Networks", WACV 2017.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from torch.utils.tensorboard import SummaryWriter

from augment import Chain
from pipeline.errors import UserError
from pipeline.files import replacing
from pipeline.progress import progress
from pipeline.training.optim import freeze_backbone, set_rate
from pipeline.training.schedules import Schedule
from pipeline.training.trainer import Trainer

NUM_STEPS = 200
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9  # of the loss: it lags by about ten steps
DIVERGED = 3.0  # times the lowest smoothed loss, above it
WIDTH = 0.28  # powers of ten, the deviation of the Gaussian that takes the noise of single batches out of the curve
FIRST_STEPS = 10  # whose smoothed losses average too few to be judged
LEAST_FALL = 0.02  # of the loss at the start: a smaller fall is noise


@dataclass(frozen=True)
class Sweep:
    """rates, losses: (N,) of each step, the losses smoothed. diverged: whether the sweep was stopped for that."""

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool


@dataclass(frozen=True)
class Proposal:
    """rate: the lower of `steepest`, where the loss falls fastest, and a tenth of `minimum`, where it is lowest."""

    rate: float
    steepest: float
    minimum: float


def find_rate(trainer: Trainer, chain: Chain, make_folder: Callable[[], Path]) -> Path:
    """Sweeps the rate, and writes the result into a folder, which it returns: as a picture, and for TensorBoard."""
    print(f"sweep        {NUM_STEPS} steps, from a learning rate of {LOWEST:g} to {HIGHEST:g}", flush=True)
    swept = sweep(trainer, chain)
    folder = Path(trainer.runtime.ranks.broadcast_text(lambda: str(make_folder())))
    if not trainer.runtime.is_main:
        return folder
    try:
        proposal = propose(swept)
    except UserError:
        write_sweep(folder, swept, None)  # it shows why
        raise
    write_sweep(folder, swept, proposal)
    print_proposal(swept, proposal)
    print(f"picture      {folder / 'loss_over_rate.png'}")
    return folder


def sweep(trainer: Trainer, chain: Chain, *, num_steps: int = NUM_STEPS) -> Sweep:
    """Trains at rising rates until the loss diverges. The trainer is as it was before, to the bit."""
    rates = LOWEST * (HIGHEST / LOWEST) ** (np.arange(num_steps) / max(num_steps - 1, 1))
    losses: list[float] = []
    mean, diverged = 0.0, False
    with _restored_afterwards(trainer), progress(num_steps, "rates", unit="step") as bar:
        trainer.begin_together()
        freeze_backbone(trainer.network, frozen=trainer.recipe.network.freeze_epochs > 0)
        trainer.schedule = Schedule()  # the rate is set here
        _fix_size_and_trimming(trainer)
        for rate, batch in zip(rates, trainer.batches(chain, num_steps), strict=True):
            set_rate(trainer.optimiser, rate)
            trainer.step(batch)
            bar.update()
            loss = trainer.pending.last_loss()
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed = mean / (1 - SMOOTHING ** (len(losses) + 1))
            judged = losses[FIRST_STEPS:]
            diverged = not math.isfinite(smoothed) or (len(judged) > 0 and smoothed > _bound(judged))
            if diverged:
                break
            losses.append(smoothed)
    return Sweep(rates[: len(losses)], np.array(losses), diverged)


def _fix_size_and_trimming(trainer):
    """Makes all steps show images of the first size, and leave out what the first one does, since a different loss says
    nothing about a different rate."""
    photos, options = trainer.recipe.photos, trainer.criterion.options
    if photos.progressive:
        first = photos.progressive[0][1]
        trainer.recipe = replace(trainer.recipe, photos=replace(photos, progressive=((2.0, first),)))
    if options.trim_from:
        trainer.criterion.options = replace(options, trim_from=math.inf)


def _bound(losses):
    """The loss above which a training has diverged. Losses may be negative, as logarithms of likelihoods are."""
    lowest = min(losses)
    return lowest + DIVERGED * max(abs(lowest), losses[0] - lowest)


@contextmanager
def _restored_afterwards(trainer: Trainer) -> Iterator[None]:
    state = copy.deepcopy(trainer.state_dict())
    schedule, recipe, options = trainer.schedule, trainer.recipe, trainer.criterion.options
    modes = [(module, module.training) for module in trainer.network.modules()]
    learns = [(parameter, parameter.requires_grad) for parameter in trainer.network.parameters()]
    try:
        yield
    finally:
        trainer.schedule, trainer.recipe, trainer.criterion.options = schedule, recipe, options
        trainer.load_state_dict(state)
        trainer.optimiser.zero_grad()
        for module, training in modes:  # outer ones come first; a flag alone would not exchange a backbone's graph
            module.train(training)
        for parameter, requires_grad in learns:
            parameter.requires_grad_(requires_grad)


def propose(swept: Sweep) -> Proposal:
    """A rate to train with. Raises UserError if the loss fell at no rate, or there are too few steps to tell."""
    rates, losses = curve(swept)
    lowest = int(losses.argmin()) if len(losses) > 1 else 0
    if lowest == 0 or losses[0] - losses[lowest] < LEAST_FALL * abs(losses[0]):
        raise UserError(
            f"--find-lr: the loss fell at no learning rate between {LOWEST:g} and {HIGHEST:g}; look at the photos and "
            "points (python -m tools.augment_sheet), or give another --seed"
        )
    slopes = np.gradient(losses[: lowest + 1], np.log(rates[: lowest + 1]))
    steepest, minimum = float(rates[slopes.argmin()]), float(rates[lowest])
    return Proposal(_rounded(min(steepest, minimum / 10)), steepest, minimum)


def curve(swept: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """Rates, and the loss there without the noise of single batches, which would leave the steepest step to chance:
    among small batches it lies anywhere.
    """
    rates, losses = swept.rates[FIRST_STEPS:], swept.losses[FIRST_STEPS:]
    if len(rates) < 2:
        return rates, losses
    return rates, gaussian_filter1d(losses, WIDTH / math.log10(rates[1] / rates[0]), mode="nearest")


def _rounded(rate):
    return float(f"{rate:.1e}")


def print_proposal(swept: Sweep, proposal: Proposal):
    end = "where it diverged" if swept.diverged else "the end"
    print(f"             {len(swept.rates)} steps, up to {swept.rates[-1]:.1e}, {end}")
    print(f"steepest     {proposal.steepest:.1e}, where the loss falls fastest")
    print(f"lowest       {proposal.minimum:.1e}, above which it rises; a tenth of it: {proposal.minimum / 10:.1e}")
    print(f"proposed     --learning-rate {proposal.rate:g}, the lower of the two")


def write_sweep(folder: Path, swept: Sweep, proposal: Proposal | None):
    """Writes the loss over the rate as `loss_over_rate.png`, and the events of TensorBoard."""
    figure = draw(swept, proposal)
    with replacing(folder / "loss_over_rate.png") as file:
        figure.savefig(file, format="png", dpi=120)
    with SummaryWriter(str(folder / "events")) as writer:
        for step, (rate, loss) in enumerate(zip(swept.rates, swept.losses, strict=True), start=1):
            writer.add_scalar("find_lr/learning_rate", rate, step)
            writer.add_scalar("find_lr/smoothed_loss", loss, step)
        writer.add_figure("find_lr/loss_over_rate", figure, len(swept.rates), close=False)


def draw(swept: Sweep, proposal: Proposal | None):
    """The smoothed loss over the rate, as a figure of matplotlib."""
    from matplotlib.figure import Figure  # slow to import, and looks for fonts the first time

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(swept.rates, swept.losses, color="0.7", linewidth=1)
    if proposal:
        axes.semilogx(*curve(swept), color="black", linewidth=1.5)
        for rate, label, colour in (
            (proposal.rate, "proposed", "tab:green"),
            (proposal.steepest, "steepest", "tab:blue"),
            (proposal.minimum, "lowest", "tab:orange"),
        ):
            axes.axvline(rate, color=colour, label=f"{label}: {rate:.1e}", linestyle="--")
        axes.legend()
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss, smoothed")
    if len(swept.losses):
        first, lowest = swept.losses[0], swept.losses.min()
        axes.set_ylim(top=min(swept.losses.max(), first + max(first - lowest, 0.1 * abs(first))))
    return figure
