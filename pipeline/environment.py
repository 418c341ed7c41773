"""What a run was made with: versions, device, commit."""

import importlib.metadata
import platform
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch


def environment(device: str) -> dict[str, Any]:
    """Everything about this sitting that may explain a result."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "packages": _packages(),
    }


@cache
def _packages() -> dict[str, str]:
    """The version of every installed package by its name, whichever of several provides a module such as cv2."""
    described = (package.metadata for package in importlib.metadata.distributions())
    return dict(sorted((about["Name"].lower(), about["Version"]) for about in described if about and about["Name"]))


def _commit():
    """The commit of the code that runs, "-dirty" behind it where files were changed; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
