"""What each part of a recipe brings: one row a change, three splits by persons, paired differences.

    python -m benchmarks.ablations --data PATH            all rows that are not there yet, then the table
    python -m benchmarks.ablations --data PATH --rows muon "map stride 8" --jobs 1
    python -m benchmarks.ablations --table                the table of what is there
    python -m benchmarks.ablations --study long --data PATH          few rows, of as many photos as in twelve minutes
    python -m benchmarks.ablations --study dense --data DEMO_CONTEST
    python -m benchmarks.ablations --study poses --data POSES        as benchmarks.poses draws them

Held out are the persons with group ≡ k (mod 5), for k = 0, 1, 2; where photos have no groups, every fifth photo. Every
row trains as many photos as the default row, those of a locator included, and is scored with one view on what was held
out. Its changes against the default on the same split are averaged over the splits, with their standard deviation. Its
cost is the processor time of a photo against the default's, of which steps are measured in turn in one process, without
what a locator has cost.

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
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.ablation_rows import STUDIES, Study
from benchmarks.results import processor
from pipeline.environment import environment
from pipeline.files import write_text

RESULTS = Path(__file__).parent / "results"
SPLITS = (0, 1, 2)
MEASURES = ("mse", "mse without the worst 1 %", "nme")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--study",
        choices=STUDIES,
        default="faces",
        help="faces; long: faces at full length; dense: 971 drawn points; poses: drawn bodies",
    )
    parser.add_argument("--data", type=Path, help="the contest's folder")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many trainings at a time")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and train nothing")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SPLIT"), help=argparse.SUPPRESS)
    parser.add_argument("--locator", action="store_true", help=argparse.SUPPRESS)  # only that, of --one
    options = parser.parse_args()
    study = STUDIES[options.study]
    if unknown := set(options.rows or ()) - study.rows.keys():
        parser.error(f"--rows: {', '.join(sorted(unknown))}; there are {', '.join(study.rows)}")
    if options.one:
        row, split = options.one
        from benchmarks.ablation_training import measure, train_locator

        if options.locator:
            train_locator(study, row, int(split), data=options.data, cache=options.cache)
        else:
            print(json.dumps(measure(study, row, int(split), data=options.data, cache=options.cache)))
        return
    failed = 0
    if not options.table:
        if not options.data:
            parser.error("--data PATH is needed to train")
        failed = train_rows(study, options)
    print(table(study))
    sys.exit(1 if failed else 0)


def train_rows(study: Study, options: argparse.Namespace) -> int:
    """Trains what is not there, `jobs` at a time, the first split of every row before the second of any. Returns how
    many trainings failed."""
    rows = options.rows or study.rows
    pending = [(row, k) for k in SPLITS for row in rows if str(k) not in read(study, row)["splits"]]
    with ThreadPoolExecutor(options.jobs) as pool:
        of_rows = [(study.locator_row(row), split) for row, split in pending]
        needed = dict.fromkeys((row, split) for row, split in of_rows if row)
        locators = {(row, split): pool.submit(run_one, options, row, split, "--locator") for row, split in needed}

        def train(row, split):
            if locator_row := study.locator_row(row):
                locators[locator_row, split].result()  # raises what that has raised; it has begun before
            return train_one(options, row, split)

        failed = 0
        trained = {pool.submit(train, *job): job for job in pending}
        for done in as_completed(trained):
            row, split = trained[done]
            if error := done.exception():  # the others go on
                print(f"{row:28} split {split} failed: {error}", flush=True)
                failed += 1
                continue
            found = done.result()
            write(study, row, split, found)
            print(f"{row:28} split {split}: MSE {found['mse']:.2f}, NME {found['nme']:.2f} %", flush=True)
    return failed


def train_one(options: argparse.Namespace, row: str, split: int) -> dict[str, Any]:
    """What one training finds."""
    return json.loads(run_one(options, row, split).splitlines()[-1])


def run_one(options: argparse.Namespace, row: str, split: int, *flags: str) -> str:
    """The output of one training in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ablations", "--study", options.study]
    where = ["--data", str(options.data), "--cache", str(options.cache)]
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    done = subprocess.run(
        [*command, *where, "--one", row, str(split), *flags],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    return done.stdout


def path_of(study: Study, row: str) -> Path:
    return RESULTS / study.folder / f"{row.replace(' ', '_').replace('%', 'percent').replace(',', '')}.json"


def read(study: Study, row: str) -> dict[str, Any]:
    """What is there of a row. Raises ValueError where it was measured with other settings than those of today."""
    path = path_of(study, row)
    settings = list(study.flags(row))
    if not path.exists():
        return {"row": row, "settings": settings, "splits": {}}
    found = json.loads(path.read_text())
    if found["settings"] != settings:
        raise ValueError(f"{path} was measured with {' '.join(found['settings'])}; delete it to measure the row anew")
    return found


def write(study: Study, row: str, split: int, found: dict[str, Any]):
    content = read(study, row)
    made_with = {"date": time.strftime("%Y-%m-%d"), "device": processor()} | {
        name: value for name, value in environment(processor()).items() if name in ("commit", "python")
    }
    content["splits"][str(split)] = found | {"made with": made_with}
    path = path_of(study, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1) + "\n")


def table(study: Study) -> str:
    """A line a row: the mean change against the default row over the splits that both have, and its deviation."""
    default = read(study, "default")["splits"]
    lines = ["| row | splits | MSE | without the worst 1 % | NME | cost |", "|---|---|---|---|---|---|"]
    for row in study.rows:
        splits = read(study, row)["splits"]
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
