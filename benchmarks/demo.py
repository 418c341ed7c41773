"""Keeps what `make demo` reached: python -m benchmarks.demo, after it."""

from pathlib import Path

from benchmarks.results import write_result
from demo.result import scores_of

if __name__ == "__main__":
    scores = scores_of(Path("demo_contest"), Path("demo_contest/runs"))
    write_result("demo", {name: {part: round(mse, 2) for part, mse in row.items()} for name, row in scores.items()})
