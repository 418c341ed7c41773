"""Networks without values: all backbones of torchvision are built in a few seconds."""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torchvision.models.regnet import BlockParams

BLOCKS_OF = BlockParams.from_init_params


@contextmanager
def without_values():
    """On torch's meta device, but for the numbers by which a RegNet decides how it is built."""

    def with_values(*arguments, **named):
        with torch.device("cpu"):
            return BLOCKS_OF(*arguments, **named)

    with torch.device("meta"), patch.object(BlockParams, "from_init_params", with_values):
        yield
