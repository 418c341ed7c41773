"""Equal seeds give equal runs, and a run that was cut off ends as one that was not: on the CPU, to the bit."""

import errno
import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from torchvision.models import mobilenetv3

from augment import Key, Transform, parse_augmenters, transform_points
from models import LandmarkNet, Prediction
from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.command import parse_command
from pipeline.data.dataset import load_training_data, mean_shape_score
from pipeline.data.loader import epoch_order, make_batch, prefetch
from pipeline.data.source import HostSource
from pipeline.errors import UserError
from pipeline.metrics import score
from pipeline.networks import make_network
from pipeline.old_names import AT_FIRST
from pipeline.recipe import Recipe, build_recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime
from pipeline.stopping import SIGNALS, Stopped
from pipeline.training import callbacks, pictures
from pipeline.training import trainer as module
from pipeline.training.callbacks import default_callbacks
from pipeline.training.identity import identity_of
from pipeline.training.new_run import create_run
from pipeline.training.pictures import WorstPhotos
from pipeline.training.sitting import Sitting
from pipeline.training.trainer import Callback, Trainer, sample_like_validation

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
            str(contest.parent / "cache"),
            *SMALL,
            *flags,
        ]
    ).recipe


WHOLE_NETWORK = mobilenetv3._mobilenet_v3
DRAW = WorstPhotos.draw
DATA: dict = {}  # what nothing here changes is loaded once
WHOLE: dict = {}


def data_of(recipe):
    key = (recipe.run.data, recipe.photos, recipe.run.seed)
    if key not in DATA:
        DATA[key] = load_training_data(recipe)
    return DATA[key]


def whole_run(recipe) -> Trainer:
    """A run that was never cut off, trained once."""
    key = (repr(replace(recipe, run=replace(recipe.run, runs=None, cache=None))), module.FLUSH_EVERY)
    if key not in WHOLE:
        WHOLE[key] = run_to_end(start(recipe))
    return WHOLE[key]


def start(recipe) -> Trainer:
    data = data_of(recipe)
    network = make_network(recipe, None, mean_shape=data.mean_shape)
    training = Trainer(network, recipe, data, Runtime(torch.device("cpu"), "fp32"))
    training.run = create_run(recipe, data, floor=mean_shape_score(data))
    training.callbacks = default_callbacks(training.run)
    return training


def run_to_end(training):
    training.train(parse_augmenters(training.recipe.augmentation.augment))
    return training


def test_an_epoch_is_measured_and_recorded_at_one_size_though_the_next_begins_meanwhile(contest, tmp_path, monkeypatch):
    training = start(recipe_of(contest, tmp_path, "--minutes", "10", "--progressive", "[[0.5, 48]]", "--size", "64"))
    training.state.minutes, shown = 4.9, []

    def predict(samples, description=None, *, image_size=None):
        shown.append(image_size)
        training.state.minutes = 5.1
        return training.data.pack.values[samples]

    monkeypatch.setattr(training, "predict", predict)
    monkeypatch.setattr(training, "clock", lambda: training.state.minutes)
    assert training._validated(1.0).row["image_size"] == 48
    assert shown == [48, 48]


def test_weights_that_saw_smaller_images_do_not_replace_the_best(tmp_path, monkeypatch):
    """As those of a finished run that is resumed to twice its length."""
    saved = []
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda path, content: saved.append(content["mse"]))
    network = SimpleNamespace(state_dict=dict)
    state = SimpleNamespace(history=[], best_mse=math.inf)
    trainer = SimpleNamespace(state=state, average=SimpleNamespace(network=network))
    for size, mse in ((64, 5.0), (64, 6.0), (96, 8.0), (96, 7.0), (80, 3.0), (96, 6.0)):
        state.history.append({"image_size": size, "epoch": len(state.history)})
        result = SimpleNamespace(validation=SimpleNamespace(mse=mse), row=state.history[-1])
        (tmp_path / "held_out.npz").touch()
        callbacks.BestWeights(Run(tmp_path)).after_epoch(trainer, result)
        assert (tmp_path / "held_out.npz").exists() == (mse not in saved)  # it is of the weights that were the best
    assert saved == [5.0, 8.0, 7.0, 6.0]


