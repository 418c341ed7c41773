"""Reading the table of points, beside one thread that only parses: python -m benchmarks.reading [ROWS] [--rounds 15]

A table of 971 points is written, whose rows are a few drawn ones with other names, and read as a training reads it: in
a stream, by all cores, into a file. The reference does nothing but `numpy.fromstring` on the numbers of the same lines,
which lie in memory. Both take turns, so that they share what else the machine does; their processor time is told too.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.rounds import Ratio
from pipeline.allocator import keep_freed_memory
from pipeline.data.contest import read_landmarks
from pipeline.data.cores import num_cores
from pipeline.errors import Faults

ROOT = Path(__file__).parents[1]
NUM_POINTS = 971
NUM_DRAWN = 200
NUM_REFERENCE = 1000  # lines that the reference parses a round
CONTEST = 400_000  # photos


def write_table(path: Path, num_rows: int, num_points: int = NUM_POINTS):
    """A table of whole numbers; in one row of 20 some points lie outside the photo."""
    rng = np.random.default_rng(0)
    lowest = [-9 if number % 20 == 0 else 0 for number in range(NUM_DRAWN)]
    rows = ["\t".join(map(str, rng.integers(low, 420, 2 * num_points))) for low in lowest]
    with path.open("w") as file:
        file.write("file_name" + "\tx" * 2 * num_points + "\n")
        for number in range(num_rows):
            file.write(f"{number:06d}.jpg\t{rows[number % NUM_DRAWN]}\n")


def seconds(work) -> dict[str, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def ratios(table: Path, num_rows: int, *, rounds: int) -> dict[str, list[float]]:
    """The rate of reading over that of parsing, by the clock and a second of any core's time, for each round."""
    with table.open("rb") as file:
        lines = [file.readline().partition(b"\t")[2] for _ in range(NUM_REFERENCE + 1)][1:]
    found: dict[str, list[float]] = {"clock": [], "processor": []}
    for _ in range(rounds):
        keep_freed_memory()  # so that neither is first to have what it needs
        bare = seconds(lambda: [np.fromstring(line, np.int64, sep="\t") for line in lines])
        read = seconds(lambda: read_landmarks(table, Faults(), scratch=table.parent))
        for name, each in found.items():
            each.append(round(bare[name] / NUM_REFERENCE / (read[name] / num_rows), 3))
    return found


def peak_megabytes(table: Path) -> float:
    """The most memory that a process which only reads the table has, the interpreter and mapped files included."""
    script = (
        "import sys; from pathlib import Path; from benchmarks.reading import print_peak; print_peak(Path(sys.argv[1]))"
    )
    found = subprocess.run([sys.executable, "-c", script, table], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(found.stdout)


def print_peak(table: Path):
    read_landmarks(table, Faults(), scratch=table.parent)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args(arguments)


def main():
    options = parse()
    num_rows = options.rows
    with tempfile.TemporaryDirectory() as name:
        many, names = Path(name) / "many.csv", Path(name) / "names.csv"
        write_table(many, num_rows)
        write_table(names, CONTEST, num_points=2)
        size = many.stat().st_size
        found = ratios(many, num_rows, rounds=options.rounds)
        peaks = {f"{num_rows:,} rows": peak_megabytes(many), f"{CONTEST:,} rows of 2 points": peak_megabytes(names)}
    result = {
        "table": f"{num_rows:,} rows of {NUM_POINTS} points, {size / 1e6:.0f} MB",
        "cores": num_cores(),
        "rate over one thread of numpy.fromstring, by the clock": statistics.median(found["clock"]),
        "the same for a second of processor time": statistics.median(found["processor"]),
        "rounds": found,
        "peak memory, MB": {what: round(peak) for what, peak in peaks.items()},
        f"on paper for {CONTEST:,} rows": {
            "table, GB": round(size / num_rows * CONTEST / 1e9, 2),
            "peak memory, MB, at most": round(sum(peaks.values())),
        },
    }
    for name, value in result.items():
        print(f"{name:60} {value}")
    from benchmarks.results import write_result  # it imports torch, which would be in the memory

    kept = [
        Ratio.of(f"rate of reading the table, by the {kind}", "one thread of numpy.fromstring", rounds)
        for kind, rounds in found.items()
    ]
    write_result("reading", result, ratios=kept)


if __name__ == "__main__":
    main()
