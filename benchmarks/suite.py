"""All benchmarks that a machine can run, one after the other: `make bench`, and on a GPU `make bench-gpu`.

    python -m benchmarks.suite [--gpu] [--output FILE]

Each runs in a process of its own, with settings that are quick; one that fails is named, and the others go on. What
they found is one table, each figure the ratio to its reference with the least and the most of the rounds, and one file,
`benchmarks/results/<processor>.json`. The data are a drawn contest, made at the start.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import FOLDER, made_with, processor, to_json
from benchmarks.rounds import Ratio
from demo.contest import write_contest
from pipeline.errors import run_script
from pipeline.files import write_text
from pipeline.runtime import choose_device

DATA = "DATA"  # stands for the folder of the drawn contest
NUM_PHOTOS = {False: 1000, True: 4000}  # without and with a GPU

# Modules of this folder with their flags.
ON_CPU = [
    "augment --rounds 5 --sizes 128",
    "views --rounds 2",
    "backends --rounds 3 --networks resnet18:96",
    "heads --rounds 2 --model resnet18 --size 96 --batch-size 16",
    "packing --data DATA --rounds 3",
    "reading 4000 --rounds 5",
    "starting 20000",
    "efficiency --data DATA --model resnet18 --size 96 --rounds 2",
    "predicting --data DATA --rounds 2 --photos 1000",
    "loops --data DATA --rounds 1 --seconds 10",
    "memory --counts 2000 10000",
]
ON_GPU = [
    "augment --gpu",
    *(
        f"efficiency --data DATA --gpu --model {model} --size {size} --batch-size 128"
        for model in ("resnet18", "resnet50")
        for size in (128, 224)
    ),
    "resident --gpu",
    "views --gpu",
    "heads --gpu --batch-size 128",
    "predicting --data DATA --gpu",
    "loops --data DATA --gpu --rounds 3 --seconds 30",
]
SECONDS = 1200  # that one of them may take
TESTS = [sys.executable, "-m", "pytest", "-m", "gpu"]


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found, or how it failed."""

    command: str
    seconds: float
    ratios: list[Ratio]
    failure: str | None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="what has to be measured on a GPU, and the tests for one")
    parser.add_argument("--output", type=Path, help="of the result, where it is another")
    return parser.parse_args(arguments)


def main():
    options = parse()
    choose_device(gpu=options.gpu)  # raises UserError where there is no GPU
    about = made_with(gpu=options.gpu)
    path = options.output or FOLDER / f"{machine(gpu=options.gpu)}.json"
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "contest"
        print("drawing a contest", flush=True)
        write_contest(data, train=NUM_PHOTOS[options.gpu], test=200, seed=0)
        outcomes = [run_tests()] if options.gpu else []
        for command in ON_GPU if options.gpu else ON_CPU:
            outcomes.append(run(command, data, Path(name) / "results"))
            print(line_of(outcomes[-1]), flush=True)
            write_text(path, to_json(collected(outcomes, about)) + "\n")  # so that a stop keeps what was found
    print("\n".join(table(outcomes)))
    versions = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", "numpy", "opencv-python-headless"))
    print(f"{about['date']}, {about['device']}, commit {about['commit']}, {versions}")
    print(path)
    sys.exit(1 if any(outcome.failure for outcome in outcomes) else 0)


def run(command: str, data: Path, results: Path) -> Outcome:
    """Runs a benchmark of the lists above, whose result files go into the folder `results`."""
    for path in results.glob("*.json"):
        path.unlink()
    words = command.replace(DATA, str(data)).split()
    seconds, failure = call([sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]], results)
    found = [json.loads(path.read_text()).get("ratios", []) for path in results.glob("*.json")]
    ratios = [Ratio(**ratio) for one in found for ratio in one]
    return Outcome(command, seconds, ratios, failure or (None if ratios else "it wrote no ratios"))


def run_tests() -> Outcome:
    """The tests that need a GPU."""
    seconds, failure = call(TESTS, None)
    return Outcome("pytest -m gpu", seconds, [], failure)


def call(command: list[str], results: Path | None) -> tuple[float, str | None]:
    """How long a process took, and the last thing that it said if it failed."""
    begun, where = time.perf_counter(), {"BENCHMARK_RESULTS": str(results)} if results else {}
    try:
        done = subprocess.run(
            command,
            env=os.environ | where,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        failure = f"status {done.returncode}: {said}" if done.returncode else None
    except subprocess.TimeoutExpired:
        failure = f"it took more than {SECONDS} seconds"
    return time.perf_counter() - begun, failure


def line_of(outcome: Outcome) -> str:
    found = f"failed, {outcome.failure}" if outcome.failure else f"{len(outcome.ratios)} ratios"
    return f"{outcome.seconds:6.0f} s  {outcome.command}: {found}"


def table(outcomes: list[Outcome]) -> list[str]:
    """The lines of the table, and one for each failure."""
    rows = [f"{'figure':56}{'reference':32}{'ratio':>9}{'least':>9}{'most':>9}"]
    rows += [
        f"{one.name:56}{one.reference:32}{one.ratio:9.3f}{one.low:9.3f}{one.high:9.3f}"
        for outcome in outcomes
        for one in outcome.ratios
    ]
    return rows + [f"FAILED  {outcome.command}: {outcome.failure}" for outcome in outcomes if outcome.failure]


def collected(outcomes: list[Outcome], about: dict[str, Any]) -> dict[str, Any]:
    """What the result file holds."""
    return {
        "benchmarks": {
            outcome.command: {
                "seconds": round(outcome.seconds),
                **({"failure": outcome.failure} if outcome.failure else {}),
                "ratios": [vars(ratio) for ratio in outcome.ratios],
            }
            for outcome in outcomes
        },
        "made with": about,
    }


def machine(*, gpu: bool) -> str:
    """The name of the processor and its cores, or of the GPU, as a file is called."""
    name = torch.cuda.get_device_name() if gpu else f"{processor()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


if __name__ == "__main__":
    run_script(main)
