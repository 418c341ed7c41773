"""The scripts as a user calls them, in a folder that is not the repository, with a network that is quick to train.

`call` runs a script inside this process, since each new one spends seconds on importing torch. `call_process` is for
what only a process of its own shows.
"""

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import hack_train
import predict
from pipeline.errors import run_script

ROOT = Path(__file__).parents[1]
SMALL = ["--model", "mobilenet_v3_small", "--weights", "none", "--size", "48", "-b", "16", "--train-share", "0.8"]
SCRIPTS = {"hack_train.py": hack_train.main, "predict.py": predict.main}


def command(script, folder, *flags):
    places = ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")]
    return [sys.executable, str(ROOT / script), *places, *map(str, flags)]


def call(script, folder, *flags):
    """Runs a script in `folder`, inside this process. Returns (exit status, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    arguments = mock.patch.object(sys, "argv", command(script, folder, *flags)[1:])
    status = 0
    with chdir(folder), arguments, redirect_stdout(out), redirect_stderr(err):
        try:
            run_script(SCRIPTS[script])
        except SystemExit as stop:
            status = stop.code or 0
    return status, out.getvalue(), err.getvalue()


def call_process(script, folder, *flags):
    """Runs a script in `folder` as a process of its own. Returns (exit status, stdout, stderr)."""
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
