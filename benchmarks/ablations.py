"""What each part of a recipe brings: one row a change, three splits by persons, paired differences.

    python -m benchmarks.ablations --data PATH            all rows that are not there yet, then the table
    python -m benchmarks.ablations --data PATH --rows linear simcc --jobs 1
    python -m benchmarks.ablations --table                the table of what is there

Held out are the persons with group ≡ k (mod 5), for k = 0, 1, 2. Every row trains as many photos as the default row,
from random weights, and is scored with one view on what was held out. Its changes against the default on the same split
are averaged over the splits, with their standard deviation. Its cost is the processor time of a photo against the
default's, of which steps are measured in turn in one process.

It may be stopped at any time: each split of a row is written as it comes, one file for a row, and what is there is not
trained again. Jobs run side by side, with one thread each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.results import processor
from pipeline.environment import environment
from pipeline.files import write_text
from pipeline.recipe import Recipe

FOLDER = Path(__file__).parent / "results/ablations"
SPLITS = (0, 1, 2)
PARTS = 5
MEASURES = ("mse", "mse without the worst 1 %", "nme")
WORST = 0.01  # of the photos
ROUNDS, STEPS = 5, 4  # of the measurement of costs

# configs/from_scratch.yaml, with a smaller size at the end and fewer epochs.
BASE = (
    "--model", "resnet18", "--weights", "none", "--head", "integral", "--map-stride", "4", "--deepest-stride", "16",
    "--batch-size", "8", "--size", "96", "--progressive", "[[0.7, 64]]", "--epochs", "8",
)  # fmt: skip

# A row: what it changes of the default row.
ROWS: dict[str, tuple[str, ...]] = {
    "default": (),
    "head linear": ("--head", "linear", "--deepest-stride", "64"),
    "head flat": ("--head", "flat"),
    "head low_rank": ("--head", "low_rank"),
    "head simcc, its loss": ("--head", "simcc", "--loss", "simcc"),
    "map stride 8": ("--map-stride", "8"),
    "all stages of the backbone": ("--deepest-stride", "64"),
    "batches of 32": ("--batch-size", "32"),
    "batches of 16": ("--batch-size", "16"),
    "96 px throughout": ("--progressive", "[]"),
    "64 px for nine tenths": ("--progressive", "[[0.9, 64]]"),
    "rate 3e-3": ("--learning-rate", "3e-3"),
    "rate 5e-4": ("--learning-rate", "5e-4"),
    "no EMA": ("--ema-decay", "0"),
    "weight decay 0.2": ("--weight-decay", "0.2"),
    "muon": ("--optimiser", "muon"),
    "lion": ("--optimiser", "lion", "--learning-rate", "1e-4"),
    "sgd": ("--optimiser", "sgd", "--learning-rate", "1e-2"),
    "schedule-free": ("--optimiser", "schedule_free", "--schedule", "constant"),
    "one cycle": ("--schedule", "one_cycle"),
    "linear decay": ("--schedule", "linear"),
    "cosine with restarts": ("--schedule", "cosine_restarts"),
    "mse": ("--loss", "mse"),
    "l1": ("--loss", "l1"),
    "wing": ("--loss", "wing"),
    "soft wing": ("--loss", "soft_wing"),
    "enme": ("--loss", "enme"),
    "gaussian nll": ("--loss", "gaussian_nll"),
    "laplace nll": ("--loss", "laplace_nll"),
    "rle": ("--loss", "rle"),
    "edge term": ("--edge-weight", "0.5"),
    "unit of the image": ("--loss-unit", "image"),
    "mixup": ("--mixup", "0.2"),
    "mirroring alone": ("--augment", '[{"MirrorAugmenter": {"probability": 0.5}}]'),
    "without the highest 1 %": ("--without-top-perc-train", "1"),
    "without the highest 5 %": ("--without-top-perc-train", "5"),
    "trimmed, 1 % to 30 %": ("--without-top-perc-train", "1", "--top-perc-train", "30"),
    "trimmed, random control": ("--without-top-perc-train", "1", "--top-perc-train", "30", "--trim-at-random"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the contest's folder, with train/groups.csv")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many trainings at a time")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and train nothing")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SPLIT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        row, split = options.one
        print(json.dumps(measure(options.data, options.cache, ROWS[row], int(split))))
        return
    if not options.table:
        if not options.data:
            parser.error("--data PATH is needed to train")
        train_rows(options)
    print(table())


def train_rows(options):
    """Trains what is not there, `jobs` at a time, the first split of every row before the second of any."""
    pending = [(row, k) for k in SPLITS for row in options.rows if str(k) not in read(row)["splits"]]
    with ThreadPoolExecutor(options.jobs) as pool:
        for (row, split), found in zip(pending, pool.map(lambda job: train_one(options, *job), pending), strict=True):
            write(row, split, found)
            print(f"{row:28} split {split}: MSE {found['mse']:.2f}, NME {found['nme']:.2f} %", flush=True)


def train_one(options, row, split) -> dict[str, Any]:
    """One training in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ablations", "--data", str(options.data), "--cache", str(options.cache)]
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    done = subprocess.run(
        [*command, "--one", row, str(split)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(data: Path, cache: Path, changes: tuple[str, ...], split: int) -> dict[str, Any]:
    """Trains one row on one split, and scores it with one view on what was held out."""
    from pipeline.data.loader import parse_chain
    from pipeline.metrics import normalised_mean_error, photo_errors
    from pipeline.recipe import flatten

    recipe = recipe_of(data, cache, changes, split)
    trainer = trainer_of(recipe)
    begun = time.process_time()
    trainer.train(parse_chain(recipe))
    seconds = time.process_time() - begun
    held_out = trainer.data.validation
    truth, names = trainer.data.pack.values[held_out], trainer.data.pack.names[held_out]
    points = trainer.validate()
    errors = np.sort(photo_errors(points, truth, names))
    return {
        "mse": round(float(errors.mean()), 3),
        "mse without the worst 1 %": round(float(errors[: len(errors) - round(WORST * len(errors))].mean()), 3),
        "nme": round(float(normalised_mean_error(points, truth)), 4),
        "photos": int(trainer.state.seen),
        "processor seconds": round(seconds, 1),
        **({"cost": cost(data, cache, changes)} if split == SPLITS[0] and changes else {}),
        "precision": trainer.runtime.precision,
        "epochs": flatten(recipe)["epochs"],
    }


def recipe_of(data: Path, cache: Path, changes: tuple[str, ...], split: int) -> Recipe:
    from pipeline.command import parse_command

    groups = pd.read_csv(data / "train/groups.csv", sep="\t", index_col=0).group
    cache.mkdir(exist_ok=True)
    held_out = cache / f"ablations_split_{split}.txt"
    write_text(held_out, "".join(f"{name}\n" for name in groups.index[groups % PARTS == split]))
    flags = ("--data", str(data), "--cache", str(cache), "--split", str(held_out))
    return parse_command([*flags, *BASE, *changes]).recipe


def trainer_of(recipe: Recipe):
    from pipeline.data.dataset import load_training_data, shape_components
    from pipeline.networks import make_network
    from pipeline.runtime import Runtime
    from pipeline.training.trainer import Trainer

    data = load_training_data(recipe)
    components = shape_components(data) if recipe.network.head == "low_rank" else None
    network = make_network(recipe, None, mean_shape=data.mean_shape, components=components)
    return Trainer(network, recipe, data, Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision))


def cost(data: Path, cache: Path, changes: tuple[str, ...]) -> float:
    """The processor time of a photo against the default's, over the mixture of sizes that the recipes train."""
    from pipeline.data.loader import parse_chain, training_batches

    seconds: list[list[float]] = [[], []]
    trainers = [trainer_of(recipe_of(data, cache, given, SPLITS[0])) for given in ((), changes)]
    for _ in range(ROUNDS):
        for trainer, spent in zip(trainers, seconds, strict=True):
            recipe, batch_size = trainer.recipe, trainer.recipe.optimiser.batch_size
            per_photo = 0.0
            for share, size in mixture(recipe):
                order = trainer.pass_order(0)[:STEPS]
                sizes = [size] * len(order)
                chain, flip_indices = parse_chain(recipe), trainer.data.flip_indices
                batches = list(
                    training_batches(
                        trainer.data.pack,
                        trainer.source,
                        order,
                        chain,
                        flip_indices,
                        seed=0,
                        epoch=0,
                        size_of_batch=sizes.__getitem__,
                    )
                )
                begun = time.process_time()
                for batch in batches:
                    trainer.step(batch)
                per_photo += share * (time.process_time() - begun) / (len(batches) * batch_size)
            spent.append(per_photo)
    default, changed = (statistics.median(spent) for spent in seconds)
    return round(changed / default, 3)


def mixture(recipe: Recipe) -> list[tuple[float, int]]:
    """The sizes that a recipe trains, each with its share of the photos."""
    smaller = list(recipe.photos.progressive)
    return [*smaller, (1 - sum(share for share, _ in smaller), recipe.photos.size)]


def path_of(row: str) -> Path:
    return FOLDER / f"{row.replace(' ', '_').replace('%', 'percent').replace(',', '')}.json"


def read(row: str) -> dict[str, Any]:
    """What is there of a row. Raises ValueError where it was measured with other settings than those of today."""
    path = path_of(row)
    settings = [*BASE, *ROWS[row]]
    if not path.exists():
        return {"row": row, "settings": settings, "splits": {}}
    found = json.loads(path.read_text())
    if found["settings"] != settings:
        raise ValueError(f"{path} was measured with {' '.join(found['settings'])}; delete it to measure the row anew")
    return found


def write(row: str, split: int, found: dict[str, Any]):
    content = read(row)
    content["splits"][str(split)] = found
    content["made with"] = {"date": time.strftime("%Y-%m-%d"), "device": processor()} | {
        name: value for name, value in environment(processor()).items() if name in ("commit", "python")
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path_of(row).write_text(json.dumps(content, indent=1) + "\n")


def table() -> str:
    """A line a row: the mean change against the default row over the splits that both have, and its deviation."""
    default = read("default")["splits"]
    lines = ["| row | splits | MSE | without the worst 1 % | NME | cost |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        splits = read(row)["splits"]
        both = [k for k in splits if k in default]
        if not both:
            continue
        if row == "default":
            own = [statistics.mean(splits[k][name] for k in both) for name in MEASURES]
            cells = [f"{own[0]:.2f} px²", f"{own[1]:.2f} px²", f"{own[2]:.2f} %"]
        else:
            cells = [change(splits, default, both, name) for name in MEASURES]
        cost = "1" if row == "default" else f"{splits['0'].get('cost', float('nan')):.2f}" if "0" in splits else ""
        lines.append(f"| {row} | {len(both)} | {' | '.join(cells)} | {cost} |")
    return "\n".join(lines)


def change(splits, default, both, name) -> str:
    changes = [100 * (splits[k][name] / default[k][name] - 1) for k in both]
    deviation = f" ± {statistics.stdev(changes):.1f}" if len(changes) > 1 else ""
    return f"{statistics.mean(changes):+.1f}{deviation} %"


if __name__ == "__main__":
    main()
