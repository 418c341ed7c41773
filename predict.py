"""Writes the submission of a run: `python predict.py` takes the newest run, its best weights and its data."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from pipeline.errors import run_script


@dataclass(frozen=True)
class Options:
    run: Annotated[Path | None, arg(metavar="RUN")] = None
    """The folder of a run; without it the newest one with weights."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """The contest's folder; without it the one that the run was trained on."""
    gpu: bool = False
    """Predict on the GPU."""
    checkpoint: Literal["best", "last"] = "best"
    """The weights with the best validation, or those of the last epoch."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 128
    """Photos at a time."""
    decimals: int = 2
    """Of the submission's values; 0 gives integers."""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """The submission; without it submission.csv in the run's folder."""
    runs: Path = Path("runs")
    """Where run folders are."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; without it where the run keeps them."""
    skip_bad_photos: bool = False
    """Give photos that are missing or broken the mean shape, and say how many."""


def main():
    options = tyro.cli(Options, description=__doc__, config=(FlagCreatePairsOff,))

    # What follows needs torch, which takes seconds to import; --help does not wait for it.
    import numpy as np

    from pipeline.data import load_test_data
    from pipeline.device import choose_device, choose_precision, describe
    from pipeline.pictures import gallery, write_picture
    from pipeline.predictions import mean_shape_points, predict_points
    from pipeline.runs import find_run
    from pipeline.start import load_run_network
    from pipeline.submission import verify_submission, write_submission

    run = find_run(options.run, options.runs)
    recipe = run.recipe()
    place = replace(
        recipe.run,
        data=options.data or recipe.run.data,
        cache=options.cache or recipe.run.cache,
        skip_bad_photos=options.skip_bad_photos,
    )
    device = choose_device(gpu=options.gpu)
    precision = choose_precision(recipe.network.precision, device)
    network = load_run_network(run, options.checkpoint).to(device)
    table, pack = load_test_data(replace(recipe, run=place), len(network.mean_shape))
    print(f"run         {run.folder}, {options.checkpoint} weights, {precision} on {describe(device)}")
    print(f"test        {place.data}: {len(table.names):,} photos, {table.values.shape[1]} points asked of each")

    predict = partial(predict_points, network, pack, device=device, precision=precision, batch_size=options.batch_size)
    rows = np.flatnonzero(np.isin(table.names, pack.names))
    points = mean_shape_points(network, pack, table.values)
    points[rows] = predict(np.arange(len(pack)), asked=pack.values, description="predicting")
    if pack.left_out:
        print(f"left out    {len(pack.left_out):,} photos are missing or broken and have the mean shape")

    output = options.output or run.submission
    write_submission(output, table.names, points, decimals=options.decimals)
    verify_submission(output, table.names, points, decimals=options.decimals)
    shown = np.linspace(0, len(pack) - 1, min(len(pack), 12)).astype(int)
    picture = gallery(pack.images[shown], pack.fits[shown], predict(shown), None, pack.names[shown].tolist())
    write_picture(run.picture("test"), picture)
    print(f"pictures    {run.picture('test')}")
    print(f"submission  {output}, read back and verified")


if __name__ == "__main__":
    run_script(main)
