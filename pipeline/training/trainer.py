"""The loop: draw, warp, predict, measure, keep, step, log, save. See `train`."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from augment import Chain, Key
from augment.geometry import scale_of
from augment.warp import on_device
from models import LandmarkNet
from pipeline.checkpoint import save_checkpoint
from pipeline.data.dataset import TrainingData
from pipeline.data.loader import Batch, epoch_order, training_batches
from pipeline.errors import UserError
from pipeline.inference.predict import predict_points
from pipeline.metrics import Scores, photo_errors, score
from pipeline.progress import Bar, format_seconds, print_line, training_progress
from pipeline.recipe import Recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime
from pipeline.stopping import Stopped, StopRequest, stop_request
from pipeline.training import losses as loss
from pipeline.training.callbacks import Report
from pipeline.training.optim import (
    WeightAverage,
    build_optimiser,
    build_plateau,
    cosine_rate,
    freeze_backbone,
    warmup_rate,
)

READ_EVERY = 10  # steps; between two readings the host does not wait for the device
SMOOTHING = 0.98  # of the loss that is shown and that a plateau is judged by
MAX_TRAIN_SAMPLE = 1000
NUM_NAMED = 3  # photos, in an error
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

    def __init__(self, network: LandmarkNet, recipe: Recipe, data: TrainingData, runtime: Runtime):
        self.recipe, self.data, self.runtime, self.device = recipe, data, runtime, runtime.device
        options = recipe.optimiser
        self.network = network.to(self.device)
        self.average = WeightAverage(self.network, options.average)
        self.optimiser = build_optimiser(self.network, options)
        self.steps_per_epoch = len(epoch_order(data.train, seed=0, epoch=0, batch_size=options.batch_size))
        self.plateau = build_plateau(self.optimiser, options, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=runtime.precision == "fp16")
        self.progress = Progress()
        self.recent_losses = loss.empty_window(
            options.batch_size, self.device
        )  # of photos, which a batch is ranked against
        self.sample_errors = torch.full((len(data.pack),), float("nan"))  # squared pixels, when it was last trained on
        self.train_sample = sample_like_validation(data, seed=recipe.run.seed)
        self.typical_scale = float(np.median(1 / scale_of(data.pack.fits[data.train])))
        self.unread: list[tuple[np.ndarray, torch.Tensor]] = []

    @property
    def share_done(self) -> float:
        """Of the training as a whole, by the clock or by steps."""
        options = self.recipe.optimiser
        if options.minutes:
            return min(1.0, self.progress.minutes / options.minutes)
        return self.progress.step / (options.epochs * self.steps_per_epoch)

    @property
    def num_read(self) -> int:
        """Steps whose measurements have been read and reported."""
        return self.progress.step - len(self.unread)

    def step(self, batch: Batch):
        """One step on one batch. What it measured waits on the device until `read`."""
        options = self.recipe.optimiser
        self._set_rate()
        with self.runtime.autocast():
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

    def _set_rate(self):
        """The cosine's rate, or the warm-up before a plateau has begun to count: it lowers the rate from there on."""
        options = self.recipe.optimiser
        if options.schedule != "cosine" and self.plateau.last_epoch > 0:
            return
        schedule = cosine_rate if options.schedule == "cosine" else warmup_rate
        for group in self.optimiser.param_groups:
            group["lr"] = schedule(self.share_done, highest=options.learning_rate, warmup=options.warmup)

    def judge_plateau(self, value: float):
        """Lowers the rate when `value` has not fallen for long enough; not while the rate still rises."""
        if self.share_done >= self.recipe.optimiser.warmup:
            self.plateau.step(value)

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
        for step, (samples, measured) in enumerate(self.unread, start=self.num_read + 1):
            value, *errors = measured.tolist()
            if not np.isfinite([value, *errors]).all():
                raise UserError(self._not_finite(step, value, samples[~np.isfinite(errors)]))
            self.sample_errors[samples] = torch.tensor(errors)
            known = np.isfinite(progress.smoothed_loss)
            progress.smoothed_loss = SMOOTHING * progress.smoothed_loss + (1 - SMOOTHING) * value if known else value
            if self.recipe.optimiser.schedule == "plateau":
                self.judge_plateau(progress.smoothed_loss)
            report.step(step, loss=progress.smoothed_loss, learning_rate=self.rate)
        self.unread.clear()

    def _not_finite(self, step, value, samples):
        """The forward pass itself gave no number. Gradients of fp16 that overflow are not meant: their steps are left
        out, and the loss is scaled down."""
        names = self.data.pack.names[samples]
        more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        photos = f" (photos {', '.join(names[:NUM_NAMED])}{more})" if len(names) else ""
        return (
            f"the loss is {value} at step {step}{photos}; start anew with a lower --learning-rate or --precision fp32"
        )

    @property
    def rate(self) -> float:
        return self.optimiser.param_groups[0]["lr"]

    def validate(self) -> np.ndarray:
        """(N, K, 2) points of the validation photos, by the averaged network, in pixels of the photos."""
        return self.predict(self.data.validation, "validation")

    def predict(self, samples: np.ndarray, description: str | None = None) -> np.ndarray:
        return predict_points(
            self.average.network, self.data.pack, samples, runtime=self.runtime, description=description
        )

    def state(self) -> dict[str, Any]:
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
            "unread": [(torch.from_numpy(samples), measured.cpu()) for samples, measured in self.unread],
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
        self.unread = [(samples.numpy(), measured) for samples, measured in state.get("unread", [])]
        torch.set_rng_state(state["random"][0])
        if self.device.type == "cuda" and len(state["random"]) > 1:
            torch.cuda.set_rng_state(state["random"][1])


