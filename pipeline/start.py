"""The network that a recipe asks for, and the weights that it starts from."""

from pathlib import Path

import numpy as np
import torch

from models import LandmarkNet, Loaded, build_network, load_state, network_names, read_imagenet_weights, read_weights
from pipeline.checkpoint import load_checkpoint
from pipeline.errors import UserError
from pipeline.recipe import NetworkOptions
from pipeline.runs import Run, find_run

NUM_LISTED = 6
ELSEWHERE = 0.02  # of the image's side, on average: a mean shape so far away is of images that show something else


def read_start(options: NetworkOptions) -> dict[str, torch.Tensor] | None:
    """The tensors to start from, or None for a random start. Asked for before anything that takes long.

    Raises UserError when they cannot be had: the run neither dies later nor becomes another experiment.
    """
    if options.model not in network_names():
        raise UserError(f"--model {options.model} is none of torchvision's: {', '.join(network_names())}")
    if options.init:
        return _read(f"--init {options.init}", find_run(options.init, options.init).best)
    if options.weights == "none":
        return None
    if options.weights != "imagenet":
        return _read(f"--weights {options.weights}", Path(options.weights))
    try:
        return read_imagenet_weights(options.model)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the ImageNet weights of {options.model} cannot be downloaded ({error}); give --weights a FILE of them, "
            "or --weights none to start from random ones"
        ) from error


def load_run_network(run: Run, checkpoint: str) -> LandmarkNet:
    """The averaged network of a run in eval mode: `best` by validation, or of the `last` epoch."""
    content = load_checkpoint(run.best if checkpoint == "best" else run.last)
    state = content["network" if checkpoint == "best" else "average"]
    recipe = run.recipe()
    network = build_network(recipe.network.model, state["mean_shape"], recipe.photos.size)
    network.load_state_dict(state)
    return network.eval()


def _read(flag, path):
    try:
        return read_weights(path)
    except OSError as error:
        raise UserError(f"{flag}: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error


def make_network(
    options: NetworkOptions, start: dict[str, torch.Tensor] | None, *, mean_shape: np.ndarray, size: int, seed: int
) -> LandmarkNet:
    """The network with its start loaded, after a look at whether it takes images of this size.

    Weights of a run bring their mean shape along, unless it was of images of another size or another window.
    """
    torch.manual_seed(seed)
    network = build_network(options.model, mean_shape, size)
    _check_size(network, options.model, size)
    if start is not None:
        own = network.mean_shape.clone()
        try:
            print(_describe(load_state(network, start)))
        except ValueError as error:
            raise UserError(str(error)) from error
        if (network.mean_shape - own).abs().mean() > ELSEWHERE * size:
            print("  their mean shape lies elsewhere (another size, window or contest); that of these photos is taken")
            network.mean_shape.copy_(own)
    return network


def _check_size(network, model, size):
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"--model {model} does not take images of --size {size}: {str(error).splitlines()[0]}"
        ) from error
    network.train()


def _describe(loaded: Loaded) -> str:
    lines = [f"loaded {loaded.num_loaded} tensors"]
    for names, what in ((loaded.missing, "start at random"), (loaded.left_over, "of the file were not used")):
        if names:
            more = f" … and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
            lines.append(f"  {len(names)} {what}: {', '.join(names[:NUM_LISTED])}{more}")
    return "\n".join(lines)
