"""Checkpoints: tensors and plain data, whole or not there, loaded without running anything that is in them.

Each tensor lies in the file with its checksum (a CRC-32, as in any zip archive), which is compared before it is used.
"""

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.files import replacing

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


def save_checkpoint(path: Path, content: dict[str, Any]):
    """Raises OSError where it cannot be written: torch reports that of a full disk as a RuntimeError."""
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, *keys: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU, with at least these keys.

    Raises UserError where the file is missing, damaged or something else.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the run has not come so far") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); take a copy of it, or another run") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}; take that of a run")
    if missing := [key for key in keys if key not in content]:
        raise UserError(f"{path} is no checkpoint of this kind: it has no {missing[0]!r}; take a copy of it")
    return content


def _check_sums(path):
    """Compares all that the file holds with its checksums, which torch writes and does not look at."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(damaged)
