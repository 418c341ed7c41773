"""Writes the report of a run, `report.html` in its folder: `python -m tools.report RUN`.

Its photos and errors are those of the run's best weights on its held-out photos. They are measured if that was not done
when the run was trained, or with --measure; otherwise the report is made from the files in the folder alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pipeline.cli import parse_flags
from pipeline.errors import run_script
from pipeline.files import check_usable
from pipeline.inference.held_out import training_data
from pipeline.inference.measured import load_measured, measure, save_measured
from pipeline.inference.report import write_report
from pipeline.networks import load_run_network
from pipeline.runs import Run, find_runs
from pipeline.runtime import Runtime


@dataclass(frozen=True)
class Options:
    run: Positional[Path]
    """The run, or a folder of folds, each of which gets a report."""
    measure: bool = False
    """Predict the held-out photos again."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """Where the contest's folder is now, if it was moved."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; by default where the run kept them."""
    gpu: bool = False
    """Predict on the GPU."""


def measure_run(run: Run, options: Options):
    """Saves what the run's best weights predict for its held-out photos. Raises UserError if its data are not there."""
    own = run.recipe()
    data = training_data(run, own.run.moved(options.data, options.cache))
    runtime = Runtime.choose(gpu=options.gpu, precision=own.network.precision)
    network = load_run_network(run, "best").to(runtime.device)
    save_measured(run.folder, measure(network, data, runtime))


def main():
    options = parse_flags(Options, __doc__)
    for run in find_runs((options.run,), options.run):
        check_usable(run.folder)
        if options.measure or load_measured(run.folder) is None:
            measure_run(run, options)
        print(write_report(run))


if __name__ == "__main__":
    run_script(main)
