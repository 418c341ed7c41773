"""Long things a block at a time, so that what is made on the way to a result stays small."""

ROWS = 4096  # of a table; of photos that are only numbers


def blocks(count: int, size: int = ROWS) -> list[slice]:
    """Slices of `size`, the last one shorter, that cover `count` things."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
