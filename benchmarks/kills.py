"""Trainings and predictions killed at random moments and taken up again: python -m benchmarks.kills [FOLDER] [KILLS]

Each kill is a case of its own: a training or a prediction, of one process or of two that torchrun starts, gets SIGKILL,
SIGTERM or SIGINT, some time after it has written a certain file or simply some time after its start. Then the files are
looked at, what was begun is done to its end, and what came of it is compared with what comes of it without a kill.

A case is a function of its number and of SEED, but for the moment, which depends on the machine. What came of each is a
line of FOLDER/kills.jsonl; called again, the campaign goes on behind the last one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.kill_results import broken_files, difference
from benchmarks.results import write_result
from benchmarks.starting import write_contest
from pipeline.checkpoint import load_checkpoint
from pipeline.environment import environment

ROOT = Path(__file__).parents[1]
SEED = 1
PHOTOS = 500
PATIENCE = 300.0  # seconds that anything may take, on a machine that has much else to do
MARK = "KILLS_CASE"  # in the environment of all processes of a case, whoever starts them
TRAIN = ["--model", "shufflenet_v2_x0_5", "--weights", "none", "--size", "32", "-b", "16", "--train-share", "0.8"]
TRAIN += ["--precision", "fp32", "--roi", "whole", "--flip-indices", "none", "-e", "5", "--checkpoint-minutes", "1e-9"]
TRAIN += ["--views", '[[], [{"AffineAugmenter": {"scale": 1.08}}]]']
MOMENTS = {
    "train": ["", "", "", "cache/*.building", "runs/*/data.json", "runs/*/recipe.yaml", "runs/*/.last.pt.partial",
              "runs/*/.best.pt.partial", "runs/*/metrics.csv", "runs/*/held_out.npz", "runs/*/report.html"],
    "predict": ["", "cache/test-*", "runs/*/views.json", "runs/*/submission.csv"],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """after: the file whose writing is waited for, "" for the start, and then so many seconds. whom: all processes, or
    one of two ranks."""

    number: int
    work: str
    ranks: int
    signal: str
    whom: str
    after: str
    seconds: float

    @classmethod
    def of(cls, number: int, *, lasts: dict[str, float]) -> "Case":
        """lasts: seconds that each kind of work takes without a kill, by `name_of`."""
        rng = np.random.default_rng([SEED, number])
        work, ranks = ("predict" if rng.random() < 0.25 else "train"), (1 if rng.random() < 0.65 else 2)
        after = str(rng.choice(MOMENTS[work]))
        seconds = rng.exponential(0.1) if after else rng.uniform(0.2, 1.0) * lasts[name_of(work, ranks)]
        name = str(rng.choice(["SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"]))
        whom = str(rng.choice(["all", "rank 0", "rank 1"])) if ranks > 1 else "all"
        return cls(number, work, ranks, name, whom, after, round(float(seconds), 3))


def name_of(work: str, ranks: int) -> str:
    return f"{work}, {ranks} rank{'s' if ranks > 1 else ''}"


class Started:
    """A script that was started in a folder, alone or by torchrun. Its output is in the folder's `said`."""

    def __init__(self, work: str, ranks: int, folder: Path, *flags: str | Path):
        script = str(ROOT / ("hack_train.py" if work == "train" else "predict.py"))
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        line = [sys.executable, *(several if ranks > 1 else []), script, "--runs", str(folder / "runs")]
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        own = {"OMP_NUM_THREADS": "1", MARK: self.mark, "PYTHONPATH": str(ROOT)}
        with (folder / "said").open("a") as said:
            self.process = subprocess.Popen(
                [*line, *map(str, flags)], cwd=folder, env=os.environ | own, stdout=said, stderr=said,
                start_new_session=True, preexec_fn=hear_ctrl_c,
            )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """All that belong to it, whoever their parents are."""
        return [one for one in psutil.process_iter() if _environment(one).get(MARK) == self.mark]

    def send(self, number: signal.Signals, whom: str) -> bool:
        """As Ctrl-C in a terminal, a batch system or a machine that dies sends a signal: to all; or to one rank, where
        there is one already. Whether there was anything left to send it to."""
        there = self.processes()
        found = [one for one in there if whom == "all" or _environment(one).get("RANK") == whom[-1]]
        for one in found or there:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        return bool(there)

    def ended(self) -> int | None:
        """Its exit status, None where it hangs."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return None

    def remove(self) -> int:
        """Kills what is left of it a moment after its end. Returns how many processes that were."""
        left = psutil.wait_procs(self.processes(), timeout=10)[1]
        for one in left:
            one.kill()
        self.process.wait()
        return len(left)


def hear_ctrl_c():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore


def _environment(process):
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def begin(case: Case, folder: Path, contest: Path) -> Started:
    data: list[str | Path] = ["--data", contest, "--cache", folder / "cache"]
    if case.work == "predict":
        return Started("predict", case.ranks, folder, *data)
    runs = [path.parent for path in folder.glob("runs/*/recipe.yaml")]
    flags: list[str | Path] = ["--resume", runs[0]] if runs else ["--name", "x", *TRAIN]
    return Started("train", case.ranks, folder, *data, *flags)


def kill(case: Case, started: Started, folder: Path) -> float | None:
    """Waits for the moment of a case, and sends the signal. Returns the seconds since the start, None where it had
    ended before."""
    begun, now = time.monotonic(), time.time_ns()
    while case.after and started.process.poll() is None and not any(_newer(p, now) for p in folder.glob(case.after)):
        time.sleep(0.002)
    time.sleep(case.seconds)
    sent = started.send(signal.Signals[case.signal], case.whom)
    return round(time.monotonic() - begun, 2) if sent else None


def _newer(path, when):
    try:
        return path.stat().st_mtime_ns >= when
    except FileNotFoundError:
        return False


def try_case(case: Case, folder: Path, contest: Path, reference: Path) -> dict[str, Any]:
    """What came of a case; "fault" says what should not be, "" where nothing is."""
    if case.work == "predict":
        shutil.copytree(reference / "runs", folder / "runs")
        for path in folder.glob("runs/*/*"):
            if path.name.startswith(("submission", "views")):
                path.unlink()
    whole = {"train": b"", "predict": next(reference.glob("runs/*/submission.csv")).read_bytes()}[case.work]
    faults = []
    started = begin(case, folder, contest)
    at = kill(case, started, folder)
    told = time.monotonic()
    status = started.ended()
    took = time.monotonic() - told
    faults += ["it hangs"] if status is None else []
    faults += [f"{left} processes left"] if (left := started.remove()) else []
    faults += broken_files(folder)
    faults += [f"half of {path.name}" for path in folder.glob("runs/*/submission*.csv") if path.read_bytes() != whole]
    state = progress_of(folder)
    again = begin(case, folder, contest)
    if (second := again.ended()) != 0:
        faults.append(f"taken up it ends with status {second}")
    faults += [f"{left} processes left then"] if (left := again.remove()) else []
    faults += broken_files(folder)
    differs = difference(case.work, folder, reference) if second == 0 else ""
    faults += [f"another result: {differs}"] if differs else []
    faults += [f"{path.name} is left" for path in folder.glob("runs/**/*.partial")]
    outcome = {"killed after s": at, "ended within s": round(took, 2), "status": status, "step": state}
    return {**vars(case), "seed": SEED, **outcome, "fault": "; ".join(faults)}


def progress_of(folder: Path) -> int | None:
    """The step of the last checkpoint of a run that was killed, None before the first one."""
    paths = list(folder.glob("runs/*/last.pt"))
    return load_checkpoint(paths[0])["progress"]["step"] if len(paths) == 1 and not broken_files(folder) else None


def references(folder: Path, contest: Path) -> dict[str, float]:
    """What comes of a training and its prediction without a kill, by one rank and by two, in folders of their own.
    Returns how long each takes, in seconds."""
    lasts_path, lasts = folder / "lasts.json", {}
    if lasts_path.exists():
        return json.loads(lasts_path.read_bytes())
    for ranks in (1, 2):
        own = folder / f"reference-{ranks}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        for work in ("train", "predict"):
            begun = time.monotonic()
            case = Case(0, work, ranks, "", "", "", 0)
            assert begin(case, own, contest).ended() == 0, (own / "said").read_text()
            lasts[name_of(work, ranks)] = time.monotonic() - begun
    lasts_path.write_text(json.dumps(lasts))
    return lasts


def run_cases(folder: Path, count: int) -> list[dict[str, Any]]:
    """Cases until so many have killed something, of which those that were done before are not done again."""
    contest, record = folder / "contest", folder / "kills.jsonl"
    if not contest.exists():
        write_contest(folder / "contest.new", PHOTOS)
        (folder / "contest.new").rename(contest)
    lasts = references(folder, contest)
    done = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    while sum(map(is_kill, done)) < count:
        number = len(done)
        case, own = Case.of(number, lasts=lasts), folder / "case"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        done.append(try_case(case, own, contest, folder / f"reference-{case.ranks}"))
        with record.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
        if done[-1]["fault"]:
            own.rename(folder / f"case-{number}-of-{time.strftime('%H%M%S')}")
    return done


def is_kill(outcome: dict[str, Any]) -> bool:
    """Whether there was still something to kill."""
    return outcome["killed after s"] is not None


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "cache/kills").absolute()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    folder.mkdir(parents=True, exist_ok=True)
    done = [one for one in run_cases(folder, count) if is_kill(one) or one["fault"]]
    kinds = Counter((name_of(one["work"], one["ranks"]), one["signal"]) for one in done)
    faults = Counter((name_of(one["work"], one["ranks"]), one["signal"]) for one in done if one["fault"])
    table = {
        f"{work}, {name}": {"kills": kinds[work, name], "faults": faults[work, name]} for work, name in sorted(kinds)
    }
    for kind, counts in table.items():
        print(f"{kind:28}{counts['kills']:4} kills{counts['faults']:4} with a fault")
    slowest = max(one["ended within s"] for one in done)
    about = {"kills": len(done), "seed": SEED, "commit": environment("")["commit"], "slowest end, s": slowest}
    write_result("kills", {**about, "kinds": table, "cases": {str(one["number"]): one for one in done}})


if __name__ == "__main__":
    main()
