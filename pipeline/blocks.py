"""Long things a block at a time, so that what is made on the way to a result stays small."""

from itertools import pairwise

ROWS = 4096  # of a table; of photos that are only numbers


def blocks(count: int, size: int = ROWS) -> list[slice]:
    """Slices of `size`, the last one shorter, that cover `count` things."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def parts(count: int, num_parts: int) -> list[slice]:
    """Slices that cover `count` things in so many parts, in order, of sizes that differ by one at most; where there are
    fewer things than parts, some are empty."""
    ends = [count * part // num_parts for part in range(num_parts + 1)]
    return [slice(begin, end) for begin, end in pairwise(ends)]
