"""Backbones of timm, which is optional: `--model timm/NAME` if it is installed."""

import difflib
import re
import sys
from types import MethodType

import torch
from torch import nn

PREFIX = "timm/"
NUM_TAGS = 8  # that an error names
WITHOUT_NORM = (".hiera", ".hieradet_sam2")  # families that give no maps behind their last norm
POSITIONS = re.compile(r"pos_embed$|patch_pos$|relative_position_bias_table$|rel_pos_[hw]$|attention_biases$")
NATIVE = {"stages.0.blocks.0.norm1.weight"}  # by which timm knows a file of MViTv2 that is its own


def is_of_timm(model: str) -> bool:
    return model.startswith(PREFIX)


def check_timm_name(model: str):
    """Raises ValueError if timm is not installed, or has no such model, or no such tag of weights after a dot."""
    name = model.removeprefix(PREFIX)
    timm = _timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models())
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ValueError(f"{model!r} is none of timm's models; {hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [other.partition(".")[2] for other in timm.list_pretrained(f"{architecture}.*")]
        which = ", ".join(tags[:NUM_TAGS]) + (" …" if tags[NUM_TAGS:] else "")
        hint = "leave out the tag" + (f", or give one of {which}" if tags else "")
        raise ValueError(f"{model!r}: timm has no weights {tag!r} of {architecture}; {hint}") from error


def check_one_output(model: str):
    """Raises ValueError for a model with several output layers (distilled ones have two): a linear head replaces only
    the last one, so that points would still come from a layer that gives classes.
    """
    if not is_of_timm(model):
        return
    with torch.device("meta"):  # which computes and stores nothing
        few, more = (
            _timm().create_model(model.removeprefix(PREFIX), num_classes=count).state_dict() for count in (2, 3)
        )
    layers = sorted({name.rpartition(".")[0] for name, tensor in few.items() if tensor.shape != more[name].shape})
    if len(layers) > 1:
        raise ValueError(f"{model} has {len(layers)} output layers ({', '.join(layers)}), and this head takes one")


def build_timm_classifier(model: str, *, num_outputs: int, size: int) -> nn.Module:
    """An untrained classifier, built for images of `size` pixels if it takes only one size."""
    name = model.removeprefix(PREFIX)
    timm = _timm()
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    return timm.create_model(name, num_classes=num_outputs, **({"img_size": size} if fixed else {}))


def end_at_maps(classifier: nn.Module, *, deepest: int) -> list[int]:
    """Makes a classifier give a mapping of its maps, finest first, and returns their strides.

    Layers behind the last of them are removed.
    """
    last = {info["reduction"]: index for index, info in enumerate(classifier.feature_info)}  # type: ignore[arg-type]
    strides = sorted(stride for stride in last if 4 <= stride <= deepest)
    indices = [last[stride] for stride in strides]
    if indices:
        is_whole = indices[-1] == len(classifier.feature_info) - 1  # type: ignore[arg-type]
        classifier.norm_of_maps = is_whole and not type(classifier).__module__.endswith(WITHOUT_NORM)  # type: ignore[assignment]
        classifier.prune_intermediate_layers(indices, prune_norm=False, prune_head=True)  # type: ignore[operator]
    classifier.indices_of_maps = indices  # type: ignore[assignment]
    classifier.forward = MethodType(_maps, classifier)  # type: ignore[method-assign]
    return strides


def _maps(classifier, images: torch.Tensor) -> dict[str, torch.Tensor]:
    maps = classifier.forward_intermediates(
        images, indices=classifier.indices_of_maps, norm=classifier.norm_of_maps, intermediates_only=True
    )
    return {str(index): level for index, level in enumerate(maps)}


def read_timm_weights(model: str) -> dict[str, torch.Tensor]:
    """The pretrained weights of a model, downloaded. Raises OSError or RuntimeError if there are none."""
    timm = _timm()
    from huggingface_hub.errors import HTTPError  # of its client, which is no OSError
    from safetensors import SafetensorError

    try:
        return timm.create_model(model.removeprefix(PREFIX), pretrained=True).state_dict()
    except (HTTPError, SafetensorError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def with_positions_of_timm(backbone: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with position embeddings and relative position tables as timm resamples them for the image size of
    `backbone`. What timm cannot resample stays as it is, and is found not to fit.
    """
    module = type(backbone).__module__
    resample = getattr(sys.modules[module], "checkpoint_filter_fn", None) if module.startswith("timm.") else None
    shapes = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    of_positions = {
        name: tensor
        for name, tensor in state.items()
        if POSITIONS.search(name) and name in shapes and tensor.shape != shapes[name]
    }
    if not resample or not of_positions:
        return state
    try:
        resampled = resample({name: state[name] for name in NATIVE & state.keys()} | of_positions, backbone)
    except (RuntimeError, ValueError, AssertionError, LookupError):  # from tensors that are no such embeddings
        return state
    return state | {name: tensor for name, tensor in resampled.items() if tensor.shape == shapes.get(name)}


def synchronise_norms(network: nn.Module):
    """Replaces each batch norm in the network by a SyncBatchNorm. Some of timm's batch norms hold the
    activation behind them, which torch's own conversion would lose."""
    if any(type(module).__module__.startswith("timm.") for module in network.modules()):
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(network)
    else:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)


def timm_colours(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, in 0..1, with which a model's pretrained weights expect colours to be normalised."""
    found = _timm().get_pretrained_cfg(model.removeprefix(PREFIX))
    return tuple(found.mean), tuple(found.std)


def _timm():
    try:
        import timm
    except ImportError as error:
        raise ValueError("timm is not installed; pip install timm") from error
    return timm
