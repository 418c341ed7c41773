"""Lists torchvision's backbones for `--model`, with their accuracy on ImageNet and what they cost here.

Parameters and operations are those of the recipe's network, with its head, for a photo of its size. --measure takes
training steps on images of noise, and shows their rate and the memory that they need beyond that of the program.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import torch
import torchvision
from annotated_types import Ge, Gt
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode
from tyro.conf import Positional, arg

from models import LandmarkNet, check_name, network_names
from models.timm_backbones import is_of_timm
from models.without_values import without_values
from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.networks import build_for
from pipeline.progress import progress
from pipeline.recipe import Recipe
from pipeline.recipe_file import read_recipe
from pipeline.runtime import Runtime

SECONDS = 5.0  # of measuring, after a step that is not counted
STATUS = Path("/proc/self/status")  # on Linux; it holds the peak memory of this program alone
REFUSALS = (ValueError, RuntimeError, AssertionError)  # what torchvision raises if a size does not suit a backbone


@dataclass(frozen=True)
class Options:
    models: Positional[tuple[str, ...]] = ()
    """Backbones, by the names that --model takes; by default all of torchvision's."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """A recipe file whose head, size and batch size to use."""
    size: Annotated[int, Ge(1)] | None = None
    """Side of the images, in pixels; by default the recipe's."""
    batch_size: Annotated[Annotated[int, Ge(1)] | None, arg(aliases=["-b"])] = None
    """Photos per step; by default the recipe's."""
    points: Annotated[int, Ge(1)] = 971
    """How many points to predict."""
    max_gflops: Annotated[float, Gt(0)] | None = None
    """Leave out backbones that cost more than this per photo, in 10⁹ operations."""
    sort: Literal["name", "accuracy", "parameters", "gflops", "rate", "memory"] = "gflops"
    """The column to sort by."""
    measure: bool = False
    """Take training steps with each backbone, in a process of its own; give names or --max-gflops too."""
    gpu: bool = False
    """Measure on the GPU."""


@dataclass(frozen=True)
class Backbone:
    """A row: ImageNet accuracy in percent, at images of `trained_at` pixels, of the weights that a training starts
    from; millions of parameters; 10⁹ operations per photo, counting a multiply-add as two; photos per second and GB of
    a training step. What is not known is None.
    """

    name: str
    accuracy: float | None
    trained_at: int | None
    parameters: float
    gflops: float
    rate: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class StepCost:
    """rate: photos per second. memory: GB."""

    rate: float
    memory: float


def recipe_of(options: Options) -> Recipe:
    """The recipe whose network is examined."""
    recipe = read_recipe(options.config) if options.config else Recipe()
    photos = replace(recipe.photos, size=options.size or recipe.photos.size)
    at_once = -(-recipe.optimiser.batch_size // recipe.optimiser.accumulate)
    optimiser = replace(recipe.optimiser, batch_size=options.batch_size or at_once, accumulate=1)
    return replace(recipe, photos=photos, optimiser=optimiser)


def build(name: str, recipe: Recipe, num_points: int) -> LandmarkNet:
    """The untrained network of a backbone. Raises one of REFUSALS if it does not take images of that size."""
    mean_shape = recipe.photos.size * np.random.default_rng(0).random((num_points, 2), dtype=np.float32)
    return build_for(replace(recipe, network=replace(recipe.network, model=name)), mean_shape)


def backbone_of(name: str, recipe: Recipe, num_points: int) -> Backbone:
    """The row of a backbone, found without values for its weights. Raises one of REFUSALS, as `build` does."""
    size = recipe.photos.size
    with without_values(), torch.no_grad():
        network = build(name, recipe, num_points).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    accuracy, trained_at = on_imagenet(name)
    return Backbone(name, accuracy, trained_at, parameters, counter.get_total_flops() / 1e9)


def on_imagenet(name: str) -> tuple[float | None, int | None]:
    """What torchvision says about the weights that a training starts from; timm says nothing."""
    if is_of_timm(name):
        return None, None
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], weights.transforms().crop_size[0]


def find_backbones(options: Options, recipe: Recipe) -> tuple[list[Backbone], dict[str, str]]:
    """The rows, and the reasons for the backbones without one, by name. Raises UserError for an unknown name."""
    for name in options.models:
        try:
            check_name(name)
        except ValueError as error:
            raise UserError(str(error)) from error
    names = options.models or network_names()
    rows: list[Backbone] = []
    refused: dict[str, str] = {}
    with progress(len(names), "backbones", unit="backbone") as bar:
        for name in names:
            try:
                rows.append(backbone_of(name, recipe, options.points))
            except REFUSALS as error:
                refused[name] = str(error).splitlines()[0]
            bar.update()
    limit = options.max_gflops or np.inf
    return [row for row in rows if row.gflops <= limit], refused


