"""The rows of the ablations: four studies, each with a default and what each row changes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from models import LandmarkNet
from models.heads import Integral, LowRank, MapHead


@dataclass(frozen=True)
class Study:
    """base: the flags of the default row. rows: the flags that each changes. changes: what some rows do to the
    untrained network, where no flag does it. folder: of the results."""

    base: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    folder: str
    changes: Mapping[str, Callable[[LandmarkNet], object]] = field(default_factory=dict)

    def flags(self, row: str) -> tuple[str, ...]:
        return (*self.base, *self.rows[row])

    def share_of_locator(self, row: str) -> float:
        """What the training of its locator has of a row's."""
        return float(dict(pairwise(self.flags(row))).get("--locate", 0))

    def locator_row(self, row: str) -> str | None:
        """The row whose locator says where a row looks, None where it looks at whole photos: where the default has a
        locator, rows share that."""
        share = self.share_of_locator(row)
        return ("default" if share == self.share_of_locator("default") else row) if share else None


# As configs/from_scratch.yaml, with one step of sizes and fewer epochs.
BASE = (
    "--model", "resnet18", "--weights", "none", "--head", "integral", "--map-stride", "4", "--deepest-stride", "16",
    "--batch-size", "8", "--size", "96", "--progressive", "[[0.7, 64]]", "--epochs", "8",
)  # fmt: skip

CYCLE = ("--schedule", "one_cycle")
FREE = ("--optimiser", "schedule_free", "--schedule", "constant")

ROWS: dict[str, tuple[str, ...]] = {
    "default": (),
    "another seed": ("--seed", "1"),  # what chance alone does
    "fp32": ("--precision", "fp32"),  # where the default is bf16
    "a locator": ("--locate", "0.15"),
    "no shift of labels": (),
    "no correction": (),
    "head linear": ("--head", "linear", "--deepest-stride", "64"),
    "head flat": ("--head", "flat"),
    "head low_rank": ("--head", "low_rank"),
    "head simcc, its loss": ("--head", "simcc", "--loss", "simcc"),
    "map stride 8": ("--map-stride", "8"),
    "all stages of the backbone": ("--deepest-stride", "64"),
    "batches of 32": ("--batch-size", "32"),
    "batches of 16": ("--batch-size", "16"),
    "96 px throughout": ("--progressive", "[]"),
    "64 px for nine tenths": ("--progressive", "[[0.9, 64]]"),
    "64, 80 and 96 px": ("--progressive", "[[0.5, 64], [0.25, 80]]"),
    "rate 3e-3": ("--learning-rate", "3e-3"),
    "rate 5e-4": ("--learning-rate", "5e-4"),
    "no EMA": ("--ema-decay", "0"),
    "weight decay 0.2": ("--weight-decay", "0.2"),
    "muon": ("--optimiser", "muon"),
    "lion": ("--optimiser", "lion", "--learning-rate", "1e-4"),
    "sgd": ("--optimiser", "sgd", "--learning-rate", "1e-2"),
    "schedule-free": FREE,
    "schedule-free, rate 3e-3": (*FREE, "--learning-rate", "3e-3"),
    "schedule-free, rate 6e-3": (*FREE, "--learning-rate", "6e-3"),
    "schedule-free, rate 1e-2": (*FREE, "--learning-rate", "1e-2"),
    "schedule-free, rate 3e-3, momentum 0.95": (*FREE, "--learning-rate", "3e-3", "--momentum", "0.95"),
    "one cycle": CYCLE,
    "one cycle, no EMA": (*CYCLE, "--ema-decay", "0"),
    "one cycle, rate 2e-3": (*CYCLE, "--learning-rate", "2e-3"),
    "linear decay": ("--schedule", "linear"),
    "cosine with restarts": ("--schedule", "cosine_restarts"),
    "mse": ("--loss", "mse"),
    "l1": ("--loss", "l1"),
    "wing": ("--loss", "wing"),
    "soft wing": ("--loss", "soft_wing"),
    "enme": ("--loss", "enme"),
    "gaussian nll": ("--loss", "gaussian_nll"),
    "laplace nll": ("--loss", "laplace_nll"),
    "rle": ("--loss", "rle"),
    "edge term": ("--edge-weight", "0.5"),
    "unit of the image": ("--loss-unit", "image"),
    "mixup": ("--mixup", "0.2"),
    "mirroring alone": ("--augment", '[{"MirrorAugmenter": {"probability": 0.5}}]'),
    "without the highest 1 %": ("--without-top-perc-train", "1"),
    "without the highest 5 %": ("--without-top-perc-train", "5"),
    "trimmed, 1 % to 30 %": ("--without-top-perc-train", "1", "--top-perc-train", "30"),
    "trimmed, random control": ("--without-top-perc-train", "1", "--top-perc-train", "30", "--trim-at-random"),
}


