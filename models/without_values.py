"""Networks without values: all of torchvision's backbones are built in a few seconds, for what their shapes tell."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchvision.models.regnet import BlockParams


@contextmanager
def without_values() -> Iterator[None]:
    """Builds on torch's meta device, except for the numbers that decide how a RegNet is built. For one thread only."""
    blocks_of = BlockParams.from_init_params

    def with_values(*arguments, **named):
        with torch.device("cpu"):
            return blocks_of(*arguments, **named)

    BlockParams.from_init_params = with_values  # type: ignore[method-assign]
    try:
        with torch.device("meta"):
            yield
    finally:
        BlockParams.from_init_params = blocks_of  # type: ignore[method-assign]
