"""Writes the submission: `python predict.py` takes the newest run, its best weights, its views and its data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from tyro.conf import arg

from pipeline.errors import UserError, run_script
from pipeline.files import check_outputs, may_write
from pipeline.flags import parse_flags


@dataclass(frozen=True)
class Options:
    run: Annotated[tuple[Path, ...], arg(metavar="RUN …")] = ()
    """Folders of runs, or of the folds of one; several are merged. Without it the newest one with weights."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """The contest's folder; without it the one that the run was trained on."""
    photo: Annotated[Path | None, arg(metavar="PATH")] = None
    """Predict this photo, or all in this folder, instead of a contest: pictures and points.csv."""
    gpu: bool = False
    """Predict on the GPU."""
    checkpoint: Literal["best", "last"] = "best"
    """The weights with the best validation, or those of the last epoch."""
    views: Annotated[Path | None, arg(metavar="FILE")] = None
    """A JSON file with other views than those of the run's recipe."""
    weights: Literal["auto", "fit", "equal"] = "auto"
    """Of views and runs: fitted on held-out photos if they are not yet, fitted anew, or equal (or by hand)."""
    merge: Literal["weighted", "median", "power", "rank"] = "weighted"
    """How several runs are merged; rank weights them by the rank of their validation MSE."""
    power: Annotated[float, Gt(0)] = 2.0
    """Of the power mean."""
    batch_size: Annotated[int, arg(aliases=["-b"]), Ge(1)] = 128
    """Photos at a time."""
    decimals: Annotated[int, Interval(ge=0, le=6)] = 2
    """Of the submission's values; 0 gives integers."""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """The submission, or the folder for --photo; without it in the run's folder."""
    uncertainty: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write a standard deviation for each point to this file too, in pixels of the photo; docs/predict.md."""
    runs: Path = Path("runs")
    """Where run folders are."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; without it where the run keeps them."""
    skip_bad_photos: bool = False
    """Give photos that are missing or broken the mean shape, and say how many."""


def main():
    options = parse_flags(Options, __doc__)
    if not options.photo:
        check_outputs({"--output": options.output, "--uncertainty": options.uncertainty})
    elif options.output and options.output.is_file():
        raise UserError(f"--output {options.output} is a file; with --photo it is a folder")
    if options.photo and not options.photo.exists():
        raise UserError(f"--photo {options.photo} is not there; give a photo, or a folder of them")
    if options.photo and options.uncertainty:
        raise UserError("--uncertainty is of a contest's test photos; leave it out with --photo")

    # What follows needs torch, which takes seconds to import; --help does not wait for it.
    from pipeline.device import choose_device, describe
    from pipeline.ensemble import load_ensemble
    from pipeline.members import Place, why_not_calibrated
    from pipeline.record import keep_earlier, write_record
    from pipeline.single import predict_photos
    from pipeline.submission import verify_submission, write_submission, write_uncertainty
    from pipeline.uncertainty import say_calibration

    device = choose_device(gpu=options.gpu)
    ensemble = load_ensemble(
        options.run,
        options.runs,
        place=Place(options.data, options.cache, options.skip_bad_photos),
        checkpoint=options.checkpoint,
        views=options.views,
        weights=options.weights,
        method=options.merge,
        power=options.power,
        device=device,
        batch_size=options.batch_size,
    )
    for member in ensemble.members:
        print(
            f"run         {member.run.folder}, {options.checkpoint} weights; {len(member.views)} views, {member.kind}"
        )
    if len(ensemble.members) > 1:
        print(f"merged      {ensemble.kind}")
    print(f"device      {describe(device)}")
    if not may_write(ensemble.folder) and not options.output:
        raise UserError(f"{ensemble.folder} may not be written; give --output a path of yours")
    if options.photo:
        out = options.output or ensemble.folder / "photos"
        predict_photos(ensemble, options.photo, out, decimals=options.decimals)
        return

    test = ensemble.predict_test(batch_size=options.batch_size)
    if len(test.rows) < len(test.names):
        print(f"left out    {len(test.names) - len(test.rows):,} photos are missing or broken and have the mean shape")
    output = options.output or ensemble.folder / "submission.csv"
    record = ensemble.record() | {"decimals": options.decimals}
    if kept := keep_earlier(output, record):
        print(f"earlier     the submission that was there is of other runs, views or weights; it is now {kept}")
    write_submission(output, test.names, test.points, decimals=options.decimals)
    verify_submission(output, test.names, test.points, decimals=options.decimals)
    write_record(output, record)
    if options.uncertainty:
        calibration = ensemble.calibration
        write_uncertainty(options.uncertainty, test.names, test.deviations, calibrated=calibration is not None)
        if calibration:
            print(f"uncertainty {options.uncertainty}: standard deviations")
            say_calibration(calibration)
        else:
            print(f"uncertainty {options.uncertainty}: the spread of views and runs alone, not calibrated")
            print(f"            {why_not_calibrated(ensemble.members)}")
    if may_write(ensemble.folder):
        for picture in ensemble.draw(test):
            print(f"pictures    {picture}")
    else:
        print(f"pictures    left out: {ensemble.folder} may not be written")
    print(f"submission  {output}: {len(test.names):,} photos, read back and verified")


if __name__ == "__main__":
    run_script(main)
