"""Averages the weights of a run's best epochs into a run of its own: `python -m tools.average RUN`.

A run keeps its best epochs with `--keep-best 5`. Their weights are those that were validated: moving averages (EMA), or
with `--ema-decay 0` the weights themselves, whose average over the cycles of a schedule, or over epochs at a constant
rate, is stochastic weight averaging (SWA; Izmailov et al., UAI 2018). You can average several runs together if they
started from the same weights (`--init`) and held out the same photos (model soups; Wortsman et al., ICML 2022).

The statistics of the norms are measured again, on training photos without augmentation, except for norms that were
frozen. The average is scored on the held-out photos, beside the best epoch, and written whether it is better or not.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel
from tyro.conf import Positional, arg

from augment import Transform
from models import LandmarkNet
from pipeline.checkpoint import fitting, load_checkpoint, load_network, save_checkpoint
from pipeline.cli import parse_flags
from pipeline.data.dataset import TrainingData
from pipeline.data.pack import Pack
from pipeline.data.source import HostSource
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder
from pipeline.inference.held_out import training_data
from pipeline.inference.predict import predict_points
from pipeline.metrics import Scores, score
from pipeline.networks import load_run_network
from pipeline.runs import AboutData, Run, find_run, folder_of, mse_of, predict_command
from pipeline.runtime import Runtime

MAX_PHOTOS = 4096  # enough for the statistics of norms
BATCH = 64
COPIED = (
    "manifest.json", "data.json", "validation.txt", "permutation.json", "sample_weights.csv", "regions.json",
    "boxes.csv", "environment.json", "changes.yaml",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    runs: Positional[tuple[Path, ...]]
    """The folders of one or more runs."""
    best: Annotated[Annotated[int, Ge(2)] | None, arg(metavar="INT")] = None
    """How many of the kept epochs to average, best first; by default all."""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The folder of the new run; by default one beside the first run, named like it with -average appended."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """Where the contest's folder is now, if it was moved."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; by default where the first run kept them."""
    gpu: bool = False
    """Compute on the GPU."""


@dataclass(frozen=True)
class Kept:
    """The weights of an epoch, in a file, with their validation MSE."""

    path: Path
    epoch: int
    mse: float


def average_runs(
    runs: list[Run],
    output: Path,
    runtime: Runtime,
    *,
    best: int | None = None,
    data: Path | None = None,
    cache: Path | None = None,
) -> Run:
    """Writes the average of the best kept epochs, as a run that predict.py takes. Raises UserError if they cannot be
    averaged. data, cache: where they are now, if not where the first run had them."""
    kept = kept_epochs(runs)[:best]
    if len(kept) < 2:
        raise UserError(
            f"{' '.join(str(run.folder) for run in runs)}: {len(kept)} epochs were kept, two are needed; train with "
            "--keep-best 5"
        )
    check_alike(runs)
    first = runs[0]
    where = first.recipe().run.moved(data, cache)
    opened = training_data(first, where)
    network = load_run_network(first, "best").to(runtime.device)
    before = score_of(network, opened, runtime)
    averaged = average(network, kept)
    with runtime.autocast():
        measure_norms(averaged, kept, plain_images(opened.pack, opened.train, runtime.device, seed=where.seed))
    after = score_of(averaged.eval(), opened, runtime)
    print(f"{'best epoch':20} {before}")
    print(f"{f'average of {len(kept)}':20} {after}")
    return write_run(first, output, averaged, kept, after)


def kept_epochs(runs: list[Run]) -> list[Kept]:
    """The epochs that the runs have kept, best first. Raises UserError, naming the file, for one that is damaged."""
    kept = [Kept(path, epoch, mse_of(path)) for run in runs for epoch, path in run.best_epochs().items()]
    return sorted(kept, key=lambda each: each.mse)


def check_alike(runs: list[Run]):
    """Raises UserError if the runs held out different photos, or differ in their data, ROI or size."""
    first = runs[0]
    for run in runs[1:]:
        if set(run.held_out_names()) != set(first.held_out_names()):
            raise UserError(
                f"{run.folder} held out other photos than {first.folder}; train it with --split of that run"
            )
        same = _data_of(run) == _data_of(first) and run.recipe().photos.size == first.recipe().photos.size
        if not same:
            raise UserError(f"{run.folder} and {first.folder} are of other data, ROI or size; average runs that agree")


