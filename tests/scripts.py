"""The scripts as a user calls them, in a folder that is not the repository, with a network that is quick to train.

`call` runs a script inside this process, since each new one spends seconds on importing torch. `start` is for a process
that is to be killed, `call_process` for what only a whole new one shows.
"""

import importlib
import io
import itertools
import multiprocessing
import os
import subprocess
import sys
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import numpy as np

import hack_train
import predict
from pipeline.errors import run_script

ROOT = Path(__file__).parents[1]
SMALL = [
    *("--model", "mobilenet_v3_small", "--weights", "none", "--deepest-stride", "8"),  # half of its layers
    *("--size", "48", "-b", "16", "--train-share", "0.8"),
]

SCRIPTS = {"hack_train.py": hack_train.main, "predict.py": predict.main}
SLOW_TO_IMPORT = [
    *("pipeline.training.command", "pipeline.inference.command", "pandas", "scipy.optimize", "torch.distributed.nn"),
    *("torch.utils.tensorboard", "matplotlib.backends.backend_agg", "pytest", "hypothesis"),
]


def command(script, folder, *flags):
    """The command of a script whose runs lie in `folder`. The cache lies beside the contest, so that all trainings on
    one contest share its packs; where none is named, the cache is the run's."""
    paths = ["--runs", folder / "runs"]
    if "-d" in flags and "--cache" not in flags:
        paths += ["--cache", Path(flags[flags.index("-d") + 1]).parent / "cache"]
    return [sys.executable, str(ROOT / script), *map(str, paths), *map(str, flags)]


@contextmanager
def quick_pictures():
    """Pictures show one photo, figures are blank, and a training writes no report: each takes longer than to train."""
    with quick_report(), mock.patch("pipeline.training.one_run.report"):
        yield


@contextmanager
def quick_report():
    """The same with the report of a training."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("pipeline.training.pictures.NUM_WORST", 1))
        stack.enter_context(mock.patch("pipeline.inference.ensemble.NUM_SHOWN", 1))
        for name in ("draw_curves", "draw_loss_over_rate", "draw_point_errors"):
            blank = np.zeros((8, 8, 3), np.uint8)
            stack.enter_context(mock.patch(f"pipeline.training.pictures.{name}", return_value=blank))
        for name in ("curves", "shape", "distribution", "parts", "calibration"):
            stack.enter_context(mock.patch(f"pipeline.inference.report_figures.{name}", return_value="<svg></svg>"))
        yield


@contextmanager
def quick_start():
    """Quick pictures, no estimate of what a training will need, for which its network is copied and measured, and no
    look at the network before the photos are packed, for which it is built once more."""
    beforehand = ("print_estimate", "check_network")
    with quick_pictures(), mock.patch.multiple("pipeline.training.one_run", **dict.fromkeys(beforehand, mock.DEFAULT)):
        yield


@contextmanager
def few_kinds_of_weights():
    """Of weights of points one strength is tried: all are in test_weights.py, and take longer than to predict."""
    kinds = importlib.import_module("pipeline.inference.weights").KINDS
    with mock.patch.dict(kinds, dict(itertools.islice(kinds.items(), 3)), clear=True):
        yield


def call(script, folder, *flags, pictures=quick_start):
    """Runs a script in `folder`, inside this process. Returns (exit status, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    arguments = mock.patch.object(sys, "argv", command(script, folder, *flags)[1:])
    status = 0
    with chdir(folder), arguments, pictures(), redirect_stdout(out), redirect_stderr(err):
        try:
            run_script(SCRIPTS[script])
        except SystemExit as stop:
            status = stop.code or 0
    return status, out.getvalue(), err.getvalue()


def forked():
    """The context of processes that are forked from one that has done the slow imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    return context


def start(script, folder, *flags) -> BaseProcess:
    """Starts a script in `folder` as a process of its own."""
    process = forked().Process(target=_run_quietly, args=(script, folder, *flags))
    process.start()
    return process


def _run_quietly(script, folder, *flags):
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.argv = command(script, folder, *flags)[1:]
    os.chdir(folder)
    with quick_start():
        run_script(SCRIPTS[script])


def call_process(script, folder, *flags):
    """Runs a script in `folder` as a process of its own. Returns (exit status, stdout, stderr)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command(script, folder, *flags), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout, result.stderr


def train(folder, contest, *flags, pictures=quick_start):
    status, out, err = call("hack_train.py", folder, "-n", "x", "-d", contest, *SMALL, *flags, pictures=pictures)
    assert status == 0, err
    (run,) = (folder / "runs").iterdir()
    return run, out
