"""The recipe of a run: typed fields with defaults. Each is a flag, a key of a recipe file and a line of `recipe.yaml`.

A recipe file is flat; the sections here only group related fields. Nothing here imports torch, so that `--help`
appears at once.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from annotated_types import Gt, Interval
from pydantic import AfterValidator, TypeAdapter, ValidationError
from tyro.conf import arg

from pipeline.errors import UserError

AUGMENT: list[dict[str, Any]] = [
    {
        "AffineAugmenter": {
            "rotation": [-25, 25],
            "scale": [0.85, 1.2],
            "stretch": [0.9, 1.1],
            "shift_x": [-0.08, 0.08],
            "shift_y": [-0.08, 0.08],
        }
    },
    {"MirrorAugmenter": {"probability": 0.5}},
    {"BrightnessContrastAugmenter": {"brightness": [-25, 25], "contrast": [0.7, 1.4]}},
]

_MIRROR: dict[str, Any] = {"MirrorAugmenter": {"probability": 1}}
_PLACED: list[list[dict[str, Any]]] = [
    [],
    [{"AffineAugmenter": {"scale": 1.08}}],
    [{"AffineAugmenter": {"shift_y": -0.04}}],
    [{"AffineAugmenter": {"shift_y": 0.04}}],
]
VIEWS = [*_PLACED, *([_MIRROR, *view] for view in _PLACED)]


ImageSize = Annotated[int, Interval(ge=32, le=4096)]
Share = Annotated[float, Interval(ge=0, le=1)]
Side = Annotated[float, Interval(ge=0.1, le=1)]


def _in_square(roi):
    left, top, side = roi
    if max(left, top) + side > 1.001:
        raise ValueError("it reaches beyond the square; left + side and top + side are at most 1")
    return roi


def _at_most_whole(stages):
    if sum(share for share, _ in stages) > 1.001:
        raise ValueError("the shares of the training add up to more than 1")
    return stages


PartOfSquare = Annotated[tuple[Share, Share, Side], AfterValidator(_in_square)]
ProgressiveSizes = Annotated[tuple[tuple[Share, ImageSize], ...], AfterValidator(_at_most_whole)]
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
NotNegative = Annotated[float, Interval(ge=0, lt=math.inf)]
Percent = Annotated[float, Interval(ge=0, le=100)]
Whole = Annotated[int, Interval(ge=0, le=2**63 - 1)]  # what torch accepts as a seed
Count = Annotated[int, Interval(ge=1, le=10**9)]


@dataclass(frozen=True)
class RunOptions:
    """The run and its data"""

    name: Annotated[str, arg(aliases=["-n"])] = "run"
    """Name of the run; becomes part of its folder's name."""
    data: Annotated[Path, arg(aliases=["-d"])] = Path()
    """The contest's folder, with train/landmarks.csv in it or one level below."""
    gpu: bool = False
    """Train on the GPU."""
    deterministic: bool = False
    """Use deterministic algorithms on the GPU, which are slower, so that equal runs give equal weights there too. A
    warning names those that have none."""
    seed: Whole = 0
    """Seed of the split, weights, photo order and augmentation; equal seeds give equal runs, on a CPU to the bit."""
    runs: Path = Path("runs")
    """Where run folders go."""
    cache: Path = Path("cache")
    """Where decoded photos are kept between runs; may be deleted at any time."""
    skip_bad_photos: bool = False
    """Leave out photos that are missing or broken, and say how many."""
    check_photos: bool = False
    """Check the size and time of every photo, and all numbers in the cache, before relying on them. By default only
    folders and a few files are checked, which misses a photo that was edited in place."""
    stages: Annotated[list[dict[str, Any]], arg(constructor=json.loads, metavar="JSON")] = field(default_factory=list)
    """Train in stages, each from the best weights of the one before: a list of {field: value} with what each stage
    changes in the recipe, such as [{"freeze_epochs": 1, "epochs": 1}, {"learning_rate": 1e-4, "size": 224}]."""

    def moved(self, data: Path | None, cache: Path | None, *, skip_bad_photos: bool = False) -> "RunOptions":
        """The same, with the data and the cache where they are now, as far as that is given, and without bad photos if
        either says so."""
        skips = skip_bad_photos or self.skip_bad_photos
        return dataclasses.replace(self, data=data or self.data, cache=cache or self.cache, skip_bad_photos=skips)


