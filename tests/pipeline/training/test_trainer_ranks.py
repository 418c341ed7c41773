"""N ranks that share each step are one that takes all of it, within rounding, where norms are frozen; and all of them
have the same network and the same figures at every step, to the bit."""

import copy
import hashlib
import os
import signal
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mobilenetv3

from augment import parse_augmenters
from pipeline.checkpoint import save_checkpoint
from pipeline.command import parse_command
from pipeline.data.dataset import load_training_data
from pipeline.errors import UserError
from pipeline.networks import make_network
from pipeline.ranks import Ranks, current_ranks
from pipeline.runtime import Runtime
from pipeline.stopping import Stopped
from pipeline.training.lr_finder import sweep
from pipeline.training.norms import build_norms, own_statistics
from pipeline.training.trainer import Callback, Trainer
from tests.ranks import results_of

SMALL = (
    "--model mobilenet_v3_small --weights none --size 32 -b 16 --train-share 0.8 --precision fp32 --flip-indices none"
)
STEADY = "--schedule constant -lr 0.01 --optimiser sgd --warmup 0 --ema-decay 0.5"  # AdamW makes much of rounding
CASES = {
    "plain": "-e 2 -b 16",  # which three ranks do not divide
    "everything": "-e 2 -b 17 --accumulate 2 --mixup 0.4 --top-perc-train 70 --without-top-perc-train 5 --clip 1"
    " --schedule plateau_validation --plateau-patience 1 --loss rle --learning-rate 0.001",
    "fewer photos than a batch": "-e 3 -b 500 --trim-by sample --top-perc-train 50 --steps-per-epoch 2"
    " --schedule plateau",
}
WHOLE_NETWORK = mobilenetv3._mobilenet_v3


def trainer_of(contest, flags, *, frozen=True, callbacks=()):
    """A trainer of a network of three blocks, without dropout, on as many ranks as there are."""
    recipe = parse_command(
        ["-d", str(contest), "--cache", str(contest.parent / "cache"), *SMALL.split(), *STEADY.split(), *flags.split()]
    ).recipe
    data = current_ranks().in_turn(lambda: load_training_data(recipe))

    def build(blocks, _, *rest, **named):
        return WHOLE_NETWORK(blocks[:3], 128, *rest, **named)

    with mock.patch.object(mobilenetv3, "_mobilenet_v3", build):
        network = make_network(recipe, None, mean_shape=data.mean_shape)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if frozen and isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module
    return Trainer(network, recipe, data, Runtime(torch.device("cpu"), "fp32", current_ranks()), callbacks)


def outcome(trainer):
    state = trainer.state_dict()
    rows = [
        {name: value for name, value in row.items() if name not in ("minutes", "images_per_second")}
        for row in trainer.state.history
    ]
    digest = hashlib.sha256()
    for name in ("network", "average"):
        for tensor in state[name].values():
            digest.update(tensor.numpy().tobytes())
    return {
        "network": {name: tensor.numpy() for name, tensor in state["average"].items()},
        "errors": state["sample_errors"].numpy(),
        "recent": state["criterion"]["recent_losses"].numpy(),
        "running": state["criterion"]["running_losses"].numpy(),
        "seen": trainer.state.seen,
        "rows": rows,
        "same": [digest.hexdigest(), repr(rows), trainer.state.minutes, trainer.state.seen],
    }


def train_all(contest, folder, cases):
    """What comes of each case, on these ranks; one with trained norms, whose statistics are looked at after a step; and
    one that is resumed at half its way."""
    found = {}
    for name, flags in cases.items():
        trainer = trainer_of(contest, flags, frozen=name not in ("norms", "statistics"))
        if name in ("plain", "sweep") and not current_ranks().is_main:
            for parameter in trainer.network.parameters():
                parameter.data += 1  # all begin with the weights of the main one
        if name == "sweep":
            found[name] = {"same": sweep(trainer, parse_augmenters([]), num_steps=12).losses.tolist()}
            continue
        if name == "statistics":
            found[name] = statistics_after_a_step(trainer)
            continue
        if name == "resumed":
            trainer.load(folder / "half.pt")
        trainer.train(parse_augmenters(trainer.recipe.augmentation.augment))
        found[name] = outcome(trainer)
        if name == "half" and current_ranks().is_main:
            save_checkpoint(folder / "half.pt", trainer.state_dict())
    return found


