"""Memory that runs out, in one line that names what to try."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import UserError

# What torch says where the processor's memory, or that of a library of the GPU, runs out: a RuntimeError like others.
SAID = ("DefaultCPUAllocator", "not enough memory", "ALLOC_FAILED", "out of memory")


@contextmanager
def out_of_memory_named(fix: str) -> Iterator[None]:
    """Within it memory that runs out raises UserError, which ends with what to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # in a notebook, which keeps it, they would hold the memory
        on_gpu = any(name in str(error) for name in ("CUDA", "CUBLAS", "CUDNN", "HIP"))
        raise UserError(f"{'the GPU' if on_gpu else 'the computer'} is out of memory: {fix}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that the memory of the computer or of the GPU is used up."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(said in str(error) for said in SAID)


def smaller_batch(batch_size: int, *, otherwise: str) -> str:
    """A batch size to try, or what else there is where no smaller one is left."""
    return f"--batch-size {batch_size // 2}" if batch_size > 1 else otherwise
