"""What a run was made with: versions, device, commit."""

import importlib.metadata
import platform
import subprocess
import sys
import time
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
        "packages": dict(sorted(_packages())),
    }


def _packages():
    """Name and version of every installed package, whichever of several provides a module such as cv2."""
    for package in importlib.metadata.distributions():
        about = package.metadata  # parsed anew each time that it is asked for
        if about and about["Name"]:
            yield about["Name"].lower(), about["Version"]


def _commit():
    """The commit of the code that runs, "-dirty" behind it where files were changed; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