@dataclass(frozen=True)
class PhotoOptions:
    """How photos become images, and which of them are held out"""

    size: ImageSize = 128
    """Side of the square image that the network sees, in pixels."""
    progressive: Annotated[ProgressiveSizes, arg(constructor=json.loads, metavar="JSON")] = ()
    """Train on smaller images first (progressive resizing), which takes a fraction of the time: a list of
    [share of the training, size]; the rest of the training is at --size."""
    resize: Literal["letterbox", "crop"] = "letterbox"
    """How a photo becomes a square: letterbox pads the short side with black, crop cuts the long one."""
    roi: Literal["auto", "whole"] | PartOfSquare = "auto"
    """The region of interest, the part of the square that the network sees: left, top and side as shares of the square;
    auto finds where the points are, whole takes all of it. With boxes or a locator it is a part of their squares."""
    boxes: Annotated[Path | None, arg(metavar="FILE")] = None
    """Show the network the square around a box in each photo of train, with a margin: a table of file_name, left, top,
    right and bottom. Test photos then need boxes of their own: predict.py --boxes."""
    locate: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """Spend this share of the training on a locator: the same network, on smaller images if its head allows it, which
    finds where to look. The run starts from its weights and sees the square around the points that it finds in each
    photo."""
    locator: Annotated[Path | None, arg(metavar="RUN")] = None
    """Look where this earlier run finds the points, instead of training a locator."""
    pack: Literal["auto", "raw", "jpeg"] = "auto"
    """How the cache keeps photos: raw needs no decoding; jpeg takes a sixth of the disk space, but is decoded each
    time; auto uses raw if it fits on the disk."""
    limit_photos: Annotated[Count | None, arg(metavar="INT")] = None
    """Use only this many photos of train, chosen at random but always the same, for a quick check."""
    train_share: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    """Share of the photos to train on; the others are for validation. Groups and near-duplicates stay together."""
    split: Annotated[Path | None, arg(metavar="FILE")] = None
    """A file with the name of one validation photo per line, such as the validation.txt of a run."""
    sample_weights: Annotated[Path | None, arg(metavar="FILE")] = None
    """How much photos count in training: a CSV file with the columns file_name and weight, such as the suspects.csv of
    tools.suspects; 0 leaves a photo out, and photos that are not listed have 1."""
    flip_indices: str = "auto"
    """The left/right partner of each point under mirroring: auto finds them, none turns mirroring off, and a path
    names a JSON file that lists them."""

    @property
    def locates(self) -> bool:
        """Whether another network finds where to look."""
        return bool(self.locate or self.locator)

    @property
    def on_boxes(self) -> bool:
        """Whether a table alone says which parts of the photos are shown."""
        return bool(self.boxes and not self.locates)


