"""The loop: draw, warp, predict, measure, keep, step, log, save. See `train`."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from augment import Chain, Key
from augment.geometry import scale_of
from augment.warp import on_device
from models import LandmarkNet
from pipeline import loss
from pipeline.batches import Batch, epoch_order, training_batches
from pipeline.checkpoint import save_checkpoint
from pipeline.data import TrainingData
from pipeline.device import autocast
from pipeline.errors import UserError
from pipeline.metrics import photo_errors, score
from pipeline.optimise import WeightAverage, build_optimiser, build_plateau, cosine_rate, freeze_backbone
from pipeline.predictions import predict_points
from pipeline.recipe import Recipe
from pipeline.report import Report
from pipeline.runs import Run

READ_EVERY = 10  # steps; between two readings the host does not wait for the device
SMOOTHING = 0.98  # of the loss that is shown and that a plateau is judged by
RANDOM_TRIM = 1_000_003  # a place in the key that no augmenter of a chain has


@dataclass
class Progress:
    """How far a run has come. `batch` is the next one of `epoch`; `minutes` counts over all sittings."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    minutes: float = 0.0
    smoothed_loss: float = float("nan")
    best_mse: float = float("inf")
    seen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Training:
    """All that changes while a network is trained, and that a checkpoint holds."""

    def __init__(self, network: LandmarkNet, recipe: Recipe, data: TrainingData, device: torch.device, precision: str):
        self.recipe, self.data, self.device, self.precision = recipe, data, device, precision
        options = recipe.optimiser
        self.network = network.to(device)
        self.average = WeightAverage(self.network, options.average)
        self.optimiser = build_optimiser(self.network, options)
        self.steps_per_epoch = len(epoch_order(data.train, seed=0, epoch=0, batch_size=options.batch_size))
        self.plateau = build_plateau(self.optimiser, options, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.progress = Progress()
        self.recent_losses = loss.empty_window(options.batch_size, device)  # of photos, which a batch is ranked against
        self.sample_errors = torch.full((len(data.pack),), float("nan"))  # squared pixels, when it was last trained on
        self.typical_scale = float(np.median(1 / scale_of(data.pack.fits[data.train])))
        self.unread: list[tuple[np.ndarray, torch.Tensor]] = []

    @property
    def share_done(self) -> float:
        """Of the training as a whole, by the clock or by steps."""
        options = self.recipe.optimiser
        if options.minutes:
            return min(1.0, self.progress.minutes / options.minutes)
        return self.progress.step / (options.epochs * self.steps_per_epoch)

    def step(self, batch: Batch):
        """One step on one batch. What it measured waits on the device until `read`."""
        options = self.recipe.optimiser
        if options.schedule == "cosine":
            for group in self.optimiser.param_groups:
                group["lr"] = cosine_rate(self.share_done, highest=options.learning_rate, warmup=options.warmup)
        with autocast(self.device, self.precision):
            predicted = self.network(batch.images)
        beta, outside_weight = self.recipe.loss.beta, self.recipe.loss.outside_weight
        losses = loss.sample_losses(predicted, batch, beta=beta, outside_weight=outside_weight)
        weights = loss.photo_weights(batch.scale, unit=self.recipe.loss.loss_unit, typical_scale=self.typical_scale)
        self.recent_losses = loss.slide(self.recent_losses, losses)
        total = loss.mean_of_kept(weights * losses, self._kept(losses, batch), losses)
        self.optimiser.zero_grad()
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update()
        measured = torch.cat((total.detach()[None], loss.squared_errors(predicted.detach(), batch)))
        self.unread.append((batch.samples, measured))
        self.progress.step += 1
        self.progress.batch += 1
        self.progress.seen += len(batch.samples)

    def _kept(self, losses, batch):
        options = self.recipe.loss
        top, without = options.top_perc_train, options.without_top_perc_train
        kept = loss.kept(losses, self.recent_losses, top_percent=top, without_top_percent=without)
        if not options.trim_at_random:
            return kept
        key = Key(self.recipe.run.seed, self.progress.epoch, batch.samples).child(RANDOM_TRIM)
        return loss.as_many_at_random(kept, on_device(key.uniform(1)[:, 0], losses.device))

    def read(self, report: Report):
        """Reads what the steps since the last time measured: the losses, and the errors of the photos."""
        progress = self.progress
        first = progress.step - len(self.unread) + 1
        for step, (samples, measured) in enumerate(self.unread, start=first):
            value, *errors = measured.tolist()
            if not np.isfinite(value) and not self.scaler.is_enabled():
                raise UserError(
                    f"the loss is {value} at step {step}; start anew with a lower --learning-rate or --precision fp32"
                )
            self.sample_errors[samples] = torch.tensor(errors)
            known = np.isfinite(progress.smoothed_loss)
            progress.smoothed_loss = SMOOTHING * progress.smoothed_loss + (1 - SMOOTHING) * value if known else value
            if self.recipe.optimiser.schedule == "plateau":
                self.plateau.step(progress.smoothed_loss)
            report.step(step, loss=progress.smoothed_loss, learning_rate=self.rate)
        self.unread.clear()

    @property
    def rate(self) -> float:
        return self.optimiser.param_groups[0]["lr"]

    def validate(self) -> np.ndarray:
        """(N, K, 2) points of the validation photos, by the averaged network, in pixels of the photos."""
        return self.predict(self.data.validation)

    def predict(self, samples: np.ndarray) -> np.ndarray:
        return predict_points(
            self.average.network, self.data.pack, samples, device=self.device, precision=self.precision
        )

    def state(self) -> dict[str, Any]:
        assert not self.unread
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "num_updates": self.average.num_updates,
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "recent_losses": self.recent_losses,
            "sample_errors": self.sample_errors,
            "random": [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if self.device.type == "cuda" else [])],
        }

    def load_state(self, state: dict[str, Any]):
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.num_updates = state["num_updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.plateau.load_state_dict(state["plateau"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        if "recent_losses" in state:  # earlier versions ranked a batch against itself
            self.recent_losses = state["recent_losses"].to(self.device)
        self.sample_errors = state["sample_errors"]
        torch.set_rng_state(state["random"][0])
        if self.device.type == "cuda" and len(state["random"]) > 1:
            torch.cuda.set_rng_state(state["random"][1])


def train(training: Training, chain: Chain, run: Run, report: Report):
    """Trains to the end, from wherever `training` is: epochs of steps, each followed by validation and a checkpoint."""
    progress = training.progress
    begun = time.perf_counter() - 60 * progress.minutes

    def clock():
        progress.minutes = (time.perf_counter() - begun) / 60
        return progress.minutes

    print(f"\n{'epoch':>5} {'minutes':>8} {'img/s':>7} {'loss':>8} {'train MSE':>10} {'valid. MSE':>10} {'NME %':>6}")
    with tqdm(
        total=1.0, disable=None, leave=False, bar_format="{percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    ) as bar:
        while training.share_done < 1:
            seen, started = progress.seen, clock()
            train_epoch(training, chain, run, report, clock, bar)
            speed = (progress.seen - seen) / (60 * (clock() - started))
            finish_epoch(training, run, report, clock, speed)


def train_epoch(training: Training, chain: Chain, run: Run, report: Report, clock, bar):
    """The rest of the epoch that `training` is in, or less when its time is up."""
    recipe, data, progress = training.recipe, training.data, training.progress
    freeze_backbone(training.network, frozen=progress.epoch < recipe.network.freeze_epochs)
    place = {"seed": recipe.run.seed, "epoch": progress.epoch}
    order = epoch_order(data.train, **place, batch_size=recipe.optimiser.batch_size)[progress.batch :]
    saved = clock()
    for batch in training_batches(data.pack, order, chain, data.permutation, **place, device=training.device):
        training.step(batch)
        clock()
        if progress.step % READ_EVERY == 0:
            training.read(report)
            bar.update(training.share_done - bar.n)
            bar.set_postfix_str(f" epoch {progress.epoch} loss {progress.smoothed_loss:.3f} rate {training.rate:.1e}")
            if clock() - saved > recipe.optimiser.checkpoint_minutes:
                save_checkpoint(run.last, training.state())
                saved = clock()
        if recipe.optimiser.minutes and training.share_done >= 1:
            break
    training.read(report)


def finish_epoch(training: Training, run: Run, report: Report, clock, speed: float):
    """Validates, keeps the best weights, writes the checkpoint and says how it went."""
    progress, data = training.progress, training.data
    truth = data.pack.values[data.validation]
    points = training.validate()
    scores = score(points, truth, data.groups[data.validation])
    row = {
        "epoch": progress.epoch,
        "step": progress.step,
        "minutes": round(clock(), 3),
        "images_per_second": round(speed, 1),
        "learning_rate": training.rate,
        "train_loss": progress.smoothed_loss,
        "train_mse": float(training.sample_errors[data.train].nanmean()),
        **{f"validation_{name}": value for name, value in asdict(scores).items()},
    }
    progress.history.append(row)
    if training.recipe.optimiser.schedule == "plateau_validation":
        training.plateau.step(scores.mse)
    if scores.mse < progress.best_mse:
        progress.best_mse = scores.mse
        best = {"network": training.average.network.state_dict(), "epoch": progress.epoch, "mse": scores.mse}
        save_checkpoint(run.best, best)
    progress.epoch += 1
    progress.batch = 0
    run.write_metrics(progress.history)
    save_checkpoint(run.last, training.state())
    report.epoch(row)
    tqdm.write(
        f"{row['epoch']:5d} {row['minutes']:8.2f} {speed:7.0f} {row['train_loss']:8.4f} {row['train_mse']:10.2f}"
        f" {scores.mse:10.2f} {scores.nme:6.2f}"
    )
    if report.pictures_due(training.share_done):
        report.worst("validation", data, data.validation, points, photo_errors(points, truth), progress.epoch)
        worst = data.train[
            training.sample_errors[data.train].nan_to_num(-1).argsort(descending=True)[: report.NUM_WORST]
        ]
        points = training.predict(worst)
        report.worst("train", data, worst, points, photo_errors(points, data.pack.values[worst]), progress.epoch)