def same(one: Trainer, other: Trainer):
    states = one.state_dict(), other.state_dict()
    for name in ("network", "average"):
        for key, tensor in states[0][name].items():
            assert torch.equal(tensor, states[1][name][key]), f"{name} {key}"
    return True


def test_equal_seeds_give_equal_runs_and_others_do_not(contest, tmp_path):
    flags = ["-e", "2", "--schedule", "plateau_validation", "--plateau-patience", "0.5"]
    one = run_to_end(start(recipe_of(contest, tmp_path, *flags)))
    other = run_to_end(start(recipe_of(contest, tmp_path, *flags)))
    assert same(one, other)
    assert one.state.history[-1]["validation_mse"] == other.state.history[-1]["validation_mse"]
    third = run_to_end(start(recipe_of(contest, tmp_path, *flags, "--seed", "1")))
    assert not torch.equal(*(next(run.network.head.parameters()) for run in (one, third)))


def history_of(training):
    """The rows of the table without what depends on the clock."""
    return [
        {name: value for name, value in row.items() if name not in ("minutes", "images_per_second")}
        for row in training.state.history
    ]


def resume(recipe, run) -> Trainer:
    """As hack_train.py resumes a run."""
    again = start(recipe)
    again.run = run
    again.callbacks = default_callbacks(run)
    again.load_state_dict(load_checkpoint(run.last))
    return again


class Cut(Exception):
    """Stands for the kill of a process."""


CUT_RUNS = [
    [],
    ["--schedule", "plateau", "-lr", "0.01"],
    ["--freeze-epochs", "1", "--top-perc-train", "50", "--without-top-perc-train", "9"],
    ["--top-perc-train", "50", "--trim-by", "sample", "--trim-from", "0.5", "--loss", "enme", "--edge-weight", "1"],
    ["--steps-per-epoch", "5", "--optimiser", "muon", "--layer-decay", "0.5"],
    ["--optimiser", "schedule_free", "--schedule", "constant", "--freeze-epochs", "1"],
    ["--progressive", "[[0.4, 40], [0.2, 48]]", "--size", "64", "--head", "integral"],
    ["--mixup", "0.4", "--accumulate", "3", "--top-perc-train", "50", "--optimiser", "lion"],
]


@pytest.mark.parametrize(("cut_at", "flags"), [(1, []), *((cut_at, flags) for cut_at in (5, 7) for flags in CUT_RUNS)])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(contest, tmp_path, monkeypatch, flags, cut_at):
    """Cut before its first checkpoint, and where the last one is of the end of an epoch or of a step within one."""
    monkeypatch.setattr(module, "FLUSH_EVERY", 2)
    recipe = recipe_of(contest, tmp_path, "-e", "3", "--checkpoint-minutes", "1e-9", *flags)
    whole = whole_run(recipe)

    cut = start(recipe)
    step = Trainer.step

    def step_or_die(self, batch):
        if self.state.step == cut_at:
            raise Cut
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step_or_die)
        with pytest.raises(Cut):
            run_to_end(cut)
    again = start(recipe)
    assert cut.run.last.exists() == (cut_at > 1)
    if cut_at > 1:
        again.load_state_dict(load_checkpoint(cut.run.last))
        assert again.state.step in (cut_at, cut_at - 1)
    again.run = cut.run
    again.callbacks = default_callbacks(cut.run)
    run_to_end(again)
    assert same(whole, again)
    assert history_of(whole) == history_of(again)
    assert cut.run.metrics.read_text().count("\n") == 4
    assert torch.equal(load_checkpoint(cut.run.best)["network"]["mean_shape"], whole.network.mean_shape)


