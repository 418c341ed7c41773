"""Mixup: a photo with another one shining through, to be predicted as both.

The loss is the blend of the losses against both sets of points, not the loss against blended points: these would be
the points of neither photo, and missing wherever either photo has none. For the squared error the two have the same
gradient; for losses that care less about what is far off, they do not.

Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import betaincinv

from augment import Key
from augment.warp import on_device
from pipeline.data.loader import Batch

MIXUP = 1_000_033  # a position in the key that no augmenter of a chain has


@dataclass(frozen=True)
class Mixed:
    """B images with what to predict for them: the points of `batch`, and by a share of 1 - `share`, (B,), those of
    `other`, if there is one. A photo has at least half of its own image."""

    batch: Batch
    other: Batch | None = None
    share: torch.Tensor | None = None

    def part(self, rows: slice) -> "Mixed":
        if self.other is None or self.share is None:
            return Mixed(self.batch.part(rows))
        return Mixed(self.batch.part(rows), self.other.part(rows), self.share[rows])

    def as_shown(self, shift: torch.Tensor) -> "Mixed":
        """The same with the points of both where their images show them; see `Batch.as_shown`."""
        return replace(self, batch=self.batch.as_shown(shift), other=self.other and self.other.as_shown(shift))

    def blend(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(B,) blend of the values of both, (B,) each."""
        assert self.share is not None
        return self.share * own + (1 - self.share) * other


def mix(batch: Batch, key: Key, *, alpha: float) -> Mixed:
    """Blends each photo with the one before it in the batch, by a share from Beta(alpha, alpha); for 0 none.

    The share of a photo depends on its key alone; which photo shines through depends on the batch.
    """
    if not alpha:
        return Mixed(batch)
    drawn = betaincinv(alpha, alpha, key.child(MIXUP).uniform(1)[:, 0])
    share = on_device(np.maximum(drawn, 1 - drawn), batch.images.device, np.float32)
    weights = share[:, None, None, None]
    images = (weights * batch.images + (1 - weights) * batch.images.roll(1, 0)).round().to(batch.images.dtype)
    other = Batch(
        images,
        batch.points.roll(1, 0),
        batch.inside.roll(1, 0),
        batch.linear.roll(1, 0),
        batch.scale.roll(1, 0),
        np.roll(batch.samples, 1),
    )
    return Mixed(replace(batch, images=images), other, share)
