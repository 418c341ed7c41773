"""Walks the way of docs/walkthrough.md, keeps its figures and pictures, and writes the page: `make walkthrough`.

A walk that was stopped goes on with the step at which it was. `rm -r walkthrough` starts it from the beginning.
"""

import json

from benchmarks.results import write_result
from demo.walkthrough.page import PAGE, errors, render
from demo.walkthrough.pictures import write_pictures
from demo.walkthrough.steps import FOLDER, STEPS
from demo.walkthrough.walk import figures, walk
from pipeline.errors import run_script
from pipeline.files import write_text


def main():
    done = walk(STEPS, FOLDER)
    found = figures(STEPS, done)
    write_pictures(done, errors(found))
    kept = json.loads(write_result("walkthrough", found).read_text(encoding="utf-8"))
    write_text(PAGE, render(kept["result"], kept["made with"]["device"]))
    print(PAGE)


if __name__ == "__main__":
    run_script(main)
