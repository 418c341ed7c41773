"""A prediction, step by step: find the runs, load them, weigh their views, weigh the runs, predict, submit."""

import os
from dataclasses import replace
from pathlib import Path

from pipeline.data.boxes import Boxes, boxes_of_one, read_boxes
from pipeline.errors import UserError
from pipeline.files import may_write
from pipeline.inference.ensemble import Ensemble, TestPrediction, load_members, weigh_runs
from pipeline.inference.member import print_not_fitted, weigh_views, why_not_calibrated
from pipeline.inference.options import PredictOptions
from pipeline.inference.photos import predict_photos
from pipeline.inference.record import keep_earlier, write_record
from pipeline.inference.report import write_report
from pipeline.inference.submission import verify_submission, write_submission, write_uncertainty
from pipeline.inference.uncertainty import print_calibration
from pipeline.memory import out_of_memory_named, smaller_batch
from pipeline.runs import Run, find_runs
from pipeline.runtime import Runtime


def predict_command(options: PredictOptions) -> Path:
    """Predicts what the command asks for, and returns the path of the submission, or of the folder of photos' results.

    Raises UserError for runs or data that cannot be predicted.
    """
    with out_of_memory_named(f"give {smaller_batch(options.batch_size, otherwise='fewer --views')}"):
        return predict_and_submit(options)


def predict_and_submit(options: PredictOptions) -> Path:
    runtime = Runtime.choose(gpu=options.gpu)
    if options.photo and runtime.ranks.num_ranks > 1:
        raise UserError("--photo is for one process; leave out torchrun")
    runs = find_runs(options.run, options.runs)
    boxes = boxes_of(runs, options)
    members = load_members(runs, options, runtime.device)
    members = [weigh_views(member, options.weights, batch_size=options.batch_size) for member in members]
    print_not_fitted(members)
    ensemble = weigh_runs(members, options)
    print_ensemble(ensemble, runtime, options)
    if options.photo:
        out = options.output or ensemble.folder / "photos"
        predict_photos(ensemble, options.photo, out, decimals=options.decimals, boxes=boxes)
        return out
    output = options.output or ensemble.folder / "submission.csv"
    if options.uncertainty and os.path.realpath(options.uncertainty) == os.path.realpath(output):
        raise UserError(f"--uncertainty {options.uncertainty} is where the submission goes; give another name")
    if ensemble.looks_otherwise(boxes):
        print("boxes       these runs were trained without: no score is expected, and no uncertainty calibrated")
        ensemble = replace(ensemble, calibration=None)
    test = ensemble.predict_test(batch_size=options.batch_size, boxes=boxes)
    if runtime.is_main:
        submit(test, ensemble, options, output=output, boxes=boxes)
        report(ensemble)
    return output


def boxes_of(runs: list[Run], options: PredictOptions) -> Boxes | None:
    """The boxes of the photos to predict. Raises UserError if runs need them and there are none."""
    boxes = read_boxes(options.boxes)
    if options.box and options.photo:
        boxes = boxes_of_one(options.photo.name, options.box)
    if boxes is None and (trained := [run for run in runs if run.recipe().photos.on_boxes]):
        flag = "--box or --boxes FILE" if options.photo else "--boxes FILE"
        raise UserError(f"{trained[0].folder} was trained on boxes of its photos; {flag} gives those of these photos")
    return boxes


def report(ensemble: Ensemble):
    """Writes the reports of the runs again, with what their views gained and what was submitted.

    The submission is already written, so a run whose files make no report is named, and is no error.
    """
    for member in ensemble.members:
        if may_write(member.run.folder):
            try:
                print(f"report      {write_report(member.run)}")
            except UserError as reason:
                print(f"report      left out: {reason}")


def print_ensemble(ensemble: Ensemble, runtime: Runtime, options: PredictOptions):
    """Prints what predicts. Raises UserError if what it predicts cannot be written."""
    for member in ensemble.members:
        views = f"{len(member.views)} views, {member.kind}"
        print(f"run         {member.run.folder}, {options.checkpoint} weights; {views}")
    if len(ensemble.members) > 1:
        print(f"merged      {ensemble.kind}")
    print(f"device      {runtime}{', ONNX Runtime' if options.backend == 'onnx' else ''}")
    if not may_write(ensemble.folder) and not options.output:
        raise UserError(f"{ensemble.folder} may not be written; give --output a path of yours")


def submit(test: TestPrediction, ensemble: Ensemble, options: PredictOptions, *, output: Path, boxes: Boxes | None):
    """Writes the submission, reads it back, and writes what goes with it."""
    if len(test.rows) < len(test.names):
        count = len(test.names) - len(test.rows)
        print(f"left out    {count:,} photos, which are missing, broken or without a box, have the mean shape")
    record = ensemble.record(boxes) | {"decimals": options.decimals}
    kept = keep_earlier(output, record)
    write_submission(output, test.names, test.points, decimals=options.decimals)
    verify_submission(output, test.names, test.points, decimals=options.decimals)
    expected = None if ensemble.looks_otherwise(boxes) else ensemble.expected()
    write_record(output, record, expected=expected, kept=kept)
    if options.uncertainty:
        calibration = ensemble.calibration
        write_uncertainty(options.uncertainty, test.names, test.deviations, calibrated=calibration is not None)
        if calibration:
            print(f"uncertainty {options.uncertainty}: standard deviations")
            print_calibration(calibration)
        else:
            print(f"uncertainty {options.uncertainty}: the spread of views and runs alone, not calibrated")
            if not ensemble.looks_otherwise(boxes):
                print(f"            {why_not_calibrated(ensemble.members)}")
    if may_write(ensemble.folder):
        for picture in ensemble.draw(test):
            print(f"pictures    {picture}")
    else:
        print(f"pictures    left out: {ensemble.folder} may not be written")
    print(f"submission  {output}: {len(test.names):,} photos, read back and verified")
