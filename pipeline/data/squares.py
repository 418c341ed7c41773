"""Squares of a pack stored as JPEGs in one file: they are decoded when they are asked for."""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from pipeline.blocks import blocks
from pipeline.data.cores import num_cores
from pipeline.errors import UserError

PART = 16  # photos that a thread decodes at a time


class JpegSquares:
    """(N, S, S, 3) uint8 squares, indexed like an array: by numbers, slices and arrays of these.

    ends: (N,) where the image of each photo ends in the file, in bytes.
    """

    def __init__(self, path: Path, ends: np.ndarray, size: int):
        self._path, self._ends, self._size = path, ends, size

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self._size, self._size, 3

    def __getitem__(self, samples: int | slice | np.ndarray | list[int]) -> np.ndarray:
        numbers = np.arange(len(self))[samples]
        flat = numbers.ravel()
        found = np.empty((len(flat), *self.shape[1:]), np.uint8)
        parts = blocks(len(flat), PART)
        decode_all = self._threads.map if len(parts) > 1 else map
        list(decode_all(lambda part: self._decode(flat[part], found[part]), parts))
        return found.reshape(*numbers.shape, *self.shape[1:])

    def _decode(self, numbers, found):
        for number, square in zip(numbers.tolist(), found, strict=True):
            begin = self._ends[number - 1] if number else 0
            image = cv2.imdecode(self._bytes[begin : self._ends[number]], cv2.IMREAD_COLOR_RGB)
            if image is None or image.shape != square.shape:
                raise UserError(f"{self._path} is damaged at photo {number}; delete {self._path.parent}")
            square[:] = image

    @cached_property
    def _bytes(self):
        return np.memmap(self._path, np.uint8, "r")

    @cached_property
    def _threads(self):
        return ThreadPoolExecutor(num_cores())
