"""Trains a landmark regressor on a contest's folder: `python hack_train.py --name x --data PATH --gpu`."""

import sys
from dataclasses import replace

from pipeline.errors import UserError, run_script
from pipeline.recipe import parse_command


def main():
    command = parse_command(sys.argv[1:])
    recipe = replace(command.recipe, run=replace(command.recipe.run, data=command.recipe.run.data.resolve()))

    # What follows needs torch, which takes seconds to import; --help does not wait for it.
    from augment import parse_augmenters
    from pipeline.checkpoint import load_checkpoint
    from pipeline.contest import find_contest
    from pipeline.data import load_training_data, mean_shape_score
    from pipeline.device import choose_device, choose_precision, describe
    from pipeline.report import Report
    from pipeline.runs import create_run, find_run
    from pipeline.start import make_network, read_start
    from pipeline.training import Training, train

    find_contest(recipe.run.data)
    earlier = find_run(command.resume, recipe.run.runs) if command.resume else None
    device = choose_device(gpu=recipe.run.gpu)
    precision = choose_precision(recipe.network.precision, device)
    try:
        chain = parse_augmenters(recipe.augmentation.augment)
    except ValueError as error:
        raise UserError(f"augment: {error}") from error
    start = None if earlier else read_start(recipe.network)

    data = load_training_data(replace(recipe, photos=earlier.photo_options()) if earlier else recipe)
    network = make_network(
        recipe.network, start, mean_shape=data.mean_shape, size=recipe.photos.size, seed=recipe.run.seed
    )
    training = Training(network, recipe, data, device, precision)
    floor = mean_shape_score(data)
    if earlier:
        earlier.check_data(data)
        earlier.write_recipe(recipe)
        if earlier.last.exists():
            training.load_state(load_checkpoint(earlier.last))
    run = earlier or create_run(recipe, data, floor=floor, device=describe(device))

    print(f"photos       {len(data.train):,} to train on, {len(data.validation):,} held out; {data.num_points} points")
    print(f"left/right   {data.symmetry}")
    print(f"network      {recipe.network.model} at {recipe.photos.size} px, {precision} on {describe(device)}")
    print(f"mean shape   {floor}: the floor, from a network that does not look")
    print(f"run          {run.folder}")
    print(f"             after a stop: python hack_train.py --resume {run.folder}")
    print(f"             watch it: tensorboard --logdir {recipe.run.runs}", flush=True)

    with run.claimed():
        report = Report(run, training.progress.step)
        train(training, chain, run, report)
        report.close()

    best = min(training.progress.history, key=lambda row: row["validation_mse"])
    mse = f"{best['validation_mse']:.2f} px² (mean shape {floor.mse:.2f})"
    print(f"\nbest         epoch {best['epoch']}: validation MSE {mse}")
    print(f"weights      {run.best}")
    print(f"metrics      {run.metrics}")
    print(f"pictures     {run.picture('worst_validation')}")
    print(f"submission   python predict.py --run {run.folder}")


if __name__ == "__main__":
    run_script(main)
