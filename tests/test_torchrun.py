"""The two scripts under torchrun: as several processes, and after one of them, or a whole machine, has died."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pandas as pd
import psutil

from pipeline.checkpoint import load_checkpoint
from pipeline.runs import Run
from tests.ranks import free_port
from tests.scripts import ROOT, SMALL, call, command

STANDALONE = ["--standalone", "--nproc-per-node", "2"]
PATIENCE = 900  # seconds, on a machine that has much else to do
LONG = ["--minutes", "0.2", "--checkpoint-minutes", "1e-9"]  # more than it takes to notice what it has begun


def torchrun(flags, script, folder, *own):
    return [sys.executable, "-m", "torch.distributed.run", *flags, *command(script, folder, *own)[1:]]


def together(script, folder, *own):
    """Runs a script as two processes. Returns (exit status, stdout, stderr)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = torchrun(STANDALONE, script, folder, *own)
    ended = subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    return ended.returncode, ended.stdout, ended.stderr


@contextmanager
def started(flags, folder, *own):
    """A training by torchrun, which is killed with all of its processes at the end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = torchrun(flags, "hack_train.py", folder, *own)
    with open(folder / "stderr", "a") as errors:
        agent = subprocess.Popen(
            line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
    try:
        yield agent
    finally:
        kill(agent)


def kill(agent):
    """As when its machine dies: with all that it has started."""
    with suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]:
            process.kill()
    agent.wait()


def wait_for(found, agent, seconds=PATIENCE):
    """What `found` returns once it is anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and agent.poll() is None:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError(f"it has ended or taken too long: {agent.poll()}")


def begun(folder, *, num_ranks=2):
    """The run in `folder` that has a checkpoint of so many ranks, and the number of its step."""
    for path in folder.glob("runs/*/last.pt"):
        state = load_checkpoint(path)
        if state["num_ranks"] == num_ranks:
            return Run(path.parent), state["progress"]["step"]
    return None


def trained(folder):
    """The one run in `folder`, what it has said, and at which step it was resumed."""
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    assert not list((folder / "runs").glob(".job-*")), "the job is not forgotten"
    said = (run / "console.txt").read_text()
    (line,) = [line for line in said.splitlines() if line.startswith("resuming")]
    assert pd.read_csv(run / "metrics.csv").epoch.is_monotonic_increasing
    assert "best " in said
    return said, int(re.search(r"step ([\d,]+), minute", line).group(1).replace(",", ""))


def test_two_processes_train_one_run_and_predict_what_one_does(contest, tmp_path):
    flags = ["-n", "x", "-d", contest, *SMALL, "--train-share", "0.6", "-e", "2"]
    status, out, err = together("hack_train.py", tmp_path, *flags)
    assert status == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    assert out.count("run          ") == 1
    assert "each of 2 processes" in out
    assert (run / "console.txt").read_text() == out
    assert len(pd.read_csv(run / "metrics.csv")) == 2

    written = []
    for predict in (call, together):
        copied = shutil.copytree(run, tmp_path / predict.__name__ / "runs" / run.name)
        folder = copied.parents[1]
        status, out, err = predict("predict.py", folder, "-b", "5", "--uncertainty", folder / "deviations.csv")
        assert status == 0, err
        assert out.count("submission  ") == 1
        written.append([(copied / "submission.csv").read_bytes(), (folder / "deviations.csv").read_bytes()])
    assert written[0] == written[1]


def test_a_fault_that_all_processes_find_is_said_once(contest, tmp_path):
    status, out, err = together("hack_train.py", tmp_path, "-n", "x", "-d", contest, *SMALL, "-b", "1")
    assert status == 1
    assert err.count("error: ") == 1
    assert err.count("each needs one of a step") == 1
    assert "Traceback (most recent call last)" not in out
    assert not (tmp_path / "runs").exists()


def test_a_killed_process_costs_no_more_than_the_steps_since_the_last_checkpoint(contest, tmp_path):
    flags = ["-n", "x", "-d", contest, *SMALL, *LONG]
    with started([*STANDALONE, "--max-restarts", "1"], tmp_path, *flags) as agent:
        run, step = wait_for(lambda: begun(tmp_path), agent)
        workers = {process.environ().get("RANK"): process for process in psutil.Process(agent.pid).children()}
        workers["1"].send_signal(signal.SIGKILL)
        assert agent.wait(PATIENCE) == 0, (tmp_path / "stderr").read_text()
    said, resumed_at = trained(tmp_path)
    assert f"started anew by torchrun, which goes on with {run.folder}" in said
    assert resumed_at >= step


def test_a_machine_that_dies_is_done_without(contest, tmp_path):
    """Two agents on one machine, one of which dies with its process."""
    nodes = ["--nnodes", "1:2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    where = [
        "--rdzv-endpoint",
        f"127.0.0.1:{free_port()}",
        "--rdzv-conf",
        "last_call_timeout=8",
        "--max-restarts",
        "2",
    ]
    flags = ["-n", "x", "-d", contest, *SMALL, *LONG]
    with started([*nodes, *where], tmp_path, *flags) as first:
        time.sleep(2)  # the first one holds what the two share
        with started([*nodes, *where], tmp_path, *flags) as second:
            _, step = wait_for(lambda: begun(tmp_path), first)
            kill(second)
            assert first.wait(PATIENCE) == 0, (tmp_path / "stderr").read_text()
    said, resumed_at = trained(tmp_path)
    assert "as 1 processes, 2 before" in said
    assert resumed_at >= step
