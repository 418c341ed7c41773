"""Checkpoints: tensors and plain data, whole or not there, loaded without running anything that is in them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.files import replacing


def save_checkpoint(path: Path, content: dict[str, Any]):
    with replacing(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU. Raises UserError where the file is missing or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the run has not come so far") from error
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); take a copy of it, or another run") from error
