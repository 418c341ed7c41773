"""The network that a recipe asks for, and the weights that it starts from."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from models import (
    LandmarkNet,
    Loaded,
    NoMap,
    build_network,
    check_name,
    check_one_output,
    load_state,
    read_imagenet_weights,
    read_weights,
    resized,
)
from pipeline.checkpoint import check_tensor, fitting, load_checkpoint, load_network
from pipeline.errors import UserError
from pipeline.files import check_regular
from pipeline.memory import is_out_of_memory
from pipeline.ranks import current_ranks
from pipeline.recipe import NetworkOptions, Recipe, needs_scale
from pipeline.recipe_file import read_recipe
from pipeline.runs import Run, find_run
from pipeline.trainable import stays_frozen

NUM_LISTED = 6
ELSEWHERE = 0.02  # of the image's side, on average: a mean shape so far away is of images that show something else


def read_start(options: NetworkOptions) -> dict[str, torch.Tensor] | None:
    """The tensors to start from, or None for a random start. Asked for before anything that takes long.

    Raises UserError when they cannot be had: the run neither dies later nor becomes another experiment.
    """
    _check_name(options.model)
    if options.head == "linear" and not options.init:  # which has its head already
        try:
            check_one_output(options.model)
        except ValueError as error:
            raise UserError(f"--head linear: {error}; give another --head, such as low_rank") from error
    flag, path = _source(options)
    if path:
        return _read(flag, path, options.model)
    if options.weights == "none":
        if options.freeze_epochs:
            raise UserError(
                f"--freeze-epochs {options.freeze_epochs}: the backbone starts from random weights, of which a head "
                "learns next to nothing; give 0, or weights to start from"
            )
        return None
    try:
        return read_imagenet_weights(options.model)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the ImageNet weights of {options.model} cannot be downloaded ({error}); give --weights a FILE of them, "
            "or --weights none to start from random ones"
        ) from error


def load_run_network(run: Run, checkpoint: str) -> LandmarkNet:
    """The averaged network of a run in eval mode: `best` by validation, or of the `last` epoch.

    Raises UserError, naming the file, where it holds another network or none.
    """
    recipe = run.recipe()
    path, key = (run.best, "network") if checkpoint == "best" else (run.last, "average")
    content = load_checkpoint(path, key)
    if checkpoint == "best" and "average" in content:  # of these weights the average is what is validated
        raise UserError(f"{path} is a {run.last.name}, not the best weights; take a copy of it as it was")
    with fitting(path):
        state = content[key]
        mean_shape = state["mean_shape"]
        num_points = run.about_data().num_points or len(mean_shape)
        check_tensor(mean_shape, torch.zeros(num_points, 2), "mean_shape")
        network = build_for(recipe, mean_shape)
        load_network(network, state)
    return network.eval()


class Photos(Protocol):
    """Photos with labels, as a pack has them."""

    @property
    def fingerprint(self) -> str: ...

    def checksums(self, names: Sequence[str]) -> dict[str, int]: ...


def check_unseen(options: NetworkOptions, photos: Photos, data: Path, *, held_out: list[str], everything: bool):
    """Raises UserError where the run that the network starts from was trained on photos that are held out now.

    They would no longer tell how well the network does on photos that it has not seen. photos: those in the folder
    `data`. everything: whether each photo is held out in turn, as by folds.
    """
    flag, path = _source(options)
    if path and Run(path.parent).recipe_path.exists():
        fix = "folds start from weights of no run" if everything else None
        check_unseen_by(Run(path.parent), flag, photos, data, held_out=held_out, fix=fix)


def check_unseen_by(
    run: Run,
    flag: str,
    photos: Photos,
    data: Path,
    *,
    held_out: list[str],
    fingerprint: str | None = None,
    fix: str | None = None,
):
    """The same check for a run that a flag names; one of another contest passes. fingerprint: of the photos as that run
    sees them, if it differs from that of `photos`. fix: what to do, if not to hold out what the run has.

    Photos of one contest have another fingerprint with another --limit-photos, --size or --boxes, and after a label was
    mended. Then the run may have been trained on any that it has not held out. The contest is the same if it lies in
    the same folder, or if a photo has the same name and the same points.
    """
    about = run.about_data()
    is_same = about.fingerprint == (fingerprint or photos.fingerprint)
    has_same_labels = bool(about.labels.items() & photos.checksums(list(about.labels)).items())
    if not (is_same or has_same_labels or _are_one(run.recipe().run.data, data)):
        return
    if seen := set(held_out) - set(run.held_out_names()):
        was, without = ("was", "") if is_same else ("may have been", ", without --limit-photos")
        fix = fix or f"give --split {run.split}{without}"
        raise UserError(f"{flag} {was} trained on {len(seen):,} of the photos that are to be held out; {fix}")


def _are_one(folder: Path, other: Path) -> bool:
    """Whether two folders are of the same contest, which --data takes where it lies and one level above."""
    above, below = sorted(map(os.path.realpath, (folder, other)), key=len)
    holds_another = os.path.exists(os.path.join(above, "train/landmarks.csv"))
    return above == below or (os.path.dirname(below) == above and not holds_another)


def _source(options: NetworkOptions) -> tuple[str, Path | None]:
    """The flag that says where a network starts, and the file of weights that it names."""
    if options.init:
        run = find_run(options.init, options.init)
        run.recipe()  # raises where it is not what the run was made with
        return f"--init {options.init}", run.best
    flag = f"--weights {options.weights}"
    return flag, None if options.weights in ("imagenet", "none") else Path(options.weights)


def _read(flag, path, model):
    try:
        check_regular(path)
        return _finite(read_weights(path, model), path)
    except OSError as error:
        raise UserError(f"{flag}: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error


def _finite(state, path):
    """The state. Raises ValueError for one with values that are no numbers, which no training would mend."""
    for name, tensor in state.items():
        check_tensor(tensor, tensor, f"{path}: {name}")
    return state


def _check_name(model):
    try:
        check_name(model)
    except ValueError as error:
        raise UserError(f"--model {error}") from error


def make_network(
    recipe: Recipe,
    start: dict[str, torch.Tensor] | None,
    *,
    mean_shape: np.ndarray,
    components: np.ndarray | None = None,
    num_photos: int | None = None,
) -> LandmarkNet:
    """The network with its start loaded, after a look at whether it takes images of these sizes.

    Weights of a run bring their mean shape along, at the size of the images here, unless it was of another ROI or
    contest. components: (Q, K, 2) of the training shapes, in pixels, for a head that starts from them. num_photos: to
    train on, which may be fewer than a batch.
    """
    options, size = recipe.network, recipe.photos.size
    torch.manual_seed(recipe.run.seed)
    _check_name(options.model)
    try:
        network = build_for(recipe, mean_shape)
    except NoMap as error:
        raise UserError(f"--deepest-stride {options.deepest_stride}: {error}") from error
    except (RuntimeError, AssertionError, ValueError) as error:  # of a backbone, with images of this size
        if is_out_of_memory(error):
            raise
        raise _of_other_size(options.model, f"--size {size}", error) from error
    _check_size(network, options.model, size, flag="--size")
    for _, smaller in recipe.photos.progressive:
        _check_size(network, options.model, smaller, flag="--progressive")
    if not stays_frozen(recipe) and _norms_see_one_photo(recipe, num_photos):
        _check_alone(network, recipe, num_photos)
    if components is not None:
        network.start_from(components)
    if start is not None:
        _load_start(network, start, recipe, components)
    return network


def check_network(recipe: Recipe, start: dict[str, torch.Tensor] | None):
    """Raises UserError, before photos are packed, where the network does not take images of these sizes, the weights
    that it is to start from do not fit, or a step has no photo for some of the processes."""
    batch_size, num_ranks = recipe.optimiser.batch_size, current_ranks().num_ranks
    if batch_size < num_ranks:
        raise UserError(
            f"--batch-size {batch_size}: {num_ranks} processes share its photos, and each needs one of a step; give a "
            "larger batch or fewer processes"
        )
    network = make_network(recipe, None, mean_shape=np.zeros((2, 2)))
    if start is not None:
        try:
            load_state(network, start)
        except ValueError as error:
            raise UserError(f"{_source(recipe.network)[0]}: {error}") from error


def _norms_see_one_photo(recipe, num_photos):
    """Whether a part of a batch may have a single photo, which norms then see alone."""
    ranks, options = current_ranks(), recipe.optimiser
    if ranks.num_ranks > 1 and recipe.run.gpu and not recipe.network.local_norms:
        return False  # they see the photos of all ranks
    batch_size = min(options.batch_size, num_photos or options.batch_size)
    return batch_size // (ranks.num_ranks * options.accumulate) <= 1


def _load_start(network, start, recipe, components):
    """Loads weights, and says what was loaded and what starts anew."""
    options, size = recipe.network, recipe.photos.size
    of_run, own = "mean_shape" in start, network.mean_shape.clone()
    if of_run and (before := _size_of_start(options)) and before != size:
        start = resized(start, before, size)
    try:
        print(_describe(load_state(network, start)))
    except ValueError as error:
        raise UserError(f"{_source(options)[0]}: {error}") from error
    if of_run and len(start["mean_shape"]) != len(own):
        print(
            f"  their head is for {len(start['mean_shape'])} points, these photos have {len(own)}: "
            "what depends on that starts anew"
        )
    if (network.mean_shape - own).abs().mean() > ELSEWHERE * size:
        print("  their mean shape lies elsewhere (another size, ROI or contest); that of these photos is taken")
        network.mean_shape.copy_(own)
        if components is not None and options.head == "integral":
            network.start_from(components)  # those of the start are as large as shapes were there


def _size_of_start(options):
    """The size of the images that a run was trained on whose weights a network starts from; None where it is of none
    that is known."""
    path = _source(options)[1]
    recipe = Run(path.parent).recipe_path if path else None
    return read_recipe(recipe).photos.size if recipe and recipe.exists() else None


def build_for(recipe: Recipe, mean_shape: np.ndarray) -> LandmarkNet:
    """The untrained network of a recipe. Raises ValueError, RuntimeError or AssertionError if the backbone does not
    take images of that size."""
    return build_network(
        recipe.network.model,
        mean_shape,
        recipe.photos.size,
        head=recipe.network.head,
        map_stride=recipe.network.map_stride,
        deepest_stride=recipe.network.deepest_stride,
        with_scale=needs_scale(recipe.loss),
    )


def _check_size(network, model, size, *, flag):
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise _of_other_size(model, f"{flag} {size}", error) from error
    network.train()


def _check_alone(network, recipe, num_photos):
    """Raises UserError where a photo alone in its part of a batch gives a batch norm one value, which has no spread."""
    options, sizes = recipe.optimiser, [size for _, size in recipe.photos.progressive]
    try:
        with torch.no_grad():
            for size in (recipe.photos.size, *sizes):
                copy.deepcopy(network).train()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except ValueError as error:
        few = num_photos is not None and num_photos < options.batch_size
        given = f"--batch-size {options.batch_size} --accumulate {options.accumulate}"
        raise UserError(
            f"{given}{f' of {num_photos} training photos' if few else ''}: a norm of {recipe.network.model} sees one "
            f"value of a photo of {size} px alone; give a larger batch, fewer parts or processes, or larger images"
        ) from error


def _of_other_size(model, flag, error):
    return UserError(f"--model {model} does not take images of {flag}: {str(error).splitlines()[0]}")


def _describe(loaded: Loaded) -> str:
    of_head = loaded.missing_of_head if loaded.some_of_head else []
    at_random = "; the head starts at random" if loaded.missing_of_head and not of_head else ""
    lines = [f"loaded {loaded.num_loaded} tensors{at_random}"]
    for names, what in (
        (of_head, "of the head start at random"),
        (loaded.missing, "start at random"),
        (loaded.left_over, "of the file were not used"),
    ):
        if names:
            more = f" … and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
            lines.append(f"  {len(names)} {what}: {', '.join(names[:NUM_LISTED])}{more}")
    return "\n".join(lines)
