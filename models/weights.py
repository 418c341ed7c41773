"""Starting a network from weights: ImageNet's, a torchvision state dict, or those of an earlier run.

What weights expect of their input comes along with them: for torchvision's, what their own preset says; for a run's,
what its network was trained with.
"""

import math
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torchvision.models.vision_transformer import interpolate_embeddings

from models.backbones import check_name
from models.landmarks import ADDED_LATER, READ, LandmarkNet, colour
from models.timm_backbones import is_of_timm, read_timm_weights, timm_colours, with_positions_of_timm

State = dict[str, torch.Tensor]

# Their weights were trained on colours from -1 to 1. Torchvision says so not in the preset but by a switch of the
# network, which undoes the preset's normalisation (`transform_input`).
FROM_MINUS_ONE_TO_ONE = ("inception_v3", "googlenet")

# What torch and zipfile raise if bytes of a file are not those that were written.
DAMAGED = (
    RuntimeError, EOFError, pickle.UnpicklingError, struct.error, AssertionError, AttributeError, LookupError,
    OverflowError, TypeError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

ENOUGH = 0.9  # of the backbone's tensors, and of the file's
WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # before the names of DistributedDataParallel and torch.compile
OF_HEADS = ("decoder.", "backbone.aux1.", "backbone.aux2.", "backbone.AuxLogits.")  # all but the first are auxiliary
OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
PREFIX = "backbone."  # of the names of a backbone's tensors
POSITIONS = "encoder.pos_embedding"
COMPONENTS = "decoder.points.components"


@dataclass(frozen=True)
class Loaded:
    """What a load did: how many tensors were loaded, whether some or all of the head's are among them, and the names of
    the others.

    `missing` and `missing_of_head` keep their random values; `left_over` are in the file and in no layer of that shape.
    Neither `missing` nor `left_over` includes those of the head.
    """

    num_loaded: int
    some_of_head: bool
    missing_of_head: list[str]
    missing: list[str]
    left_over: list[str]


def read_imagenet_weights(model: str) -> State:
    """Torchvision's own default weights of `model`, or those of timm, downloaded to its cache if they are not there.

    Raises OSError (URLError among them) if they cannot be had, RuntimeError if they arrive damaged.
    """
    if is_of_timm(model):
        return _as_of_network(read_timm_weights(model), model)
    weights = torchvision.models.get_model_weights(model).DEFAULT
    return _as_of_network(weights.get_state_dict(progress=True, check_hash=True), model)


def read_weights(path: Path, model: str) -> State:
    """The tensors of a file: a torchvision state dict of `model`, or a checkpoint of an earlier run.

    Raises OSError if it cannot be read, ValueError if it is something else.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{path} is not a file of weights as torch.save wrote it; take another copy") from error
    state = content.get("network", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise ValueError(f"{path} holds neither a state dict nor a checkpoint of a run")
    state = _unwrapped(state)
    return state if "mean_shape" in state else _as_of_network(state, model)


def _unwrapped(state):
    """A state dict with the names that its tensors have in the network itself."""
    if not all(map(WRAPPERS.match, state)):
        return state
    bare = OrderedDict((WRAPPERS.sub("", name, count=1), tensor) for name, tensor in state.items())
    versions = getattr(state, "_metadata", {})
    named = {WRAPPERS.sub("", f"{name}.", count=1).rstrip("."): version for name, version in versions.items()}
    bare._metadata = named  # type: ignore[attr-defined]
    return bare


def _check_sums(path):
    """Compares all that the file holds with its checksums, which torch writes but does not check. Files in its old
    format have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(damaged)


def _is_entry(item):
    name, value = item
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def expected_colours(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, in 0..1, with which torchvision's default weights of `model` expect colours to be normalised.

    Raises ValueError for a name that torchvision does not have.
    """
    check_name(model)
    if is_of_timm(model):
        return timm_colours(model)
    if model in FROM_MINUS_ONE_TO_ONE:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    preset = torchvision.models.get_model_weights(model).DEFAULT.transforms()
    return tuple(preset.mean), tuple(preset.std)


def load_state(network: LandmarkNet, state: State) -> Loaded:
    """Copies every tensor whose name and shape fit. A classifier's last layer is no head, whatever its shape.

    Raises ValueError, with the network half changed, if less than nine tenths of the backbone or of the file fit.
    """
    state = _with_positions(state, network.backbone)
    own = network.state_dict()
    head = network.names_of_head()
    not_backbone = head | network.left_out | {name for name in state if name.startswith(OF_HEADS)}
    backbone = {name for name in own if name.startswith("backbone.")} - head
    of_run = "mean_shape" in state
    misfits = {name for name, tensor in state.items() if name in own and own[name].shape != tensor.shape}
    fitting = _like(state, {name: state[name] for name in state.keys() - misfits - (set() if of_run else head)})
    if of_run:
        fitting.setdefault("mean_shape", own["mean_shape"])
    if READ in fitting and not fitting[READ].any():  # of a run that began before shapes were read
        del fitting[READ]
    try:
        result = network.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise ValueError(f"these weights are of another --model: {str(error).splitlines()[-1].strip()}") from error
    missing = {name for name in result.missing_keys if name in backbone and not name.endswith(".slope")}
    left_over = {*result.unexpected_keys, *misfits} - not_backbone - {"mean_shape"}
    in_file = len(state.keys() - not_backbone)
    if len(missing) > (1 - ENOUGH) * len(backbone) or len(left_over) > (1 - ENOUGH) * in_file:
        raise ValueError(
            f"{len(backbone) - len(missing)} of the {len(backbone)} tensors of this network's backbone are in these "
            f"weights, and {len(left_over)} of theirs are in no layer of it; are they of another --model?"
        )
    num_loaded = sum(name in own and name.startswith(("backbone.", "decoder.")) for name in fitting)
    missing_of_head = sorted(head - fitting.keys() - ADDED_LATER)
    return Loaded(num_loaded, bool(head & fitting.keys()), missing_of_head, sorted(missing), sorted(left_over))


def resized(state: State, before: int, size: int) -> State:
    """The state of a network for images of `before` pixels, turned into that of one for images of `size` pixels.

    Heads predict in units of the image's side. Only the mean shape, whose pixel centres are at integers, and the space
    of shapes of a low-rank head are in pixels.
    """
    scale = size / before
    scaled = {"mean_shape": (state["mean_shape"] + 0.5) * scale - 0.5}
    if COMPONENTS in state:
        scaled[COMPONENTS] = state[COMPONENTS] * scale
    return _like(state, {**state, **scaled})


def _as_of_network(state, model):
    """A torchvision state dict with the names that its tensors have in a `LandmarkNet`, and the colours it expects."""
    mean, std = expected_colours(model)
    names = {name: "backbone." + OLD_DENSE_LAYER.sub(r"\1\2", name) for name in state}
    found = OrderedDict((names[name], tensor) for name, tensor in state.items())
    versions = getattr(state, "_metadata", {})
    found._metadata = {f"backbone.{name}".rstrip("."): of for name, of in versions.items()}  # type: ignore[attr-defined]
    found.update(colour_mean=colour(mean), colour_std=colour(std))
    return found


def _with_positions(state, backbone):
    """The state with a transformer's position embedding resampled for images of another size."""
    name, own_positions = PREFIX + POSITIONS, backbone.state_dict().get(POSITIONS)
    if own_positions is None:  # not a transformer of torchvision, neither whole nor up to its last map
        own = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        resampled = with_positions_of_timm(backbone, own)
        return _like(state, state | {PREFIX + name: tensor for name, tensor in resampled.items()})
    if name not in state:
        return state
    patch = backbone.get_submodule("conv_proj").kernel_size[0]
    size = patch * math.isqrt(own_positions.shape[1] - 1)
    resampled = interpolate_embeddings(size, patch, OrderedDict({POSITIONS: state[name]}))
    return _like(state, {**state, name: resampled[POSITIONS]})


def _like(state, tensors):
    """The tensors as a state dict with the versions of `state`, by which layers rename what older files hold."""
    found = OrderedDict(tensors)
    found._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    return found