@pytest.mark.parametrize(
    ("where", "at", "number"),
    [
        ("step", 0, signal.SIGINT),
        ("step", 7, signal.SIGTERM),
        ("validate", 1, signal.SIGINT),
        ("validate", 2, signal.SIGTERM),
    ],
)
def test_a_run_that_a_signal_stops_saves_its_step_and_ends_as_one_that_was_not(
    contest, tmp_path, monkeypatch, where, at, number
):
    """The signal comes in a step, whose losses are not read yet, or in validation; handlers are as before."""
    monkeypatch.setattr(module, "FLUSH_EVERY", 3)
    flags = ["-e", "3", "--schedule", "plateau", "-lr", "0.01", "--plateau-patience", "0.25", "--warmup", "0"]
    recipe = recipe_of(contest, tmp_path, *flags, "--top-perc-train", "50", "--without-top-perc-train", "5")
    whole = whole_run(recipe)
    handlers = [signal.getsignal(each) for each in SIGNALS]
    stopped = start(recipe)
    method, calls = getattr(Trainer, where), []

    def stop_in(self, *arguments):
        if len(calls) == at:
            os.kill(os.getpid(), number)
        calls.append(None)
        return method(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, where, stop_in)
        with pytest.raises(Stopped) as caught:
            run_to_end(stopped)
    assert caught.value.status == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    again = resume(recipe, stopped.run)
    assert again.state.step == stopped.state.step
    if where == "step":
        assert again.state.step == at + 1  # the step was ended, and no other was begun
    if where == "validate":
        assert len(again.state.history) == at  # this validation was not waited for
    run_to_end(again)
    assert same(whole, again)
    assert history_of(whole) == history_of(again)


