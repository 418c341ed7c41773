"""Starting a network from weights: ImageNet's, a torchvision state dict, or those of an earlier run."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision

from models.landmarks import LandmarkNet

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Loaded:
    """What a load did: how many tensors came over, and the names of those that did not fit.

    `missing` keep their random start; `left_over` are in the file and in no layer of that shape.
    """

    num_loaded: int
    missing: list[str]
    left_over: list[str]


def read_imagenet_weights(model: str) -> State:
    """Torchvision's own default weights of `model`, downloaded to its cache if they are not there.

    Raises OSError (URLError among them) when they cannot be had, RuntimeError when they arrive damaged.
    """
    return torchvision.models.get_model_weights(model).DEFAULT.get_state_dict(progress=True, check_hash=True)


def read_weights(path: Path) -> State:
    """The tensors of a file: a torchvision state dict, or a checkpoint of an earlier run.

    Raises OSError when it cannot be read, ValueError when it is something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a file of weights that torch.save wrote") from error
    state = content.get("network", content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds neither a state dict nor a checkpoint of a run")
    return state


def load_state(network: LandmarkNet, state: State) -> Loaded:
    """Copies every tensor whose name and shape fit; names of a bare torchvision model are looked up in the backbone.

    Raises ValueError when none fits.
    """
    own = network.state_dict()
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ValueError("nothing in these weights fits a layer of this network; are they of another --model?")
    network.load_state_dict(fitting, strict=False)
    return Loaded(len(fitting), sorted(own.keys() - fitting), sorted(state.keys() - fitting))
