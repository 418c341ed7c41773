"""Rows of a large table of numbers, a block of lines at a time, in whole arrays.

numpy lets other threads run while it computes with arrays, but not while it, or Python, parses text; so the digits of
all cells of a block are processed together, the last of each first. What is not plain is left to the caller, who may
look longer and say what is wrong.

Shapes: R rows of a block, C cells of a row.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

TAB, NEWLINE, RETURN, MINUS, POINT, ZERO = b"\t\n\r-.0"
BLOCK = 1 << 19  # bytes: what is computed from it stays in a core's cache
MAX_DIGITS = 15  # of a cell, so that they are exact as one float64
MAX_DIGITS_NEAR = 5  # of numbers that cannot be too far
TENS = 10.0 ** np.arange(MAX_DIGITS + 1)
FARTHEST = 1e5  # pixels; no photo is so large


@dataclass(frozen=True)
class Lines:
    """Whole lines of a file, each ended by a newline; the first has this number, counted from 0."""

    text: bytes
    first: int
    count: int


@dataclass(frozen=True)
class Rows:
    """names: of the R rows, as bytes. numbers: (R, C) float32, NaN for empty cells. plain: (R,) bool, False for rows
    whose numbers are not known.
    """

    names: list[bytes]
    numbers: np.ndarray
    plain: np.ndarray


def read_lines(file: BinaryIO) -> Iterator[Lines]:
    """The rest of a file in blocks of whole lines; the last line is given a newline if it has none."""
    first = 0
    while text := file.read(BLOCK):
        if text[-1] != NEWLINE:
            text += file.readline()
        if text[-1] != NEWLINE:
            text += b"\n"
        count = int(np.count_nonzero(np.frombuffer(text, np.uint8) == NEWLINE))  # three times as fast as bytes.count
        yield Lines(text, first, count)
        first += count


def write_at(file: BinaryIO, offset: int, content: memoryview | bytes):
    """Writes bytes, or those of a contiguous array, into a file at an offset, from any thread."""
    rest = memoryview(content).cast("B")
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written


def compact(file: BinaryIO, rows: Iterable[int], num_bytes: int) -> int:
    """Moves these rows of a file, `num_bytes` each and in ascending order, to its start. Returns their number."""
    count = 0
    for count, row in enumerate(rows, start=1):
        if row != count - 1:
            write_at(file, (count - 1) * num_bytes, os.pread(file.fileno(), num_bytes, row * num_bytes))
    return count


def parse_rows(lines: Lines, num_cells: int) -> Rows | None:
    """The rows of lines, each a name and then `num_cells` numbers between tabs; None if any has a different number
    of cells.
    """
    text = lines.text
    characters = np.frombuffer(text, np.uint8)
    separators = np.flatnonzero((characters == TAB) | (characters == NEWLINE))
    if len(separators) != (num_cells + 1) * lines.count:
        return None
    ends = separators.reshape(-1, num_cells + 1)
    if (characters[ends[:, -1]] != NEWLINE).any():
        return None
    begins = [0, *(ends[:-1, -1] + 1).tolist()]
    names = [text[begin:end] for begin, end in zip(begins, ends[:, 0].tolist(), strict=True)]
    if (characters[ends[:, -1] - 1] == RETURN).all():
        ends[:, -1] -= 1
    numbers, plain = _parse_cells(characters, ends, with_signs=False)
    others = np.flatnonzero(~plain)
    if len(others):
        numbers[others], plain[others] = _parse_cells(characters, ends[others], with_signs=True)
    return Rows(names, numbers, plain)


def _parse_cells(characters, ends, *, with_signs):
    """(R, C) float32 numbers between `ends`, such as 7, or with signs and points -12 and 3.25, and (R,) bool, whether a
    row has only such numbers.

    The digits of a cell are one whole number, which is divided by a power of ten. Both are exact, so that the quotient
    is the float64 nearest to what is written, as in Python. Source: Clinger, "How to read floating point numbers
    accurately", PLDI 1990, section 3.
    """
    padded = np.concatenate([np.zeros(MAX_DIGITS + 1, np.uint8), characters, np.zeros(1, np.uint8)])
    if with_signs:
        negative = padded[MAX_DIGITS + 2 :][ends[:, :-1].copy()] == MINUS  # an index in one piece is twice as fast
    else:
        negative = np.zeros((len(ends), ends.shape[1] - 1), bool)
    length, longest = _lengths(ends, negative)
    empty, wrong = length == 0, length > MAX_DIGITS
    number = np.zeros(length.shape, np.int16 if longest <= 4 else np.int32 if longest <= 9 else np.int64)
    decimals, points, at = np.zeros(length.shape, np.uint8), empty & negative, ends[:, 1:].copy()
    for place in range(min(longest, MAX_DIGITS)):
        before = padded[MAX_DIGITS - place :]
        digit, there = before[at], length > place
        if with_signs and (is_point := (digit == POINT) & there).any():
            wrong |= points & is_point
            points |= is_point
            decimals += is_point * np.uint8(place)
            at -= is_point  # the digit before it is of this place
            length -= is_point
            digit, there = before[at], length > place
        digit -= ZERO
        digit *= there
        wrong |= digit > 9
        number += np.multiply(digit, 10**place, dtype=number.dtype)
    wrong |= points & (length == 0)
    found = _signed(number, negative, decimals if points.any() else None)
    if longest > MAX_DIGITS_NEAR:
        wrong |= np.abs(found) > FARTHEST
    found[empty] = np.nan
    return found.astype(np.float32, copy=False), ~wrong.any(axis=1)


def _lengths(ends, negative):
    """(R, C) uint8 lengths of the cells without their signs, clipped once too long, and the longest with its sign."""
    length = np.diff(ends)
    longest = int(length.max(initial=1)) - 1
    if longest > MAX_DIGITS:
        np.minimum(length, MAX_DIGITS + 3, out=length)
    length = length.astype(np.uint8)
    length -= 1
    length -= negative
    return length, longest


def _signed(number, negative, decimals):
    """Whole numbers as float32, or float64 numbers with these decimals, where -0.0 differs from 0.0."""
    if decimals is None:
        np.negative(number, out=number, where=negative)
        return number.astype(np.float32)
    found = number / TENS[decimals]
    np.negative(found, out=found, where=negative)
    return found