def statistics_after_a_step(trainer):
    """The statistics of the network's norms, the same on all ranks, and those that this rank's photos alone give."""
    (batch,) = trainer.batches(parse_augmenters([]), 1)
    alone = copy.deepcopy(trainer.network)
    with torch.no_grad():
        alone.predict(batch.images)
    trainer.step(batch)
    same, own = (torch.cat(own_statistics(network)).tolist() for network in (trainer.network, alone))
    return {"same": same, "own": own}


@pytest.fixture(scope="module")
def alone(contest, tmp_path_factory):
    """What one process makes of the cases, and its checkpoint at half the way of the first."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, train_all(contest, folder, {**CASES, "half": "-e 1 -b 16", "sweep": "-b 16"})


def assert_equal(found, expected):
    """Within rounding."""
    for name, weights in expected["network"].items():
        np.testing.assert_allclose(found["network"][name], weights, rtol=1e-3, atol=1e-6, err_msg=name)
    for name in ("errors", "recent", "running"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, err_msg=name)
    assert found["seen"] == expected["seen"]
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def train_on_ranks(count, contest, folder, alone, cases):
    """What comes of the cases on the first of so many ranks and on the others, which have the same."""
    (folder / "half.pt").symlink_to(alone[0] / "half.pt")
    first, *others = results_of(count, folder / "ranks", train_all, contest, folder, cases)
    for other in others:
        assert {name: found["same"] for name, found in other.items()} == {
            name: found["same"] for name, found in first.items()
        }
    for name in cases.keys() & CASES.keys():
        assert_equal(first[name], alone[1][name])
    assert_equal(first["resumed"], alone[1]["plain"])  # half of it was trained by one rank
    return first, others


def test_two_ranks_are_one(contest, tmp_path, alone):
    """They divide a batch into equal parts."""
    train_on_ranks(2, contest, tmp_path, alone, {"plain": CASES["plain"], "resumed": "-e 2 -b 16"})


def test_three_ranks_are_one(contest, tmp_path, alone):
    cases = {**CASES, "resumed": "-e 2 -b 16", "norms": "-e 1 -b 16", "statistics": "-b 16", "sweep": "-b 16"}
    first, others = train_on_ranks(3, contest, tmp_path, alone, cases)
    assert first["sweep"]["same"] == pytest.approx(alone[1]["sweep"]["same"], rel=1e-4)
    assert np.isfinite(first["norms"]["rows"][-1]["validation_mse"])
    own = np.array([found["statistics"]["own"] for found in (first, *others)])
    assert np.ptp(own, axis=0).max() > 0.01  # each rank's photos have statistics of their own
    np.testing.assert_allclose(first["statistics"]["same"], own.mean(axis=0), rtol=1e-4, atol=1e-6)


class Save(Callback):
    def __init__(self, path):
        self.path = path

    def on_stop(self, trainer):
        save_checkpoint(self.path, trainer.state_dict())

    def after_epoch(self, trainer, result):
        self.on_stop(trainer)


class Draw(Callback):
    def after_epoch(self, trainer, result):
        with trainer.stoppable():
            self.draw()

    def draw(self):
        pass


def stop_one(contest, folder, where, told):
    """Of three ranks, the one that is `told` gets a signal in its second step, behind it, in its second prediction, or
    while it draws and the others wait."""
    ranks = current_ranks()
    own = [Save(folder / "stopped.pt"), Draw()]
    trainer = trainer_of(contest, "-e 4", callbacks=own if ranks.is_main else [])
    owner, calls = (Trainer if where in ("step", "predict") else Draw), []
    method = getattr(owner, where)

    def tell(self, *arguments, **named):
        calls.append(None)
        if len(calls) == 2 and ranks.rank == told:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(self, *arguments, **named)

    with mock.patch.object(owner, where, tell), pytest.raises(Stopped) as caught:
        trainer.train(parse_augmenters(trainer.recipe.augmentation.augment))
    return caught.value.status, trainer.state.step, len(trainer.state.history), (folder / "stopped.pt").exists()


@pytest.mark.parametrize(
    ("where", "told", "step", "epochs"),
    [("step", 1, 2, 0), ("step", 0, 2, 0), ("after_step", 0, 3, 0), ("predict", 2, 4, 0), ("draw", 0, 8, 2)],
)
def test_a_signal_to_one_rank_stops_all_of_them_at_the_same_step_when_it_is_saved(
    contest, tmp_path, where, told, step, epochs
):
    found = results_of(3, tmp_path / "ranks", stop_one, contest, tmp_path, where, told)
    assert found == [(128 + signal.SIGTERM, step, epochs, True)] * 3


def test_other_data_on_a_rank_are_refused(contest):
    trainer = trainer_of(contest, "-e 1")
    with (
        mock.patch.object(Ranks, "broadcast_text", return_value="of other photos"),
        pytest.raises(UserError, match="the same data"),
    ):
        trainer.train(parse_augmenters(trainer.recipe.augmentation.augment))


def test_what_ranks_compare_differs_where_their_length_or_precision_does(contest):
    told = set()
    trainers = [trainer_of(contest, flags) for flags in ("-e 1", "-e 2", "-e 1 --patience 3", "-e 1 --minutes 1")]
    other = trainer_of(contest, "-e 1")
    other.runtime = replace(other.runtime, precision="bf16")
    with mock.patch.object(Ranks, "broadcast_text", lambda self, make: told.add(make()) or make()):
        for trainer in (*trainers, other):
            trainer.begin_together()
    assert len(told) == 5


def train_with_dropout(contest, folder):
    """What two ranks end with in two epochs, without a stop and with one after the first."""

    def begin(epochs):
        trainer = trainer_of(contest, f"-e {epochs} -b 16 --head linear")
        for module in trainer.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.5
        torch.manual_seed(0)
        return trainer

    half = begin(1)
    half.train(parse_augmenters([]))
    if current_ranks().is_main:
        save_checkpoint(folder / "half.pt", half.state_dict())
    current_ranks().barrier()
    again = begin(2)
    again.load(folder / "half.pt")
    again.train(parse_augmenters([]))
    whole = begin(2)
    whole.train(parse_augmenters([]))
    return [outcome(trainer)["same"][0] for trainer in (whole, again)]


def test_two_ranks_that_are_resumed_have_the_dropout_of_two_that_were_not(contest, tmp_path):
    for whole, again in results_of(2, tmp_path / "ranks", train_with_dropout, contest, tmp_path):
        assert whole == again


def test_ranks_that_go_on_from_different_steps_are_refused(contest):
    """One may see an older checkpoint than the others do, where folders are not one and the same."""
    trainer = trainer_of(contest, "-e 1")
    with (
        mock.patch.object(Ranks, "broadcast_numbers", return_value=[4.0]),
        pytest.raises(UserError, match=r"from step 0, and process 0 from step 4; .* one folder for --runs"),
    ):
        trainer.train(parse_augmenters(trainer.recipe.augmentation.augment))


def test_a_batch_without_a_photo_for_each_rank_is_refused(contest, monkeypatch):
    monkeypatch.setattr(Ranks, "in_turn", lambda self, make: make())
    monkeypatch.setitem(globals(), "current_ranks", lambda: Ranks(0, 20))
    with pytest.raises(UserError, match="--batch-size 16: 20 processes"):
        trainer_of(contest, "-e 1")


def test_norms_are_synchronised_on_gpus_where_the_recipe_says_so():
    def kinds(device, count, *, synchronised=True):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
        network = build_norms(
            network, Runtime(torch.device(device), "fp32", Ranks(0, count)), synchronised=synchronised
        )
        return isinstance(network[1], nn.SyncBatchNorm), len(own_statistics(network))

    assert kinds("cuda", 2) == (True, 0)
    assert kinds("cuda", 1) == kinds("cpu", 2) == kinds("cuda", 2, synchronised=False) == (False, 2)
    network = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)).train()
    network[0].eval()
    assert not own_statistics(network)
