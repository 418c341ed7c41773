"""The scripts as a user runs them, in a folder that is not the repository, with a network that is quick to train."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ["--model", "mobilenet_v3_small", "--weights", "none", "--size", "48", "-b", "16", "--train-share", "0.8"]


def command(script, folder, *flags):
    places = ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")]
    return [sys.executable, str(ROOT / script), *places, *map(str, flags)]


def call(script, folder, *flags):
    """Runs a script in `folder`, which is not the repository. Returns (exit status, stdout, stderr)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command(script, folder, *flags), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout, result.stderr


def train(folder, contest, *flags):
    status, out, err = call("hack_train.py", folder, "-n", "x", "-d", contest, *SMALL, *flags)
    assert status == 0, err
    (run,) = (folder / "runs").iterdir()
    return run, out
