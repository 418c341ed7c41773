"""Where the squares of a batch come from: the pack's memory map today; another source, such as the squares in a GPU's
memory, only has to `take`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from augment.warp import on_device
from pipeline.data.squares import JpegSquares


class Source(Protocol):
    """The fitted photos of a pack."""

    def take(self, samples: np.ndarray) -> torch.Tensor:
        """(B, 3, S, S) uint8 squares of the photos at `samples`, channels last, on the device that computes. It may be
        called from the thread that prefetches, and the copy may still be under way when it returns.
        """


@dataclass(frozen=True)
class HostSource:
    """Squares that lie on the host, memory-mapped, in memory, or as JPEGs that are decoded here: (N, S, S, 3) uint8."""

    squares: np.ndarray | JpegSquares
    device: torch.device

    def take(self, samples: np.ndarray) -> torch.Tensor:
        return on_device(self.squares[samples], self.device).permute(0, 3, 1, 2)
