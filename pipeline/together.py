"""A script as one of several processes: they are connected, and have one voice.

Nothing here imports torch unless there are several.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout

from pipeline.launch import read_launch


@contextmanager
def started_together() -> Iterator[None]:
    """Within it the processes that torchrun has started are connected, all but the main one print nothing, and a
    failure of any of them is said by one. A process that was started alone is left as it is.
    """
    launch = read_launch()
    if launch.num_ranks == 1:
        yield
        return
    from pipeline.ranks import connected

    with connected(launch), nullcontext() if launch.is_main else _silent():
        yield


@contextmanager
def _silent():
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