@dataclass(frozen=True)
class NetworkOptions:
    """The network and its initial weights"""

    model: str = "resnet50"
    """A torchvision classification backbone: resnet18, inception_v3, densenet121, resnext50_32x4d, convnext_tiny …; or,
    if timm is installed, timm/NAME."""
    head: Literal["linear", "flat", "low_rank", "integral", "simcc"] = "integral"
    """How the backbone's features become points: linear on pooled features, flat (linear on the whole map), low_rank
    (in a space of shapes), integral (soft-argmax, from the mean shape) or simcc (classes of coordinates)."""
    map_stride: Literal[4, 8] = 8
    """Stride of the map that the heads integral and simcc read points from, in pixels of the image per cell: 4 is more
    exact, but takes four times the memory, which matters with hundreds of points."""
    deepest_stride: Literal[8, 16, 32, 64] = 64
    """The coarsest of the backbone's maps that a head on maps uses, in pixels of the image per cell; layers behind it
    are left out. At 16 a ResNet18 has a quarter of its weights and takes about half the time."""
    weights: str = "imagenet"
    """Initial weights of the backbone: imagenet, none, or a FILE (a torchvision state dict or a run's best.pt)."""
    init: Annotated[Path | None, arg(metavar="RUN")] = None
    """Start from the best weights of this earlier run, with its head, model, size, resizing and region of interest."""
    freeze_epochs: Whole = 0
    """How many epochs to train only the head, with the backbone frozen."""
    local_norms: bool = False
    """On several GPUs, normalise over the photos of each GPU alone; by default over those of all (SyncBN)."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of convolutions and matrix products; auto is bf16 where the processor has it, fp16 on other GPUs."""


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation of the training photos"""

    augment: Annotated[list[dict[str, Any]], arg(constructor=json.loads, metavar="JSON")] = field(
        default_factory=lambda: AUGMENT
    )
    """Augmenters, applied in order: a list of {name: {parameter: value or [low, high]}}; [] for none."""


ScheduleName = Literal[
    "cosine", "cosine_restarts", "triangular", "one_cycle", "exponential", "linear", "constant", "plateau",
    "plateau_validation",
]  # fmt: skip
SCHEDULES = get_args(ScheduleName)
LossName = Literal[
    "smooth_l1", "mse", "l1", "wing", "soft_wing", "enme", "gaussian_nll", "laplace_nll", "rle", "simcc"
]  # fmt: skip


@dataclass(frozen=True)
class LossOptions:
    """The loss, and which photos of a batch count ("active learning")"""

    loss: LossName = "smooth_l1"
    """What to minimise: smooth_l1, mse, l1, wing or soft_wing of the coordinates; enme, the distances as in NME; the
    likelihoods gaussian_nll, laplace_nll or rle, which learn a scale for each point; or simcc, the divergence of a
    SimCC head's distributions."""
    beta: NotNegative = 1.0
    """SmoothL1 is quadratic below and linear above this error, in pixels of the image; 0 is plain L1."""
    simcc_sigma: Annotated[float, Interval(ge=0.1, le=1000)] = 2.0
    """Label smoothing of simcc: deviation of the Gaussian around the true coordinate, in pixels of the image."""
    focal: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Exponent of the focal loss, which makes simcc focus on points that are predicted badly; 0 for none."""
    edge_weight: NotNegative = 0.0
    """Weight of the edge-length term, for dense points: the mean error of distances between neighbouring points."""
    loss_unit: Literal["photo", "image"] = "photo"
    """Measure errors in pixels of the photo, as the metric does, or in pixels of the image, where photos count alike.
    With losses that have no unit (enme, likelihoods, simcc) they always count alike."""
    outside_weight: Share = 1.0
    """Weight of points that augmentation or the ROI puts outside the frame; those inside have 1."""
    top_perc_train: Percent = 100.0
    """Keep only photos whose loss is in this top percentage of recent losses; at least one per batch."""
    without_top_perc_train: Percent = 0.0
    """Of these, leave out photos whose loss is in this top percentage."""
    trim_from: NotNegative = 0.0
    """The epoch, which may be a fraction, from which photos are left out; before it all count."""
    trim_by: Literal["window", "sample"] = "window"
    """How a photo is ranked: by its loss among recent ones (window), or by the running mean of its losses among those
    of all photos (sample), which is steadier."""
    trim_at_random: bool = False
    """Keep the same number of photos, but random ones: the control that shows whether trimming helps."""

    @property
    def trims(self) -> bool:
        """Whether any photo may be left out."""
        return self.top_perc_train < 100 or self.without_top_perc_train > 0


def needs_scale(options: LossOptions) -> bool:
    """Whether the loss needs a network that learns how far off each point may be."""
    return options.loss in ("gaussian_nll", "laplace_nll", "rle")


def needs_distributions(options: LossOptions) -> bool:
    """Whether the loss needs a head that classifies coordinates."""
    return options.loss == "simcc"


@dataclass(frozen=True)
class OptimiserOptions:
    """Steps, rates and averages"""

    batch_size: Annotated[int, arg(aliases=["-b"]), Interval(ge=1, le=2**20)] = 32
    """How many photos a step uses."""
    accumulate: Annotated[int, Interval(ge=1, le=2**20)] = 1
    """Compute the gradient of a step in this many parts of its batch, one after the other, to save memory. The batch
    size is still that of the whole step; batch normalisation sees one part at a time."""
    epochs: Annotated[Count | Annotated[float, Interval(gt=0, le=10**9)], arg(aliases=["-e"], metavar="FLOAT")] = 20
    """How many epochs to train, such as 20 or 0.5. An epoch is a pass over the photos, or --steps-per-epoch."""
    steps_per_epoch: Annotated[Count | None, arg(metavar="INT")] = None
    """Validate and save after this many steps instead of after each pass over the training photos; a pass then goes on
    in the next epoch."""
    minutes: Annotated[Annotated[float, Interval(gt=0, le=10**6)] | None, arg(metavar="FLOAT")] = None
    """Train for this many minutes instead of a number of epochs; the schedule follows the clock."""
    optimiser: Literal["adamw", "sgd", "muon", "lion", "schedule_free"] = "adamw"
    """The optimiser: AdamW; SGD with Nesterov momentum; Muon for hidden filters and matrices, with AdamW for the rest;
    Lion; or schedule-free AdamW. Good learning rates are about 10 times AdamW's for SGD, and a tenth for Lion."""
    learning_rate: Annotated[Positive, arg(aliases=["-lr"])] = 1e-3
    """The highest learning rate of the schedule."""
    momentum: Annotated[Annotated[float, Interval(ge=0, lt=1)] | None, arg(metavar="FLOAT")] = None
    """Momentum of SGD and Muon, or the first beta of the others; by default 0.9, for Muon 0.95."""
    beta2: Annotated[Annotated[float, Interval(ge=0, lt=1)] | None, arg(metavar="FLOAT")] = None
    """Decay of AdamW's mean of squared gradients, or of Lion's momentum; by default 0.999, for Lion 0.99."""
    adamw_factor: Positive = 1.0
    """With --optimiser muon, factor on the learning rate of what AdamW trains: norms, biases, the first layer and the
    head."""
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Factor between the learning rates of neighbouring stages of the backbone: each has the rate of the next times
    this factor, and the head has the full rate. 1 trains everything at one rate."""
    weight_decay: NotNegative = 0.05
    """Weight decay of the optimiser; biases, norms, embeddings and scales are not decayed."""
    schedule: ScheduleName = "cosine"
    """How the learning rate changes: it falls to --final-rate along a cosine, a line or exponentially; it does so in
    --cycles, along cosines (cosine_restarts) or up and down (triangular); it rises over 30 % of the training and then
    falls (one_cycle); it is constant; or it is lowered when the smoothed training loss (plateau) or the validation MSE
    (plateau_validation) stops falling."""
    final_rate: NotNegative = 0.0
    """The lowest learning rate of the schedule: the one at its end, or the limit for a plateau; exponential needs one
    above 0."""
    cycles: Annotated[int, Interval(ge=1, le=10**6)] = 4
    """How many cycles cosine_restarts and triangular have."""
    warmup: Share = 0.03
    """Share of the training over which the learning rate rises from 0; one_cycle and triangular have their own rise."""
    plateau_factor: Annotated[float, Interval(gt=0, lt=1)] = 0.8
    """Factor by which a plateau lowers the learning rate."""
    plateau_patience: Positive = 1.0
    """How many epochs, which may be a fraction, to wait without progress before the learning rate is lowered."""
    clip: Annotated[float, Gt(0)] = 5.0
    """Largest norm of the gradient; a larger one is clipped."""
    mixup: Annotated[float, Interval(ge=0, le=1000)] = 0.0
    """Alpha of mixup: each photo is blended with another of its batch by a share drawn from Beta(alpha, alpha), and its
    loss with the loss against the other's points; 0 for none."""
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.998
    """Decay of the exponential moving average (EMA) of the weights, which is validated and saved; 0 for none."""
    keep_best: Annotated[int, Interval(ge=0, le=1000)] = 0
    """Keep the weights of this many best epochs beside best.pt, as best-epoch-N.pt, for tools.average."""
    checkpoint_minutes: Annotated[float, Gt(0)] = 10.0
    """Write a checkpoint every so many minutes within a long epoch, besides the one at the end of each epoch."""


