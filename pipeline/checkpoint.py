"""Checkpoints: tensors and plain data, whole or not there, loaded without running anything that is in them.

A file may be whole and yet be of another network, another run or another kind: what takes its content says whether it
fits, and half of it is never used.

Each tensor lies in the file with its checksum (a CRC-32, as in any zip archive), which is compared before it is used.
"""

import hashlib
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.files import check_regular, replacing

# What zipfile and torch raise for bytes that are no checkpoint; which of them is a matter of where the bytes are wrong.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pickle.UnpicklingError,
    RuntimeError,  # NotImplementedError and RecursionError among them
    ValueError,  # UnicodeDecodeError among them
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
)
PLAIN = (type(None), bool, int, float, str, torch.Tensor, nn.Parameter)
MAX_SHOWN = 160  # characters of what does not fit


def save_checkpoint(path: Path, content: dict[str, Any]):
    """Raises OSError where it cannot be written: torch reports that of a full disk as a RuntimeError."""
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def check_plain(content: Any, name: str):
    """Raises UserError where it holds what `load_checkpoint` could not give back."""
    pending = [content]
    while pending:
        found = pending.pop()
        if type(found) in (dict, OrderedDict, list, tuple):
            pending.extend([*found.keys(), *found.values()] if isinstance(found, dict) else found)
        elif type(found) not in PLAIN:
            raise UserError(
                f"{name} holds a {type(found).__name__}, which a checkpoint does not; give numbers of Python, texts, "
                "tensors, lists and dicts"
            )


def load_checkpoint(path: Path, *keys: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU, with at least these keys.

    Raises UserError where the file is missing, damaged or something else.
    """
    try:
        with _readable(path):
            _check_sums(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); take a copy of it, or another run") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}; take that of a run")
    if missing := [key for key in keys if key not in content]:
        raise UserError(f"{path} is no checkpoint of this kind: it has no {missing[0]!r}; take a copy of it")
    return content


def checkpoint_digest(path: Path) -> str:
    """What tells a checkpoint from others of its run. Raises UserError where it is missing or cannot be read."""
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path):
    """Turns what the system says of a file that is missing, or cannot be read, into a UserError."""
    try:
        check_regular(path)
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: the run has not saved it yet; resume the run, or take another") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_sums(path):
    """Compares all that the file holds with its checksums, which torch writes and does not look at."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(damaged)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turns what is raised where the content of a checkpoint is taken, and is another than expected, into a UserError
    that names the file."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:MAX_SHOWN] or type(error).__name__
        raise UserError(
            f"{path} does not fit this run: {reason}; take a copy of it as it was, or another run"
        ) from error


def load_network(network: nn.Module, state: dict[str, torch.Tensor]):
    """Takes the state of a network of the same layers. Raises one of DAMAGE where it is any other."""
    check_type(state, dict, "the state of a network")
    network.load_state_dict(state)
    for name, own in network.state_dict().items():
        if name in state:  # what earlier versions lack is completed
            check_tensor(state[name], own, name)


def check_tensor(found: Any, like: torch.Tensor, name: str, *, gaps: bool = False):
    """Raises TypeError or ValueError unless it is a tensor of the same type and shape and of finite numbers; with
    `gaps` some may be NaN."""
    check_type(found, torch.Tensor, name)
    if found.dtype != like.dtype or found.shape != like.shape:
        raise ValueError(f"{name} is {_said(found)}, not {_said(like)}")
    if found.is_floating_point() and not (found.nan_to_num() if gaps else found).isfinite().all():
        raise ValueError(f"{name} has values that are no numbers")


def check_type(found: Any, kind: type, name: str):
    if not isinstance(found, kind):
        raise TypeError(f"{name} is a {type(found).__name__}, not a {kind.__name__}")


def check_keys(found: dict[str, Any], expected: set[str], name: str):
    check_type(found, dict, name)
    if found.keys() != expected:
        raise ValueError(f"{name} has {', '.join(map(repr, found))}, not {', '.join(map(repr, sorted(expected)))}")


def _said(tensor):
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
