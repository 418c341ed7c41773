"""Training loops side by side: this project's, and what else its users would run, on the same photos and network.

    python -m benchmarks.loops --data PATH [--gpu]                 rate, processor time and memory of each loop
    python -m benchmarks.loops --data PATH --minutes 12            the error: theirs after 12 minutes, ours after 4

The loops: the organisers' (photos read and transformed one by one in workers, float32, the loss read at each step), an
ordinary well-made one (albumentations in workers, channels last, autocast, AdamW, cosine), and lightning's trainer
around the same. For the rates all train the same network, which ends in one linear layer; for the errors ours is
`configs/from_scratch.yaml`. Each runs in a process of its own, in turn, in several rounds; a ratio is the median of the
rounds'. Memory is the private memory of the process and its workers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import write_result
from benchmarks.rounds import Ratio

LOOPS = ("ours", "organisers", "ordinary", "lightning")
WARM_UP = 5.0  # seconds
MODEL, SIZE, BATCH = "resnet18", 128, 32
WORKERS = psutil.cpu_count()


class Clock:
    """Called after each step with the number of its photos; True when enough was measured."""

    def __init__(self, seconds: float):
        self.seconds, self.begun, self.photos = seconds, time.perf_counter(), 0
        self.warm, self.cpu = False, 0.0

    def __call__(self, num_photos: int) -> bool:
        now = time.perf_counter()
        if not self.warm and now - self.begun > WARM_UP:
            self.warm, self.begun, self.photos, self.cpu = True, now, 0, processor_seconds()
        elif self.warm:
            self.photos += num_photos
        return self.warm and now - self.begun > self.seconds

    def result(self) -> dict[str, float]:
        return {
            "photos a second": self.photos / (time.perf_counter() - self.begun),
            "processor seconds a photo": (processor_seconds() - self.cpu) / self.photos,
            "memory": sum(process.memory_full_info().uss for process in family()) / 2**20,
        }


def family() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def processor_seconds() -> float:
    times = [process.cpu_times() for process in family()]
    return sum(spent.user + spent.system for spent in times)


def train_ours(data: Path, tick: Callable[[int], bool], *, gpu: bool):
    from pipeline.command import parse_command
    from pipeline.data.dataset import load_training_data
    from pipeline.data.loader import parse_chain
    from pipeline.networks import make_network
    from pipeline.runtime import Runtime
    from pipeline.training.trainer import Callback, Trainer

    class Tick(Callback):
        def after_step(self, trainer):
            if tick(BATCH):
                raise StopIteration

    same = ["--model", MODEL, "--weights", "none", "--head", "linear", "--batch-size", str(BATCH), "--size", str(SIZE)]
    flags = ["--data", str(data), *same, "--epochs", "1000", *(["--gpu"] if gpu else [])]
    recipe = parse_command(flags).recipe
    contest = load_training_data(recipe)
    network = make_network(recipe, None, mean_shape=contest.mean_shape)
    trainer = Trainer(network, recipe, contest, Runtime.choose(gpu=gpu), callbacks=[Tick()])
    try:
        trainer.train(parse_chain(recipe))
    except (StopIteration, RuntimeError):  # a generator turns the one into the other
        if not tick(0):
            raise


def measure(name: str, data: Path, *, seconds: float, gpu: bool) -> dict[str, float]:
    """One loop for so many seconds after its first few."""
    clock = Clock(seconds)
    if name == "ours":
        train_ours(data, clock, gpu=gpu)
    else:
        from benchmarks import loops_of_others

        getattr(loops_of_others, f"train_{name}")(data, clock, gpu=gpu)
    return clock.result()


def in_a_process(*flags: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loops", *flags], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare_rates(options: argparse.Namespace) -> dict[str, Any]:
    """The loops in turn, in several rounds; what each has of ours."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in LOOPS}
    common = ["--data", str(options.data), "--seconds", str(options.seconds), *(["--gpu"] if options.gpu else [])]
    for number in range(options.rounds):
        for name in LOOPS:
            rounds[name].append(in_a_process(*common, "--one", name))
            print(f"round {number}: {name:12} {rounds[name][-1]['photos a second']:8.1f} photos a second", flush=True)
    return {name: row(found, rounds["ours"]) for name, found in rounds.items()}


def row(found: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    """The median rate, and how many times a loop's figure ours is: the least, the median and the most of the rounds."""
    ratios = {
        name: sorted(own[name] / one[name] for own, one in zip(ours, found, strict=True))
        for name in ("photos a second", "processor seconds a photo", "memory")
    }
    return {
        "photos a second": round(statistics.median(one["photos a second"] for one in found), 1),
        **{
            f"ours / this, {name}": [round(pick, 3) for pick in (values[0], statistics.median(values), values[-1])]
            for name, values in ratios.items()
        },
    }


def ratios_of(rows: dict[str, dict[str, Any]]) -> list[Ratio]:
    """Rates of ours over theirs."""
    kept = []
    for name, found in rows.items():
        if name != "ours":
            low, middle, high = found["ours / this, photos a second"]
            kept.append(Ratio("rate of training", f"the loop: {name}", middle, low, high))
    return kept


def compare_errors(options: argparse.Namespace) -> dict[str, float]:
    """The validation MSE of the organisers' and the ordinary loop after so many minutes, and ours after a third."""
    from benchmarks.ablation_training import names_held_out

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        held_out = Path(folder) / "held_out.txt"
        held_out.write_text("".join(f"{name}\n" for name in names_held_out(options.data, 0)))
        common = ["--data", str(options.data), "--held-out", str(held_out), *(["--gpu"] if options.gpu else [])]
        for name in ("organisers", "ordinary"):
            found[name] = round(in_a_process(*common, "--minutes", str(options.minutes), "--one", name)["mse"], 2)
        command = [sys.executable, "hack_train.py", "--config", "configs/from_scratch.yaml", "--runs", folder]
        where = ["--data", str(options.data), "--split", str(held_out), *(["--gpu"] if options.gpu else [])]
        subprocess.run([*command, *where, "--minutes", str(options.minutes / 3)], check=True)
        table = next(Path(folder).glob("*/metrics.csv")).read_text().splitlines()
        column = table[0].split(",").index("validation_mse")
        found["ours, a third of the time"] = round(min(float(line.split(",")[column]) for line in table[1:]), 2)
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--minutes", type=float, help="compare the errors after so many minutes, and not the rates")
    parser.add_argument("--one", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--held-out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main():
    options = parse()
    if options.one and options.minutes:
        from benchmarks.loops_of_others import train_and_score

        mse = train_and_score(
            options.one, options.data, options.held_out, seconds=60 * options.minutes, gpu=options.gpu
        )
        print(json.dumps({"mse": mse}))
    elif options.one:
        print(json.dumps(measure(options.one, options.data, seconds=options.seconds, gpu=options.gpu)))
    elif options.minutes:
        errors = compare_errors(options)
        print("\n".join(f"{name:28}{mse:8.2f}" for name, mse in errors.items()))
        write_result(f"loops_errors_{MODEL}_{SIZE}px", {"minutes": options.minutes, "mse": errors}, gpu=options.gpu)
    else:
        loops = compare_rates(options)
        result = {"model": MODEL, "size": SIZE, "batch": BATCH, "loops": loops}
        kept = ratios_of(loops)
        write_result(f"loops_{MODEL}_{SIZE}px", result, ratios=kept, gpu=options.gpu, peers=("lightning",))


if __name__ == "__main__":
    main()