# configs/from_scratch.yaml, for as many photos as two cores train in twelve minutes: the rows that matter most, at full
# length.
LONG_BASE = (
    "--model", "resnet18", "--weights", "none", "--head", "integral", "--map-stride", "4", "--deepest-stride", "16",
    "--batch-size", "8", "--size", "96", "--progressive", "[[0.45, 64], [0.3, 80]]",
    "--locate", "0.15", "--schedule", "linear", "--steps-per-epoch", "1000", "--epochs", "10",
)  # fmt: skip

LONG_ROWS: dict[str, tuple[str, ...]] = {
    "default": (),
    "no shift of labels": (),
    "no correction": (),
    "cosine": ("--schedule", "cosine"),
    "every augmenter": ("--config", "configs/every_augmenter.yaml"),
    "weight decay 0.2": ("--weight-decay", "0.2"),
    "another seed": ("--seed", "1"),
    "128 px": ("--size", "128", "--progressive", "[[0.4, 64], [0.25, 80], [0.2, 96]]"),
    "soft wing": ("--loss", "soft_wing"),
    "edge term": ("--edge-weight", "0.5"),
    "whole photos": ("--locate", "0"),
    "one cycle": CYCLE,
    "schedule-free": (*FREE, "--learning-rate", "3e-3"),
    "no EMA": ("--ema-decay", "0"),
    "batches of 16": ("--batch-size", "16", "--steps-per-epoch", "500"),
}


# The demo's drawn faces, whose 971 points make the size of a head count.
DENSE_BASE = (
    "--model", "resnet18", "--weights", "none", "--head", "integral", "--deepest-stride", "16",
    "--batch-size", "8", "--size", "96", "--progressive", "[[0.6, 64]]", "--epochs", "10",
)  # fmt: skip

DENSE_ROWS: dict[str, tuple[str, ...]] = {
    "default": (),
    "a locator": ("--locate", "0.2"),
    "map stride 4": ("--map-stride", "4"),
    "no prior": (),
    "no correction": (),
    "head linear": ("--head", "linear", "--deepest-stride", "64"),
    "head flat": ("--head", "flat"),
    "head low_rank": ("--head", "low_rank"),
    "head low_rank, random components": ("--head", "low_rank"),
    "head simcc, its loss": ("--head", "simcc", "--loss", "simcc"),
    "edge term 0.5": ("--edge-weight", "0.5"),
    "edge term 2": ("--edge-weight", "2"),
}


# Bodies in any pose (benchmarks/poses.py): what suits faces need not suit them.
POSES_BASE = (
    "--model", "resnet18", "--weights", "none", "--head", "integral",
    "--batch-size", "8", "--size", "96", "--progressive", "[[0.6, 64]]", "--epochs", "10",
)  # fmt: skip

POSES_ROWS: dict[str, tuple[str, ...]] = {
    "default": (),
    "a locator": ("--locate", "0.2"),
    "deepest stride 16": ("--deepest-stride", "16"),
    "edge term": ("--edge-weight", "0.5"),
    "map stride 4": ("--map-stride", "4"),
    "no prior": (),
    "no correction": (),
    "head linear": ("--head", "linear"),
    "head simcc, its loss": ("--head", "simcc", "--loss", "simcc"),
}


def without_prior(network: LandmarkNet):
    """An integral head without its prior around the mean shape."""
    head = head_of(network)
    assert isinstance(head, Integral)
    head.strength.requires_grad_(False).zero_()


def without_shift(network: LandmarkNet):
    """Labels are taken to lie where the images show their points."""
    network.label_shift.requires_grad_(False).zero_()


def without_correction(network: LandmarkNet):
    """An integral head whose points are found each by itself."""
    head = head_of(network)
    assert isinstance(head, Integral)
    for parameter in head.correction.requires_grad_(False).parameters():
        parameter.zero_()


def with_random_components(network: LandmarkNet):
    """A low-rank head whose space of shapes does not start from the training shapes."""
    head = head_of(network)
    assert isinstance(head, LowRank)
    with torch.no_grad():
        head.components.copy_(torch.randn_like(head.components) * head.components.std())


def head_of(network: LandmarkNet):
    assert isinstance(network.decoder, MapHead)
    return network.decoder.points


NOT_LEARNED = {"no shift of labels": without_shift, "no correction": without_correction}
STUDIES = {
    "faces": Study(BASE, ROWS, "ablations", changes=NOT_LEARNED),
    "long": Study(LONG_BASE, LONG_ROWS, "ablations_long", changes=NOT_LEARNED),
    "dense": Study(
        DENSE_BASE,
        DENSE_ROWS,
        "ablations_dense",
        changes={
            "no prior": without_prior,
            "no correction": without_correction,
            "head low_rank, random components": with_random_components,
        },
    ),
    "poses": Study(
        POSES_BASE,
        POSES_ROWS,
        "ablations_poses",
        changes={"no prior": without_prior, "no correction": without_correction},
    ),
}