def test_a_second_signal_stops_at_once(contest, tmp_path, monkeypatch):
    training = start(recipe_of(contest, tmp_path, "-e", "1"))

    def interrupt_twice(self, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    monkeypatch.setattr(Trainer, "step", interrupt_twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_to_end(training)
    assert not isinstance(caught.value, Stopped)
    assert not training.run.last.exists()


def test_a_run_killed_before_its_last_validation_is_validated_and_trains_no_more(contest, tmp_path, monkeypatch):
    """All steps are done, or the minutes are used up, in the last checkpoint within an epoch."""
    for flags, cut_at, minutes in ((["-e", "1"], 4, 1.0), (["--minutes", "60"], 1, 61.0)):
        recipe = recipe_of(contest, tmp_path, "--checkpoint-minutes", "1e-9", *flags)
        cut = start(recipe)
        method = Trainer.step

        def step_or_die(self, batch, method=method, cut_at=cut_at, minutes=minutes):
            method(self, batch)
            if self.state.step == cut_at:
                self.state.minutes = minutes
                save_checkpoint(self.run.last, self.state_dict())
                raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", step_or_die)
            with pytest.raises(Cut):
                run_to_end(cut)
        again = resume(recipe, cut.run)
        assert again.progress >= 1
        run_to_end(again)
        assert again.state.step == cut_at
        assert len(again.state.history) == 1
        assert again.run.best.exists()


@pytest.mark.parametrize(("ends_after", "num_steps"), [(0, 0), (1, 4)])
def test_an_epoch_without_a_step_is_recorded_only_where_there_is_no_other(
    contest, tmp_path, monkeypatch, ends_after, num_steps
):
    """The time runs out in the validation of the first epoch, or before its first step."""
    minutes = property(lambda self: 61.0 if len(self._state.history) >= ends_after else 0.0)
    monkeypatch.setattr(Sitting, "minutes", minutes)
    training = run_to_end(start(recipe_of(contest, tmp_path, "--minutes", "60", "--keep-best", "3")))
    assert training.state.step == num_steps
    assert [row["epoch"] for row in training.state.history] == [0]
    assert list(training.run.best_epochs()) == [0]


def test_the_flow_of_a_loss_is_trained_with_the_network_and_kept_with_it(contest, tmp_path, monkeypatch):
    """Residual log-likelihood estimation, with a network of constant scales."""
    predict = LandmarkNet.predict

    def with_scale(self, images):
        found = predict(self, images)
        return found._replace(log_scale=torch.ones(found.points.shape[:2]))

    monkeypatch.setattr(LandmarkNet, "predict", with_scale)
    recipe = recipe_of(contest, tmp_path, "-e", "2", "--loss", "rle", "-lr", "0.01", "--schedule", "plateau")
    whole = run_to_end(start(recipe))
    assert all(parameter.detach().any() for parameter in whole.criterion.parameters())  # some of which begin at zero
    half, again = start(recipe), start(recipe)
    half.callbacks = []
    half.train_epoch(parse_augmenters(recipe.augmentation.augment))
    half.finish_epoch()
    again.load_state_dict(half.state_dict())
    assert same(whole, run_to_end(again))
    states = (training.criterion.flow.state_dict() for training in (whole, again))
    assert all(torch.equal(*tensors) for tensors in zip(*(state.values() for state in states), strict=True))


def test_checkpoints_of_earlier_versions_load(contest, tmp_path):
    recipe = recipe_of(contest, tmp_path, "-e", "1")
    training = run_to_end(start(recipe))
    state = training.state_dict()
    for later in ("criterion", "pending", "callbacks"):
        del state[later]
    state["plateau"] = state.pop("schedule")
    again = start(recipe)
    again.load_state_dict(state)
    assert same(training, again)


def test_fields_that_are_added_to_recipes_leave_earlier_runs_theirs():
    """The digest is that of a version which had 23 of the fields. A field that is set tells runs apart."""
    data = SimpleNamespace(pack=SimpleNamespace(fingerprint="photos"), train=np.arange(3), weights=None)
    earlier = "1a3afadb04b5e9ce7119c023b39dfe091ca46e5b7d1fa5bfb226b02a86c05c35"
    recipe = build_recipe(AT_FIRST, name_of=str)
    assert identity_of(recipe, data) == earlier
    assert identity_of(replace(recipe, loss=replace(recipe.loss, beta=2.0)), data) != earlier
    assert identity_of(replace(recipe, optimiser=replace(recipe.optimiser, epochs=30)), data) == earlier


class Counting(Callback):
    """A callback with a state."""

    def __init__(self):
        self.num_epochs = 0

    def after_epoch(self, trainer, result):
        self.num_epochs += 1

    def state_dict(self):
        return {"num_epochs": self.num_epochs}

    def load_state_dict(self, state):
        self.num_epochs = state.get("num_epochs", 0)


def test_what_a_callback_keeps_lies_in_the_checkpoint(contest, tmp_path):
    """As long as it stands before the checkpoint."""
    recipe = recipe_of(contest, tmp_path, "-e", "1")
    training = start(recipe)
    training.callbacks = [Counting(), *training.callbacks]
    run_to_end(training)
    longer = start(replace(recipe, optimiser=replace(recipe.optimiser, epochs=3)))
    longer.callbacks = [Counting(), *default_callbacks(training.run)]
    longer.load_state_dict(load_checkpoint(training.run.last))
    run_to_end(longer)
    assert longer.callbacks[0].num_epochs == 3


def test_a_run_can_be_made_longer(contest, tmp_path):
    recipe = recipe_of(contest, tmp_path, "-e", "1")
    short = run_to_end(start(recipe))
    longer = replace(recipe, optimiser=replace(recipe.optimiser, epochs=2))
    again = start(longer)
    again.load_state_dict(load_checkpoint(short.run.last))
    run_to_end(again)
    assert [row["epoch"] for row in again.state.history] == [0, 1]
    assert again.state.step == 2 * again.steps_per_epoch


def trained_samples(monkeypatch, recipe):
    """A trained run, and the photos of each of its steps."""
    taken, step = [], Trainer.step

    def take(self, batch):
        taken.append(batch.samples)
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", take)
        return run_to_end(start(recipe)), taken


def test_an_epoch_may_be_of_any_number_of_steps_and_the_order_of_photos_runs_on(contest, tmp_path, monkeypatch):
    """Every photo is seen once before any is seen twice, but for what does not fill a batch."""
    recipe = recipe_of(contest, tmp_path, "-e", "3", "--steps-per-epoch", "3")
    training, taken = trained_samples(monkeypatch, recipe)
    orders = [epoch_order(training.data.train, seed=0, epoch=number, batch_size=16) for number in range(3)]
    assert np.array_equal(np.stack(taken), np.stack([samples for order in orders for samples in order])[:9])
    assert [row["step"] for row in training.state.history] == [3, 6, 9]


@pytest.mark.parametrize(("epochs", "steps"), [("0.5", [2]), ("1.5", [4, 6]), ("0.01", [1])])
def test_a_fraction_of_an_epoch_is_trained_and_validated(contest, tmp_path, epochs, steps):
    training = run_to_end(start(recipe_of(contest, tmp_path, "-e", epochs)))
    assert [row["step"] for row in training.state.history] == steps
    assert training.progress == 1


def test_half_an_epoch_goes_on_with_the_other_half(contest, tmp_path, monkeypatch):
    recipe = recipe_of(contest, tmp_path, "-e", "0.5")
    half, taken = trained_samples(monkeypatch, recipe)
    again = start(replace(recipe, optimiser=replace(recipe.optimiser, epochs=1)))
    again.load_state_dict(load_checkpoint(half.run.last))
    rest = []
    again.step = lambda batch: (rest.append(batch.samples), Trainer.step(again, batch))
    run_to_end(again)
    order = epoch_order(half.data.train, seed=0, epoch=0, batch_size=16)
    assert np.array_equal(np.stack([*taken, *rest]), np.stack(order))


def test_the_few_best_epochs_are_kept(contest, tmp_path):
    recipe = recipe_of(contest, tmp_path, "-e", "5", "--keep-best", "2", "-lr", "0.03", "--warmup", "0")
    training = run_to_end(start(recipe))
    history = sorted(training.state.history, key=lambda row: row["validation_mse"])
    kept = training.run.best_epochs()
    assert set(kept) == {row["epoch"] for row in history[:2]}
    for epoch, path in kept.items():
        content = load_checkpoint(path)
        assert content["mse"] == training.state.history[epoch]["validation_mse"]
    best, own = load_checkpoint(training.run.best), load_checkpoint(kept[history[0]["epoch"]])
    assert all(torch.equal(tensor, own["network"][name]) for name, tensor in best["network"].items())


def test_training_learns_and_the_best_weights_are_kept(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenetv3, "_mobilenet_v3", WHOLE_NETWORK)
    training = run_to_end(
        start(recipe_of(contest, tmp_path, "-e", "6", "--head", "linear", "--augment", "[]", "--ema-decay", "0"))
    )
    history = training.state.history
    errors = training.sample_errors[training.data.train]  # in train mode: norms of so few steps know little of theirs
    assert errors.nanmean() < 0.5 * history[0]["train_mse"]
    best = load_checkpoint(training.run.best)
    assert best["mse"] == min(row["validation_mse"] for row in history) == training.state.best_mse


def test_train_is_measured_as_validation_is(contest, tmp_path):
    """The averaged network on photos as they are, of which there are as many, always the same."""
    training = run_to_end(start(recipe_of(contest, tmp_path, "-e", "2")))
    data, sample = training.data, training.train_sample
    assert len(set(sample)) == len(data.validation)
    assert set(sample) <= set(data.train)
    assert np.array_equal(sample, start(training.recipe).train_sample)
    expected = score(training.predict(sample), data.pack.values[sample]).mse
    assert training.state.history[-1]["train_mse"] == expected
    few = replace(data, train=data.train[:3])
    assert sample_like_validation(few).tolist() == sorted(few.train)


def scalars(run, folder, tag):
    events = EventAccumulator(str(run.events / folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)], events


def test_tensorboard_shows_each_step_and_epoch_once_after_a_resume(contest, tmp_path, monkeypatch):
    """An epoch was lost when a run was resumed at its end; and pictures lay at epochs where scalars lie at steps."""
    monkeypatch.setattr(WorstPhotos, "draw", DRAW)
    monkeypatch.setattr(pictures, "gallery", lambda *_, **__: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(module, "FLUSH_EVERY", 3)
    recipe = recipe_of(contest, tmp_path, "-e", "3")
    for cut_at in (4, 6):  # the end of an epoch, and a step that is not read yet; then some that no checkpoint has
        cut = start(recipe)
        method = Trainer.step

        def stop_at(self, batch, method=method, cut_at=cut_at):
            if self.state.step == cut_at + 3:
                raise Cut
            method(self, batch)
            if self.state.step == cut_at:
                save_checkpoint(self.run.last, self.state_dict())

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stop_at)
            patch.setattr(callbacks, "save_checkpoint", lambda path, content: None)
            with pytest.raises(Cut):
                run_to_end(cut)
        again = resume(recipe, cut.run)
        run_to_end(again)
        steps, _ = scalars(again.run, "", "step/smoothed_loss")
        assert [step for step, _ in steps] == list(range(1, 13))
        for split in ("train", "validation"):
            found, events = scalars(again.run, split, "epoch/mse")
            expected = [(row["step"], pytest.approx(row[f"{split}_mse"])) for row in again.state.history]
            assert found == expected
            assert {image.step for image in events.Images("worst")} <= {4, 8, 12}
            assert len(events.Images("worst")) >= 2


def test_tensorboard_shows_what_steps_measure_and_the_norms_and_the_waiting_between_them(
    contest, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "FLUSH_EVERY", 2)
    training = start(recipe_of(contest, tmp_path, "-e", "1", "--schedule", "one_cycle", "--clip", "0.001"))
    recorded, record = [], Callback()
    record.after_flush = lambda trainer, measured: recorded.extend(measured)
    training.callbacks.append(record)
    run_to_end(training)
    assert len({result.rate for result in recorded}) == 4
    assert all(result.gradient_norm > 0.001 for result in recorded)  # as it was before it was clipped
    for tag, name in (("loss", "loss"), ("learning_rate", "rate"), ("gradient_norm", "gradient_norm")):
        found, _ = scalars(training.run, "", f"step/{tag}")
        assert found == [(result.step, pytest.approx(getattr(result, name))) for result in recorded]
    norms, _ = scalars(training.run, "", "step/weight_norm")
    weights = torch.cat([weight.detach().double().flatten() for weight in training.network.parameters()])
    assert norms[-1] == (4, pytest.approx(weights.norm().item()))
    waiting, _ = scalars(training.run, "", "step/waiting_for_photos")
    assert [step for step, _ in waiting] == [2, 4]
    assert all(0 <= share <= 1 for _, share in waiting)


def test_validation_is_never_trimmed_and_never_augmented(contest, tmp_path):
    """All photos that are held out count, and each is shown as it is."""
    training = start(recipe_of(contest, tmp_path, "--top-perc-train", "30", "--without-top-perc-train", "10"))
    pack, samples = training.data.pack, training.data.validation
    view = Transform.identity(len(samples), (32, 32))
    images = make_batch(pack, HostSource(pack.squares, torch.device("cpu")), samples, view, None).images
    points = training.validate()
    with torch.no_grad():
        found = training.average.network.eval()(images).double().numpy()
    np.testing.assert_allclose(points, transform_points(np.linalg.inv(pack.photo_to_image[samples]), found), atol=1e-3)
    assert training._validated(speed=1.0).row["validation_mse"] == score(points, pack.values[samples]).mse


def test_validation_leaves_training_as_it_was(contest, tmp_path):
    training = start(recipe_of(contest, tmp_path))
    before = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    random = torch.get_rng_state()
    training.validate()
    assert torch.equal(random, torch.get_rng_state())
    assert training.network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.network.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run_with_a_hint(contest, tmp_path):
    with pytest.raises(UserError, match="--learning-rate"):
        run_to_end(start(recipe_of(contest, tmp_path, "-e", "30", "-lr", "1e18", "--warmup", "0", "--ema-decay", "0")))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_loss_that_is_no_number_stops_the_run_with_the_photos_names(contest, tmp_path, precision):
    """Under fp16 too, where gradients may overflow and a loss may not; and where trimming leaves the photo out."""
    training = start(recipe_of(contest, tmp_path, "-e", "30", "--without-top-perc-train", "10"))
    training.scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    predict = training.network.predict

    def fail_on_the_second(images):
        return Prediction(predict(images).points + torch.tensor([0, math.nan, *[0] * (len(images) - 2)])[:, None, None])

    training.network.predict = fail_on_the_second
    first = epoch_order(training.data.train, seed=0, epoch=0, batch_size=16)[0]
    name = training.data.pack.names[first[1]]
    with pytest.raises(UserError, match=rf"at step 1 \(photos {name}\).*--learning-rate"):
        run_to_end(training)
    assert not training.run.last.exists()


def test_a_prediction_that_is_no_number_stops_validation_and_is_never_the_best(contest, tmp_path, monkeypatch):
    training = start(recipe_of(contest, tmp_path, "-e", "2"))
    validate = Trainer.validate

    def validate_but_one(self):
        points = validate(self)
        points[2] = math.nan
        return points

    monkeypatch.setattr(Trainer, "validate", validate_but_one)
    name = training.data.pack.names[training.data.validation[2]]
    with pytest.raises(UserError, match=f"photo {name}"):
        run_to_end(training)
    assert not training.run.best.exists()


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "plateau_validation"])
def test_every_schedule_warms_up_over_the_same_share_of_the_training(contest, tmp_path, monkeypatch, schedule):
    training = start(recipe_of(contest, tmp_path, "-e", "3", "--schedule", schedule, "-lr", "2", "--warmup", "0.5"))
    training.sample_errors[:] = 1.0  # as after steps; the ones below only count
    monkeypatch.setattr(Trainer, "progress", property(lambda self: self.state.step / 12))
    rates = []
    for training.state.step in range(12):
        training.schedule.before_step(training.progress)
        rates.append(training.rate)
        training.schedule.after_step(training.progress, 1.0)
        training.schedule.after_epoch(training.progress, 1.0)
        if training.state.step == 3:
            again = start(training.recipe)
            again.load_state_dict(training.state_dict())
            again.schedule.before_step(again.progress)
            assert again.rate == rates[-1]
    assert rates[:7] == pytest.approx([2 * step / 6 for step in range(7)])
    if schedule != "cosine":  # which falls at once
        assert rates[7:9] == [2, 2]
    if schedule == "plateau_validation":  # after a patience of one epoch, counted from the end of the warm-up
        assert rates[9:] == pytest.approx([1.6, 1.6, 1.28])


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
    data = data_of(recipe)
    samples = np.array([5, 3, 70])
    chain = parse_augmenters([*recipe.augmentation.augment, *more])
    view = chain.draw(Key(0, 0, samples), (32, 32))
    source = HostSource(data.pack.squares, torch.device("cpu"))
    batch = make_batch(data.pack, source, samples, view, data.flip_indices)
    for i, sample in enumerate(samples):
        through = view.geometry[i] @ data.pack.photo_to_image[sample]
        points = np.column_stack((data.pack.values[sample], np.ones(971))) @ through.T
        points = points[data.flip_indices] if np.linalg.det(through) < 0 else points
        np.testing.assert_allclose(batch.points[i], points[:, :2] / points[:, 2:], atol=1e-3)
        middle = np.linalg.inv(data.pack.photo_to_image[sample]) @ (15.5, 15.5, 1)  # of the ROI, in pixels of the photo
        corners = (middle[:2] + 1e-4 * np.array([(0, 0), (1, 0), (0, 1)]))[None]
        origin, right, below = transform_points(through[None], corners)[0]
        area = abs(np.linalg.det(np.stack((right - origin, below - origin)) / 1e-4))
        assert batch.scale[i].item() == pytest.approx(area**-0.5, rel=1e-4)