class Sitting:
    """One time that a training is worked on: its clock, its bar, and whether a signal has asked it to stop."""

    def __init__(self, training: Training, bar: Bar, stop: StopRequest):
        self.training, self.bar, self.stop = training, bar, stop
        self._begun = time.perf_counter() - 60 * training.progress.minutes
        self._minutes, self._share = training.progress.minutes, training.share_done
        self.start_epoch()

    def clock(self) -> float:
        """Minutes of the training over all sittings, which are kept in its progress."""
        self.training.progress.minutes = (time.perf_counter() - self._begun) / 60
        return self.training.progress.minutes

    def start_epoch(self):
        self._epoch_minutes, self._epoch_seen = self.clock(), self.training.progress.seen

    @property
    def photos_per_second(self) -> float:
        """In this epoch, as far as it was trained in this sitting."""
        progress = self.training.progress
        return (progress.seen - self._epoch_seen) / max(60 * (progress.minutes - self._epoch_minutes), 1e-9)

    def show(self):
        """Brings the bar up to date; a plain line is printed where that is due."""
        training, progress, options = self.training, self.training.progress, self.training.recipe.optimiser
        share, speed = training.share_done, self.photos_per_second
        left = 60 * (progress.minutes - self._minutes) * (1 - share) / max(share - self._share, 1e-9)
        epoch_left = (training.steps_per_epoch - progress.batch) * options.batch_size / max(speed, 1e-9)
        parts = [
            f"epoch {progress.epoch + 1}" + ("" if options.minutes else f"/{options.epochs}"),
            f"step {progress.step:,}",
            f"{speed:.0f} img/s",
            f"loss {progress.smoothed_loss:.3f}",
            f"best MSE {progress.best_mse:.2f}",
            f"{format_seconds(left)} left",
            f"epoch {format_seconds(min(left, epoch_left))}",
        ]
        self.bar.set_postfix_str(", ".join(part for part in parts if "nan" not in part and "inf" not in part), False)
        self.bar.update(share - self.bar.n)


def train(training: Training, chain: Chain, run: Run, report: Report):
    """Trains to the end, from wherever `training` is: epochs of steps, each followed by validation and a checkpoint.

    SIGTERM or Ctrl-C ends the step; with a checkpoint of all that was trained Stopped is raised.
    """
    print_line(
        f"\n{'epoch':>5} {'minutes':>8} {'img/s':>7} {'loss':>8} {'train MSE':>10} {'valid. MSE':>10} {'NME %':>6}"
    )
    with stop_request() as stop, training_progress() as bar:
        sitting = Sitting(training, bar, stop)
        while training.share_done < 1 or training.progress.batch:  # an epoch that was begun is validated
            sitting.start_epoch()
            train_epoch(training, chain, run, report, sitting)
            finish_epoch(training, run, report, sitting)


