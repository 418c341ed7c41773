"""Equal seeds give equal runs, and a run that was cut off ends as one that was not: on the CPU, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from augment import Key, parse_augmenters, transform_points
from pipeline import training as module
from pipeline.batches import epoch_order, in_background, make_batch
from pipeline.checkpoint import load_checkpoint
from pipeline.data import load_training_data, mean_shape_score
from pipeline.errors import UserError
from pipeline.recipe import Recipe, parse_command
from pipeline.report import Report
from pipeline.runs import create_run
from pipeline.start import make_network
from pipeline.training import Training, train

SMALL = [
    "--model",
    "mobilenet_v3_small",
    "--weights",
    "none",
    "--size",
    "32",
    "-b",
    "16",
    "--train-share",
    "0.8",
    "--precision",
    "fp32",
]


def recipe_of(contest, folder, *flags) -> Recipe:
    return parse_command(
        [
            "-n",
            "t",
            "-d",
            str(contest),
            "--runs",
            str(folder / "runs"),
            "--cache",
            str(folder / "cache"),
            *SMALL,
            *flags,
        ]
    ).recipe


def start(recipe) -> tuple[Training, Report]:
    data = load_training_data(recipe)
    network = make_network(
        recipe.network, None, mean_shape=data.mean_shape, size=recipe.photos.size, seed=recipe.run.seed
    )
    training = Training(network, recipe, data, torch.device("cpu"), "fp32")
    training.run = create_run(recipe, data, floor=mean_shape_score(data))
    return training, Report(training.run, 0)


def run_to_end(training, report):
    train(training, parse_augmenters(training.recipe.augmentation.augment), training.run, report)
    report.close()
    return training


def same(one: Training, other: Training):
    states = one.state(), other.state()
    for name in ("network", "average"):
        for key, tensor in states[0][name].items():
            assert torch.equal(tensor, states[1][name][key]), f"{name} {key}"
    return True


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "plateau_validation"])
def test_equal_seeds_give_equal_runs_and_others_do_not(contest, tmp_path, schedule):
    flags = ["-e", "2", "--schedule", schedule, "--plateau-patience", "0.5"]
    one = run_to_end(*start(recipe_of(contest, tmp_path, *flags)))
    other = run_to_end(*start(recipe_of(contest, tmp_path, *flags)))
    assert same(one, other)
    assert one.progress.history[-1]["validation_mse"] == other.progress.history[-1]["validation_mse"]
    third = run_to_end(*start(recipe_of(contest, tmp_path, *flags, "--seed", "1")))
    assert not torch.equal(one.network.head.weight, third.network.head.weight)


class Cut(Exception):
    """Stands for the kill of a process."""


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--schedule", "plateau", "-lr", "0.01"],
        ["--freeze-epochs", "1", "--top-perc-train", "50", "--without-top-perc-train", "9"],
    ],
)
@pytest.mark.parametrize("cut_at", [1, 5, 8, 11])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(contest, tmp_path, monkeypatch, flags, cut_at):
    """Cut in the middle of an epoch, at its end, and with a checkpoint within an epoch."""
    monkeypatch.setattr(module, "READ_EVERY", 2)
    recipe = recipe_of(contest, tmp_path, "-e", "3", "--checkpoint-minutes", "1e-9", *flags)
    whole = run_to_end(*start(recipe))

    cut, report = start(recipe)
    step = Training.step

    def step_or_die(self, batch):
        if self.progress.step == cut_at:
            raise Cut
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", step_or_die)
        with pytest.raises(Cut):
            run_to_end(cut, report)
    again, report = start(recipe)
    if cut.run.last.exists():
        again.load_state(load_checkpoint(cut.run.last))
        assert again.progress.step in (cut_at, cut_at - 1)
    again.run = cut.run
    run_to_end(again, report)
    assert same(whole, again)
    histories = [
        [{k: v for k, v in row.items() if k not in ("minutes", "images_per_second")} for row in t.progress.history]
        for t in (whole, again)
    ]
    assert histories[0] == histories[1]
    assert cut.run.metrics.read_text().count("\n") == 4
    assert torch.equal(load_checkpoint(cut.run.best)["network"]["mean_shape"], whole.network.mean_shape)


def test_a_run_can_be_made_longer(contest, tmp_path):
    recipe = recipe_of(contest, tmp_path, "-e", "1")
    short = run_to_end(*start(recipe))
    longer = replace(recipe, optimiser=replace(recipe.optimiser, epochs=2))
    again, report = start(longer)
    again.load_state(load_checkpoint(short.run.last))
    run_to_end(again, report)
    assert [row["epoch"] for row in again.progress.history] == [0, 1]
    assert again.progress.step == 2 * again.steps_per_epoch


def test_training_learns_and_the_best_weights_are_kept(contest, tmp_path):
    training = run_to_end(*start(recipe_of(contest, tmp_path, "-e", "6", "--augment", "[]", "--average", "0")))
    history = training.progress.history
    assert history[-1]["train_mse"] < 0.5 * history[0]["train_mse"]
    best = load_checkpoint(training.run.best)
    assert best["mse"] == min(row["validation_mse"] for row in history) == training.progress.best_mse


def test_validation_is_never_trimmed_and_never_augmented(contest, tmp_path):
    plain, _ = start(recipe_of(contest, tmp_path))
    trimmed, _ = start(recipe_of(contest, tmp_path, "--top-perc-train", "30", "--without-top-perc-train", "10"))
    np.testing.assert_array_equal(plain.validate(), trimmed.validate())
    np.testing.assert_array_equal(plain.validate(), plain.validate())


def test_validation_leaves_training_as_it_was(contest, tmp_path):
    training, _ = start(recipe_of(contest, tmp_path))
    before = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    random = torch.get_rng_state()
    training.validate()
    assert torch.equal(random, torch.get_rng_state())
    assert training.network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.network.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run_with_a_hint(contest, tmp_path):
    with pytest.raises(UserError, match="--learning-rate"):
        run_to_end(*start(recipe_of(contest, tmp_path, "-e", "30", "-lr", "1e18", "--warmup", "0", "--average", "0")))


def test_an_epoch_sees_every_photo_at_most_once_and_another_epoch_in_another_order():
    samples = np.arange(100, 203)
    order = np.concatenate(epoch_order(samples, seed=0, epoch=0, batch_size=10))
    assert len(order) == 100 == len(set(order))
    assert set(order) <= set(samples)
    assert not np.array_equal(order, np.concatenate(epoch_order(samples, seed=0, epoch=1, batch_size=10)))
    assert not np.array_equal(order, np.concatenate(epoch_order(samples, seed=1, epoch=0, batch_size=10)))
    seen = {
        i for epoch in range(20) for batch in epoch_order(samples, seed=0, epoch=epoch, batch_size=10) for i in batch
    }
    assert seen == set(samples)
    assert [len(batch) for batch in epoch_order(samples, seed=0, epoch=0, batch_size=500)] == [103]


@pytest.mark.parametrize("more", [[], [{"PerspectiveAugmenter": {"tilt_x": 0.15, "tilt_y": [-0.15, 0.15]}}]])
def test_a_batch_holds_the_photos_points_and_scales_that_its_view_gives(more, contest, tmp_path):
    recipe = recipe_of(contest, tmp_path)
    data = load_training_data(recipe)
    samples = np.array([5, 3, 70])
    chain = parse_augmenters([*recipe.augmentation.augment, *more])
    view = chain.draw(Key(0, 0, samples), (32, 32))
    batch = make_batch(data.pack, samples, view, data.permutation, torch.device("cpu"))
    for i, sample in enumerate(samples):
        through = view.geometry[i] @ data.pack.fits[sample]
        points = np.column_stack((data.pack.values[sample], np.ones(971))) @ through.T
        points = points[data.permutation] if np.linalg.det(through) < 0 else points
        np.testing.assert_allclose(batch.points[i], points[:, :2] / points[:, 2:], atol=1e-3)
        middle = np.linalg.inv(data.pack.fits[sample]) @ (15.5, 15.5, 1)  # of the window, in pixels of the photo
        corners = (middle[:2] + 1e-4 * np.array([(0, 0), (1, 0), (0, 1)]))[None]
        origin, right, below = transform_points(through[None], corners)[0]
        area = abs(np.linalg.det(np.stack((right - origin, below - origin)) / 1e-4))
        assert batch.scale[i].item() == pytest.approx(area**-0.5, rel=1e-4)


def test_a_batch_for_a_gpu_is_made_without_waiting_for_it(contest, tmp_path, request):
    recipe = recipe_of(contest, tmp_path)
    data = load_training_data(recipe)
    view = parse_augmenters(recipe.augmentation.augment).draw(Key(0, 0, np.arange(3)), (32, 32))
    device = request.getfixturevalue("gpu_without_values")  # after the data, which need their values
    batch = make_batch(data.pack, np.array([5, 3, 70]), view, data.permutation, device)
    tensors = (batch.images, batch.points, batch.inside, batch.scale)
    assert [(tensor.device.type, len(tensor)) for tensor in tensors] == [("cuda", 3)] * 4


def test_the_background_keeps_the_order_and_passes_errors_on():
    assert list(in_background(lambda x: x * x, range(7))) == [x * x for x in range(7)]
    assert list(in_background(str, [])) == []

    def fail_at_3(x):
        if x == 3:
            raise ValueError("three")
        return x

    results = in_background(fail_at_3, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
