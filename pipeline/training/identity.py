"""What tells a run's checkpoint from those of other runs."""

import json

from pipeline.data.dataset import TrainingData
from pipeline.files import digest
from pipeline.old_names import AT_FIRST
from pipeline.recipe import CHANGEABLE_ON_RESUME, Recipe, build_recipe, changes, flatten

MOVABLE = {"name", "roi", "split", "flip_indices", "sample_weights", "weights", "init", "locator"}
ALWAYS_IDENTIFY = {  # what recipes had when checkpoints were first bound to one; later fields count if they are set
    "seed", "size", "resize", "train_share", "model", "freeze_epochs", "precision", "augment", "beta", "loss_unit",
    "outside_weight", "top_perc_train", "without_top_perc_train", "trim_at_random", "batch_size", "learning_rate",
    "weight_decay", "schedule", "warmup", "plateau_factor", "plateau_patience", "clip", "ema_decay",
}  # fmt: skip


def identity_of(recipe: Recipe, data: TrainingData) -> str:
    """What tells a run's checkpoint from those of other runs: the data, the split, the photos' weights if they differ,
    and what no resume may change. Where files of the recipe lie is left out: they may be moved. So are fields that
    earlier versions did not have, as long as they do what these versions did, so that their checkpoints can be resumed.
    """
    earliest = build_recipe(AT_FIRST, name_of=str)
    told = ALWAYS_IDENTIFY | changes(recipe, earliest).keys()
    fixed = {name: value for name, value in flatten(recipe).items() if name in told - CHANGEABLE_ON_RESUME - MOVABLE}
    weights = [] if data.weights is None else [data.weights[data.train].tolist()]
    return digest(json.dumps([fixed, data.pack.fingerprint, data.train.tolist(), *weights]).encode())
