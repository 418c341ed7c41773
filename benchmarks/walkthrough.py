"""Walks the way of docs/walkthrough.md, keeps its figures and pictures, and writes the page: `make walkthrough`.

A walk that was stopped goes on with the step at which it was. `rm -r walkthrough` starts it from the beginning.
"""

from benchmarks.results import write_result
from demo.walkthrough.steps import FOLDER, STEPS
from demo.walkthrough.walk import figures, walk
from pipeline.errors import run_script


def main():
    done = walk(STEPS, FOLDER)
    write_result("walkthrough", figures(STEPS, done))


if __name__ == "__main__":
    run_script(main)