def _data_of(run: Run) -> AboutData:
    """What a run was trained on, without what earlier versions did not note, and without what follows from the rest."""
    return replace(run.about_data(), num_points=None, spread=None, labels={}, mean_shape=Scores(0, 0, 0, 0))


def average(network: LandmarkNet, kept: list[Kept]) -> LandmarkNet:
    """A network with the mean of the weights; `network` is changed. Raises UserError for a file of another network."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" not in name}
    mean = AveragedModel(network)
    for each in kept:
        with fitting(each.path):
            load_network(network, load_checkpoint(each.path)["network"])
            for name, buffer in network.named_buffers():
                if name in buffers and buffer.is_floating_point() and not torch.equal(buffer, buffers[name]):
                    raise ValueError(f"its {name} is another; average runs that started from the same weights")
        mean.update_parameters(network)
    assert isinstance(mean.module, LandmarkNet)
    return mean.module


def measure_norms(network: LandmarkNet, kept: list[Kept], batches: Iterable[torch.Tensor]):
    """Measures the statistics of batch norms again, as torch's update_bn does, except those that were frozen: they are
    the same in all epochs, and what was trained behind them relies on them."""
    first, *others = (load_checkpoint(each.path)["network"] for each in kept)
    measured = [
        module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        and any(not torch.equal(other[f"{name}.running_mean"], first[f"{name}.running_mean"]) for other in others)
    ]
    momenta = [module.momentum for module in measured]
    network.eval()
    for module in measured:
        module.train()
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for images in batches:
            network(images)
    for module, momentum in zip(measured, momenta, strict=True):
        module.momentum = momentum


def plain_images(pack: Pack, samples: np.ndarray, device: torch.device, *, seed: int) -> Iterator[torch.Tensor]:
    """(B, 3, S, S) images of up to MAX_PHOTOS random photos among `samples`, without augmentation, in full batches."""
    order = np.random.default_rng(seed).permutation(samples)[:MAX_PHOTOS]
    source, size = HostSource(pack.squares, device), (pack.roi.size, pack.roi.size)
    for begin in range(0, max(len(order) - BATCH, 0) + 1, BATCH):
        block = order[begin : begin + BATCH]
        yield pack.roi.then(Transform.identity(len(block), size)).warp(source.take(block))


def score_of(network: LandmarkNet, data: TrainingData, runtime: Runtime) -> Scores:
    """The scores on the held-out photos."""
    points = predict_points(network, data.pack, data.validation, runtime=runtime, description="held-out photos")
    return score(points, data.pack.values[data.validation], data.groups[data.validation])


def write_run(first: Run, output: Path, network: LandmarkNet, kept: list[Kept], scores: Scores) -> Run:
    """Writes a folder with what the first run was made with, and the averaged weights as its best."""
    try:
        output.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{output} is there already; give another --output") from error
    try:
        _write_into(first, output, network, kept, scores)
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)  # nobody could predict with it
        raise
    return Run(output)


def _write_into(first, output, network, kept, scores):
    for name in COPIED:
        if (first.folder / name).exists():
            shutil.copyfile(first.folder / name, output / name)
    if first.locator.folder.exists():
        shutil.copytree(first.locator.folder, Run(output).locator.folder)
    content = {"network": network.state_dict(), "epoch": kept[0].epoch, "mse": scores.mse, "averaged": len(kept)}
    save_checkpoint(Run(output).best, content)
    shutil.copyfile(first.recipe_path, Run(output).recipe_path)  # last: with it the folder is a run


def folder_of_average(run: Run) -> Path:
    """Beside the run; for a stage or fold, beside the folder that holds it, since the average is neither."""
    whole = folder_of(run)
    parts = [whole.name] if whole == run.folder else [whole.name, run.folder.name]
    return whole.with_name("-".join([*parts, "average"]))


def main():
    options = parse_flags(Options, __doc__)
    if not options.runs:
        raise UserError("no run is named; give the folder of one that was trained with --keep-best")
    runs = [find_run(folder, folder) for folder in options.runs]
    output = options.output or folder_of_average(runs[0])
    check_folder("--output", output.parent)
    if output.exists():
        raise UserError(f"{output} is there already; give another --output")
    runtime = Runtime.choose(gpu=options.gpu, precision=runs[0].recipe().network.precision)
    run = average_runs(runs, output, runtime, best=options.best, data=options.data, cache=options.cache)
    print(f"written to {run.folder}")
    print(f"submission  {predict_command(run.folder)}")


if __name__ == "__main__":
    run_script(main)