@dataclass(frozen=True)
class RunningOptions:
    """When training ends, and what else happens in it"""

    session_minutes: Annotated[Annotated[float, Interval(gt=0, le=10**6)] | None, arg(metavar="FLOAT")] = None
    """End in time for a session of this many minutes, counted from the start of this command. The training is shortened
    by what packing has taken and by what the last validation and predict.py will take. Sets --minutes. Stages may each
    have a minute by which they end."""
    patience: Annotated[Annotated[int, Interval(ge=1, le=10**9)] | None, arg(metavar="EPOCHS")] = None
    """End the training after this many epochs without a better validation MSE (early stopping); with --progressive only
    epochs of the last size count."""
    regions: Annotated[Path | None, arg(metavar="FILE")] = None
    """Regions of points to report errors for: a JSON file such as {"jaw": [0, 1, 2], "nose": [3, 4]}. By default they
    are found from neighbouring points and written to the run's regions.json, where you can name them."""
    callbacks: Annotated[tuple[str, ...], arg(metavar="FILE.py:CLASS")] = ()
    """Your own callbacks, each a file and a class in it, such as notify.py:Notify; see docs/callbacks.md."""


@dataclass(frozen=True)
class PredictionOptions:
    """Prediction"""

    views: Annotated[list[Any], arg(constructor=json.loads, metavar="JSON")] = field(default_factory=lambda: VIEWS)
    """Views that predict.py merges: a list of lists of augmenters with constant parameters; [[]] for the photo as it
    is."""