def test_a_smaller_image_shows_the_same_and_leaves_the_points_where_they_were(contest, tmp_path):
    """Against OpenCV, which averages over areas; with a view that keeps what it shows."""
    recipe = recipe_of(contest, tmp_path)
    data, samples = data_of(recipe), np.array([5, 3, 70])
    source = HostSource(data.pack.squares, torch.device("cpu"))
    view = Transform.identity(3, (32, 32))
    whole, half = (make_batch(data.pack, source, samples, view, None, image_size=size) for size in (None, 16))
    assert half.images.shape == (3, 3, 16, 16)
    for name in ("points", "inside", "scale"):
        assert torch.equal(getattr(whole, name), getattr(half, name))
    for image, smaller in zip(whole.images, half.images, strict=True):
        expected = cv2.resize(image.permute(1, 2, 0).numpy(), (16, 16), interpolation=cv2.INTER_AREA)
        assert np.abs(smaller.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_images_grow_with_the_progress_and_an_epoch_is_validated_at_its_size(contest, tmp_path):
    flags = ["-e", "4", "--size", "64", "--progressive", "[[0.5, 32], [0.25, 48]]", "--head", "integral"]
    training = start(recipe_of(contest, tmp_path, *flags))
    seen = []
    step = training.step
    training.step = lambda batch: (seen.append(batch.images.shape[-1]), step(batch))
    run_to_end(training)
    assert [row["image_size"] for row in training.state.history] == [32, 32, 48, 64]
    assert seen == [32] * 8 + [48] * 4 + [64] * 4
    best = load_checkpoint(training.run.best)
    assert best["epoch"] == 3  # of the largest size, whatever the others had
    assert best["mse"] == training.state.best_mse == training.state.history[-1]["validation_mse"]


def test_a_batch_for_a_gpu_is_made_without_waiting_for_it(contest, tmp_path, request):
    recipe = recipe_of(contest, tmp_path)
    data = data_of(recipe)
    view = parse_augmenters(recipe.augmentation.augment).draw(Key(0, 0, np.arange(3)), (32, 32))
    device = request.getfixturevalue("gpu_without_values")  # after the data, which need their values
    source = HostSource(data.pack.squares, device)
    batch = make_batch(data.pack, source, np.array([5, 3, 70]), view, data.flip_indices)
    tensors = (batch.images, batch.points, batch.inside, batch.scale)
    assert [(tensor.device.type, len(tensor)) for tensor in tensors] == [("cuda", 3)] * 4


def test_the_background_keeps_the_order_and_passes_errors_on():
    assert list(prefetch(lambda x: x * x, range(7))) == [x * x for x in range(7)]
    assert list(prefetch(str, [])) == []

    def fail_at_3(x):
        if x == 3:
            raise ValueError("three")
        return x

    results = prefetch(fail_at_3, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_what_the_system_refuses_tensorboard_is_raised_once_and_no_thread_speaks_of_it(contest, tmp_path, monkeypatch):
    """Its threads printed tracebacks of their own, and what follows in the list of callbacks was not ended."""
    said = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    monkeypatch.setattr(module, "FLUSH_EVERY", 1)
    training = start(recipe_of(contest, tmp_path, "-e", "1"))
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(RecordWriter, "write", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space left"):
        run_to_end(training)
    assert said == []
    assert threading.excepthook == said.append
    monkeypatch.undo()


def test_callbacks_that_were_not_begun_are_not_ended(contest, tmp_path):
    training = start(recipe_of(contest, tmp_path, "-e", "1"))
    shutil.rmtree(training.run.events, ignore_errors=True)
    training.run.events.write_text("in the way")
    hook = threading.excepthook
    with pytest.raises(OSError, match="events"):
        run_to_end(training)
    assert threading.excepthook == hook
