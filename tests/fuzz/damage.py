"""What can happen to a file besides other bytes: it is replaced by what is no file, by another, or by values of other
types; and what tells whether anything that was there before has gone."""

import copy
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.fuzz.campaign import one_of
from tests.fuzz.mutations import mutate

JUNK = [None, True, "x", "\ud800", -1, -1.0, 10**30, float("nan"), float("inf"), [], {}, [1, 2], {"x": [None]}, b"x"]
TENSORS = [torch.tensor(3.0), torch.zeros(0), torch.full((3, 5), torch.nan), torch.zeros(7, dtype=torch.int64)]
OF_TENSORS: list[Callable[[torch.Tensor], Any]] = [
    torch.Tensor.double,
    torch.Tensor.int,
    torch.Tensor.half,
    lambda tensor: tensor.flatten()[:-1],
    lambda tensor: torch.stack([tensor, tensor]),
    lambda tensor: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor.float(),
    lambda tensor: tensor.tolist(),
    lambda tensor: torch.empty(0, dtype=tensor.dtype).expand(0),
]


def no_file(path: Path, rng: np.random.Generator) -> str:
    """Puts there what is no file, or nothing, and says what."""
    kind = one_of(rng, ("nothing", "empty", "folder", "pipe", "circle of links", "lost link", "device", "unreadable"))
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle of links":
        path.symlink_to(path.name)
    elif kind == "lost link":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "unreadable":
        path.symlink_to("/proc/self/mem")  # a regular file of which every read fails, by whomever
    return kind


def spoil_file(path: Path, rng: np.random.Generator) -> str:
    """Gives a file other bytes, or puts no file in its place."""
    content = path.read_bytes() if path.is_file() else b""
    remove(path)
    if rng.random() < 0.3:
        return no_file(path, rng)
    path.write_bytes(mutate(content, rng))
    return "other bytes"


def spoil_value(content: Any, rng: np.random.Generator) -> Any:
    """A copy of plain data and tensors in which a value somewhere is missing, or is one that cannot be there."""
    content = copy.deepcopy(content)
    holder, key = None, None
    value = content
    while isinstance(value, dict | list | tuple) and len(value) and (holder is None or rng.random() < 0.8):
        holder, key = value, one_of(rng, value if isinstance(value, dict) else range(len(value)))
        value = value[key]
    if isinstance(holder, tuple):
        return one_of(rng, JUNK)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    elif isinstance(value, torch.Tensor) and rng.random() < 0.6:
        holder[key] = one_of(rng, OF_TENSORS)(value)
    else:
        holder[key] = one_of(rng, JUNK + TENSORS)
    return content


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Stands for a disk that is full: within it no file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def remove(path: Path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def bring_back(path: Path, whole: Path):
    """Makes `path` again what lies at `whole`, where something does."""
    remove(path)
    if whole.is_dir():
        shutil.copytree(whole, path)
    elif whole.exists():
        shutil.copyfile(whole, path)


def same(one: Any, other: Any) -> bool:
    """Whether plain data and tensors are equal to the bit; NaN is like NaN."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and same(one.numpy(), other.numpy())
    if isinstance(one, np.ndarray):
        number = one.dtype.kind in "fc"
        return isinstance(other, np.ndarray) and np.array_equal(one, other, equal_nan=number)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)


def tree(folder: Path, *, but: tuple[Path, ...] = ()) -> dict[Path, int]:
    """The files below a folder with their sizes, but for what lies at or below some paths."""
    found = {}
    for inner, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(inner, name) not in but]
        found |= {path: path.lstat().st_size for name in files if (path := Path(inner, name)) not in but}
    return found
