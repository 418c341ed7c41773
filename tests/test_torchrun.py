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
from tests.ranks import free_port, script_together
from tests.scripts import ROOT, SMALL, command

STANDALONE = ["--standalone", "--nproc-per-node", "2"]
PATIENCE = 900  # seconds, on a machine that has much else to do
FEW_VIEWS = '[[], [{"MirrorAugmenter": {"probability": 1}}], [{"AffineAugmenter": {"scale": 1.08}}]]'
HOLD = """
import atexit
import time

import tests.scripts
from pipeline.training.callbacks import Callback

if not hasattr(tests.scripts, "quick"):  # a training reads this file twice
    tests.scripts.quick = tests.scripts.quick_report()
    tests.scripts.quick.__enter__()
    atexit.register(tests.scripts.quick.__exit__, None, None, None)


class Hold(Callback):
    def __init__(self, run):
        self.last, self.go = run.last, run.folder.parents[1] / "go"

    def after_step(self, trainer):
        while self.last.exists() and not self.go.exists():
            time.sleep(0.05)
"""


def torchrun(flags, script, folder, *own):
    return [sys.executable, "-m", "torch.distributed.run", *flags, *command(script, folder, *own)[1:]]


def held(folder, contest):
    """The flags of a training that waits, once it has a checkpoint, until `folder` has a file called "go"."""
    (folder / "hold.py").write_text(HOLD)
    length = ["--train-share", "0.6", "-e", "2", "--views", FEW_VIEWS]
    return ["-n", "x", "-d", contest, *SMALL, *length, "--callbacks", f"{folder}/hold.py:Hold"]


@contextmanager
def started(flags, folder, *own):
    """A training by torchrun, which is killed with all of its processes at the end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = torchrun(flags, "hack_train.py", folder, *own)
    with open(folder / "stdout", "a") as out, open(folder / "stderr", "a") as errors:
        agent = subprocess.Popen(line, cwd=folder, env=environment, stdout=out, stderr=errors, start_new_session=True)
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
    """The one run in `folder`, which is trained to its end, what it has said, and at which step it was resumed."""
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    assert not list((folder / "runs").glob(".job-*")), "the job is not forgotten"
    said = (run / "console.txt").read_text()
    (line,) = [line for line in said.splitlines() if line.startswith("resuming")]
    assert pd.read_csv(run / "metrics.csv").epoch.tolist() == [0, 1]
    assert "best " in said
    return run, said, int(re.search(r"step ([\d,]+), minute", line).group(1).replace(",", ""))


def test_a_fault_that_all_processes_find_is_said_once(contest, tmp_path):
    flags = ["-n", "x", "-d", contest, *SMALL, "-b", "1"]
    found = script_together(2, "hack_train.py", tmp_path, *flags)
    assert sorted(each.status for each in found) == [1, 2]
    said = "".join(each.out + each.err for each in found)
    assert said.count("error: ") == 1
    assert said.count("each needs one of a step") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_a_killed_process_costs_no_more_than_the_steps_since_the_last_checkpoint(contest, tmp_path):
    """What two processes have trained, two predict as one does."""
    with started([*STANDALONE, "--max-restarts", "1"], tmp_path, *held(tmp_path, contest)) as agent:
        begun_run, step = wait_for(lambda: begun(tmp_path), agent)
        workers = {process.environ().get("RANK"): process for process in psutil.Process(agent.pid).children()}
        workers["1"].send_signal(signal.SIGKILL)
        (tmp_path / "go").touch()
        assert agent.wait(PATIENCE) == 0, (tmp_path / "stderr").read_text()
    run, said, resumed_at = trained(tmp_path)
    assert run == begun_run.folder
    assert f"started anew by torchrun, which goes on with {run}" in said
    assert resumed_at == step
    assert "each of 2 processes" in said
    assert (tmp_path / "stdout").read_text().count("run          ") == 2, "once a sitting"

    written = []
    for count in (1, 2):
        copied = shutil.copytree(run, tmp_path / str(count) / "runs" / run.name)
        folder = copied.parents[1]
        found = script_together(count, "predict.py", folder, "-b", "5", "--uncertainty", folder / "deviations.csv")
        assert [each.status for each in found] == [0] * count, [each.err for each in found]
        assert "".join(each.out for each in found).count("submission  ") == 1
        written.append([(copied / "submission.csv").read_bytes(), (folder / "deviations.csv").read_bytes()])
    assert written[0] == written[1]


def test_a_machine_that_dies_is_done_without(contest, tmp_path):
    """Two agents on one machine, one of which dies with its process."""
    nodes = ["--nnodes", "1:2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    where = [
        *("--rdzv-endpoint", f"127.0.0.1:{free_port()}"),
        *("--rdzv-conf", "last_call_timeout=8", "--max-restarts", "2"),
    ]
    flags = held(tmp_path, contest)
    with started([*nodes, *where], tmp_path, *flags) as first:
        time.sleep(2)  # the first one holds what the two share
        with started([*nodes, *where], tmp_path, *flags) as second:
            _, step = wait_for(lambda: begun(tmp_path), first)
            kill(second)
            (tmp_path / "go").touch()
            assert first.wait(PATIENCE) == 0, (tmp_path / "stderr").read_text()
    _, said, resumed_at = trained(tmp_path)
    assert "as 1 processes, 2 before" in said
    assert resumed_at == step
