"""Memory that is freed and asked for again."""

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # as malloc.h has them


def keep_freed_memory():
    """Lets glibc's allocator keep what is freed, for this process: blocks of up to 32 MB, more than which it may not be
    told to keep. Other allocators are left alone.

    Otherwise it gives large arrays back to the system and fetches them again, page by page, which costs more than what
    is computed in them, and takes 6 % of a small training step. (See mallopt(3).)
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for parameter, value in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
            mallopt(parameter, value)