def measured(row: Backbone, options: Options) -> Backbone:
    """The row with the rate and the memory of a step, if a process of its own could take one."""
    asked = TypeAdapter(Options).dump_json(replace(options, models=(row.name,)))
    command = [sys.executable, "-c", "from tools.backbones import measure_alone; measure_alone()"]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, input=asked, capture_output=True, cwd=root, check=False)
    if result.returncode:
        said = result.stderr.decode(errors="replace").split("\n")[-2:-1]
        print(f"{row.name} could not be measured: {''.join(said) or f'it was ended (status {result.returncode})'}")
        return row
    found = TypeAdapter(StepCost).validate_json(result.stdout.splitlines()[-1])
    return replace(row, **asdict(found))


def measure_alone():
    """Measures the one backbone that standard input names, and prints the result; fails if a step fails."""
    options = TypeAdapter(Options).validate_json(sys.stdin.read())
    print(TypeAdapter(StepCost).dump_json(measure_step(options.models[0], recipe_of(options), options)).decode())


def measure_step(name: str, recipe: Recipe, options: Options) -> StepCost:
    """Steps of AdamW with one backbone: prediction, SmoothL1, gradient, update."""
    runtime = Runtime.choose(gpu=options.gpu, precision=recipe.network.precision)
    before = psutil.Process().memory_info().rss
    network = build(name, recipe, options.points).to(runtime.device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
    batch, size = recipe.optimiser.batch_size, recipe.photos.size
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, device=runtime.device)
    times = []
    for seconds in _steps(network, optimiser, images, runtime):
        times.append(seconds)
        if len(times) > 2 and sum(times[1:]) > SECONDS:
            break
    on_gpu = runtime.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes() - before
    return StepCost(batch / float(np.median(times[1:])), peak / 1e9)


def _steps(network, optimiser, images, runtime: Runtime) -> Iterator[float]:
    """The seconds that each step takes."""
    while True:
        begun = time.perf_counter()
        with runtime.autocast():
            points = network(images)
        loss = torch.nn.functional.smooth_l1_loss(points, torch.zeros_like(points))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # it waits for the device
        yield time.perf_counter() - begun


def peak_bytes() -> int:
    """The peak memory of this program, or its current memory if the system does not tell the peak."""
    if STATUS.exists():
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    return psutil.Process().memory_info().rss


def in_order(rows: list[Backbone], column: str) -> list[Backbone]:
    """The best first: high accuracies and rates, and low costs; what is not known comes last."""
    sign = -1 if column in ("accuracy", "rate") else 1

    def rank(row):
        value = getattr(row, column)
        return value if column == "name" else sign * value if value is not None else np.inf

    return sorted(rows, key=rank)


def table(rows: list[Backbone]) -> Iterator[str]:
    """The lines of the table."""
    width = max([len("backbone"), *(len(row.name) for row in rows)])
    heads = ("top-1 %", "at px", "parameters", "GFLOPs", "photos/s", "GB")
    yield f"{'backbone':{width}}" + "".join(f"{head:>11}" for head in heads)
    for row in rows:
        cells = (
            _cell(row.accuracy, ".2f"), _cell(row.trained_at, "d"), f"{row.parameters:.2f}M", f"{row.gflops:.2f}",
            _cell(row.rate, ".1f"), _cell(row.memory, ".2f"),
        )  # fmt: skip
        yield f"{row.name:{width}}" + "".join(f"{cell:>11}" for cell in cells)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def main():
    options = parse_flags(Options, __doc__)
    if options.measure and not (options.models or options.max_gflops):
        raise UserError("--measure of all backbones takes very long; name some, or give --max-gflops")
    recipe = recipe_of(options)
    if options.gpu:
        Runtime.choose(gpu=True)  # it is refused before anything takes long
    rows, refused = find_backbones(options, recipe)
    if options.measure:
        with progress(len(rows), "measured", unit="backbone") as bar:
            for number, row in enumerate(rows):
                rows[number] = measured(row, options)
                bar.update()
    print(f"at {recipe.photos.size} px, {options.points} points, head {recipe.network.head}", end="")
    print(f", steps of {recipe.optimiser.batch_size} photos" if options.measure else "")
    for line in table(in_order(rows, options.sort)):
        print(line)
    for name, reason in refused.items():
        print(f"{name} is not for images of {recipe.photos.size} px with this head: {reason}")


if __name__ == "__main__":
    run_script(main)