def train_epoch(training: Training, chain: Chain, run: Run, report: Report, sitting: Sitting):
    """The rest of the epoch that `training` is in, or less when its time is up."""
    recipe, data, progress = training.recipe, training.data, training.progress
    freeze_backbone(training.network, frozen=progress.epoch < recipe.network.freeze_epochs)
    place = {"seed": recipe.run.seed, "epoch": progress.epoch}
    order = epoch_order(data.train, **place, batch_size=recipe.optimiser.batch_size)[progress.batch :]
    saved = sitting.clock()
    for batch in training_batches(data.pack, order, chain, data.permutation, **place, device=training.device):
        if recipe.optimiser.minutes and training.share_done >= 1:
            break
        training.step(batch)
        sitting.clock()
        if progress.step % READ_EVERY == 0:
            training.read(report)
            if sitting.clock() - saved > recipe.optimiser.checkpoint_minutes:
                save_checkpoint(run.last, training.state())
                saved = sitting.clock()
        sitting.show()
        if sitting.stop:
            save_checkpoint(run.last, training.state())
            sitting.stop.refuse()
    training.read(report)


def finish_epoch(training: Training, run: Run, report: Report, sitting: Sitting):
    """Validates, keeps the best weights, writes the checkpoint and says how it went."""
    progress = training.progress
    speed = sitting.photos_per_second
    try:
        with sitting.stop.at_once():
            points, scores, train_scores = validated(training)
    except Stopped:
        save_checkpoint(run.last, training.state())
        raise
    row = {
        "epoch": progress.epoch,
        "step": progress.step,
        "minutes": round(sitting.clock(), 3),
        "images_per_second": round(speed, 1),
        "learning_rate": training.rate,
        "train_loss": progress.smoothed_loss,
        "train_mse": train_scores.mse,
        **{f"validation_{name}": value for name, value in asdict(scores).items()},
    }
    progress.history.append(row)
    if training.recipe.optimiser.schedule == "plateau_validation":
        training.judge_plateau(scores.mse)
    if scores.mse < progress.best_mse:
        progress.best_mse = scores.mse
        best = {"network": training.average.network.state_dict(), "epoch": progress.epoch, "mse": scores.mse}
        save_checkpoint(run.best, best)
    progress.epoch += 1
    progress.batch = 0
    run.write_metrics(progress.history)
    save_checkpoint(run.last, training.state())
    report.epoch(progress.step, train=train_scores, validation=scores)
    print_line(
        f"{row['epoch']:5d} {row['minutes']:8.2f} {speed:7.0f} {row['train_loss']:8.4f} {row['train_mse']:10.2f}"
        f" {scores.mse:10.2f} {scores.nme:6.2f}"
    )
    sitting.stop.refuse()
    if report.pictures_due(training.share_done):
        draw_worst(training, report, points)


def validated(training: Training) -> tuple[np.ndarray, Scores, Scores]:
    """The points of the validation photos, their scores, and those of a sample of the training photos.

    Both are predicted by the averaged network, from photos as they are. Raises UserError, with the photo's name, where
    a prediction is not a number: no such network is kept as the best.
    """
    data, sample = training.data, training.train_sample
    names, truth = data.pack.names, data.pack.values
    points = training.validate()
    scores = score(points, truth[data.validation], data.groups[data.validation], names[data.validation])
    train_points = training.predict(sample, "training photos")
    return points, scores, score(train_points, truth[sample], data.groups[sample], names[sample])


def draw_worst(training: Training, report: Report, points: np.ndarray):
    """Draws the photos that are predicted worst: of the validation photos with their `points`, of the others those that
    were worst when they were last trained on."""
    data, step = training.data, training.progress.step
    truth = data.pack.values
    report.worst("validation", data, data.validation, points, photo_errors(points, truth[data.validation]), step)
    errors = training.sample_errors[data.train].nan_to_num(-1)
    worst = data.train[errors.argsort(descending=True)[: report.NUM_WORST]]
    points = training.predict(worst)
    report.worst("train", data, worst, points, photo_errors(points, truth[worst], data.pack.names[worst]), step)


def sample_like_validation(data: TrainingData, *, seed: int) -> np.ndarray:
    """Training photos to measure as the validation photos are: as many, but no more than 1,000, always the same."""
    count = min(len(data.train), len(data.validation), MAX_TRAIN_SAMPLE)
    return np.sort(np.random.default_rng(seed).choice(data.train, count, replace=False))