@dataclass(frozen=True)
class Recipe:
    run: RunOptions = field(default_factory=RunOptions)
    photos: PhotoOptions = field(default_factory=PhotoOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    augmentation: AugmentOptions = field(default_factory=AugmentOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    running: RunningOptions = field(default_factory=RunningOptions)
    prediction: PredictionOptions = field(default_factory=PredictionOptions)


SECTION_OF = {
    option.name: section.name
    for section in dataclasses.fields(Recipe)
    for option in dataclasses.fields(section.default_factory)  # type: ignore[arg-type]
}
CHANGEABLE_ON_RESUME = {
    "epochs", "minutes", "data", "gpu", "runs", "cache", "checkpoint_minutes", "keep_best", "skip_bad_photos",
    "check_photos", "views", "session_minutes", "patience", "callbacks", "boxes", "regions",
}  # fmt: skip

HAS_EFFECT_WITH = {  # the field that a field depends on, and the values with which it has an effect
    "map_stride": ("head", ("integral", "simcc")),
    "beta": ("loss", ("smooth_l1",)),
    "simcc_sigma": ("loss", ("simcc",)),
    "focal": ("loss", ("simcc",)),
    "adamw_factor": ("optimiser", ("muon",)),
    "beta2": ("optimiser", ("adamw", "muon", "lion", "schedule_free")),
    "cycles": ("schedule", ("cosine_restarts", "triangular")),
    "plateau_factor": ("schedule", ("plateau", "plateau_validation")),
    "plateau_patience": ("schedule", ("plateau", "plateau_validation")),
    "warmup": ("schedule", tuple(name for name in SCHEDULES if name not in ("one_cycle", "triangular"))),
    "final_rate": ("schedule", tuple(name for name in SCHEDULES if name != "constant")),
}


def flatten(recipe: Recipe) -> dict[str, Any]:
    """The recipe as one mapping of plain values, in order."""
    sections = dataclasses.asdict(recipe).values()
    return {
        name: str(value) if isinstance(value, Path) else value
        for section in sections
        for name, value in section.items()
    }


def to_yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(flatten(recipe), sort_keys=False, default_flow_style=None, width=110)


def changes(recipe: Recipe, base: Recipe | None = None) -> dict[str, Any]:
    """The fields in which a recipe differs from the defaults, or from `base`."""
    before = flatten(base or Recipe())
    return {name: value for name, value in flatten(recipe).items() if value != before[name]}


def build_recipe(flat: dict[str, Any], *, name_of: Callable[[str], str]) -> Recipe:
    """The recipe of a flat mapping; fields that it does not name have their defaults.

    Raises UserError for a value that is not allowed; its message calls the field what `name_of` calls it: a flag, or a
    key of a file.
    """
    sections: dict[str, dict] = {section.name: {} for section in dataclasses.fields(Recipe)}
    for name, value in flat.items():
        sections[SECTION_OF[name]][name] = value
    try:
        return _validator().validate_python(sections)
    except ValidationError as error:
        first, *others = error.errors()
        reasons = [first["msg"], *(other["msg"] for other in others if other["loc"][:2] == first["loc"][:2])]
        raise UserError(f"{name_of(str(first['loc'][1]))} {first['input']!r}: {'; or: '.join(reasons)}") from error


@cache
def _validator() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)  # it takes ten times as long to make as to use
