"""Where the squares of a batch come from: the host, or the memory of the GPU if all of them fit there."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from augment.warp import on_device
from pipeline.blocks import blocks

SHARE_OF_FREE = 0.5  # of a GPU's memory; the other half is for the training
BLOCK_BYTES = 2**27


class Squares(Protocol):
    """(N, S, S, 3) uint8 fitted photos: an array, or what reads like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, samples: np.ndarray | slice) -> np.ndarray: ...


class Source(Protocol):
    """The fitted photos of a pack."""

    def take(self, samples: np.ndarray) -> torch.Tensor:
        """(B, 3, S, S) uint8 squares of the photos at `samples`, channels last, on the device that computes. It may be
        called from the thread that prefetches, and the copy may still be under way when it returns.
        """


@dataclass(frozen=True)
class HostSource:
    """Squares that lie on the host: memory-mapped, in memory, or as JPEGs that are decoded here. Those of each batch
    are sent to a GPU ahead of time."""

    squares: Squares
    device: torch.device

    def take(self, samples: np.ndarray) -> torch.Tensor:
        return on_device(self.squares[samples], self.device).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class DeviceSource:
    """(N, S, S, 3) uint8 squares in the GPU's memory: for a batch only the numbers of its photos travel there."""

    squares: torch.Tensor

    @classmethod
    def of(cls, squares: Squares, device: torch.device) -> "DeviceSource":
        """Copies the squares to the device, a block at a time, so that the host holds no more than a block."""
        there = torch.empty(tuple(squares.shape), dtype=torch.uint8, device=device)
        for block in blocks(len(there), max(1, BLOCK_BYTES // math.prod(squares.shape[1:]))):
            copied = np.array(squares[block])  # torch warns of a map that it may not write to
            there[block].copy_(on_device(copied, device), non_blocking=True)
        return cls(there)

    def take(self, samples: np.ndarray) -> torch.Tensor:
        numbers = on_device(samples, self.squares.device, np.int64)
        return self.squares.index_select(0, numbers).permute(0, 3, 1, 2)


def source_of(squares: Squares, device: torch.device) -> Source:
    """The squares in the GPU's memory if they fit into half of what is free there, and otherwise on the host."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what an earlier run of this process has released, such as a fold, is then free
        if math.prod(squares.shape) <= SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]:
            return DeviceSource.of(squares, device)
    return HostSource(squares, device)
