"""The trainer: draw, warp, predict, measure, select, step, log, save. See `Trainer.train`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from augment import Chain, Key
from augment.geometry import scale_of
from models import LandmarkNet
from pipeline.checkpoint import check_tensor, check_type, fitting, load_checkpoint, load_network
from pipeline.data.dataset import TrainingData
from pipeline.data.loader import Batch, epoch_order, training_batches
from pipeline.data.mixup import mix
from pipeline.data.regions import region_errors, regions_of
from pipeline.data.sample_weights import relative_weights
from pipeline.data.source import HostSource
from pipeline.errors import UserError
from pipeline.inference.predict import predict_points
from pipeline.metrics import Scores, point_error_sums, score
from pipeline.recipe import Recipe
from pipeline.runtime import Runtime
from pipeline.stopping import Stopped, StopRequest, stop_request
from pipeline.training.averaging import build_average
from pipeline.training.criterion import Criterion
from pipeline.training.early_stop import out_of_patience
from pipeline.training.finite import mark_not_finite, step_if_finite
from pipeline.training.gradient import Gradient
from pipeline.training.identity import identity_of
from pipeline.training.optim import build_optimiser, freeze_backbone, rate_of
from pipeline.training.phases import Phases
from pipeline.training.schedules import build_schedule
from pipeline.training.state import TrainerState, load_optimiser, numbers_like, read_state

FLUSH_EVERY = 10  # steps; between two of them the host does not wait for the device
SMOOTHING = 0.98  # of the loss that is shown and that a plateau follows
MAX_TRAIN_SAMPLE = 400
NUM_NAMED = 3  # photos, in an error
OF_REGION = "validation_mse_"  # and the name of a region, in the table of epochs


@dataclass(frozen=True)
class EpochResult:
    """What came of an epoch: its row of the table, the scores of both splits, and (N, K, 2) points of the validation
    photos, in pixels of the photos."""

    row: dict[str, Any]
    train: Scores
    validation: Scores
    points: np.ndarray


class StepResult(NamedTuple):
    """What the host has read of a step: its number, its loss, the mean of recent losses, its learning rate, and the
    norm of its gradient before it was clipped, which in fp16 need not be finite."""

    step: int
    loss: float
    smoothed_loss: float
    rate: float
    gradient_norm: float


class Callback:
    """What happens beside the steps. Callbacks are called in the order in which they are given; what `state_dict` has
    lies in the checkpoint, so that a resumed run ends as one that was not stopped."""

    def begin(self, trainer: "Trainer"):
        """Before the first step of a sitting."""

    def after_step(self, trainer: "Trainer"):
        """After each step; a look at what the device has measured would wait for it here."""

    def after_flush(self, trainer: "Trainer", measured: list[StepResult]):
        """When the host has read what the steps since the last time measured."""

    def after_epoch(self, trainer: "Trainer", result: EpochResult):
        """When an epoch is validated."""

    def on_stop(self, trainer: "Trainer"):
        """When a signal ends the training; it can be resumed from what is saved here."""

    def end(self):
        """After the last step of a sitting that was begun, however it ended; the last to begin is the first to end."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]):
        pass


class Trainer:
    """A network, all that changes while it is trained, and how it is trained. A checkpoint holds its `state_dict`."""

    def __init__(
        self,
        network: LandmarkNet,
        recipe: Recipe,
        data: TrainingData,
        runtime: Runtime,
        callbacks: Sequence[Callback] = (),
    ):
        self.recipe, self.data, self.runtime, self.callbacks = recipe, data, runtime, callbacks
        options, device = recipe.optimiser, runtime.device
        self.network = network.to(device)
        self.source = HostSource(data.pack.squares, device)
        self.criterion = Criterion(
            recipe.loss,
            typical_scale=float(np.median(1 / scale_of(data.pack.photo_to_image[data.train]))),
            mean_shape=data.mean_shape,
            batch_size=options.batch_size,
            num_photos=len(data.pack),
            device=device,
            sample_weights=None if data.weights is None else relative_weights(data.weights, data.train),
        )
        self.optimiser = build_optimiser(self.network, options, self.criterion.parameters())
        self.average = build_average(self.network, self.optimiser, options.ema_decay)
        self.steps_per_pass = len(self.pass_order(0))
        self.steps_per_epoch = options.steps_per_epoch or self.steps_per_pass
        self.schedule = build_schedule(self.optimiser, options, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == "fp16")
        self.gradient = Gradient(self.network, self.criterion, runtime=runtime, num_parts=options.accumulate)
        self.state = TrainerState()
        self.sample_errors = torch.full((len(data.pack),), float("nan"))  # squared pixels, when it was last trained on
        self.train_sample = sample_like_validation(data, seed=recipe.run.seed)
        self.pending: list[tuple[np.ndarray, torch.Tensor]] = []
        self.stop = StopRequest()
        self.phases = Phases()
        self.identity = identity_of(recipe, data)
        self.regions = regions_of(recipe.running.regions, data.mean_shape)
        self._begin_sitting()

    def train(self, chain: Chain):
        """Trains to the end, from wherever it is: epochs of steps, each followed by validation and the callbacks.

        SIGTERM or Ctrl-C ends the step; when the callbacks have saved all that was trained, Stopped is raised.
        """
        self._begin_sitting()
        with ExitStack() as begun:
            for callback in self.callbacks:
                callback.begin(self)
                begun.callback(callback.end)
            with stop_request() as self.stop:
                while not self.is_done:
                    with self.phases.spent_on("training"):
                        self.train_epoch(chain)
                    self.finish_epoch()

    def train_epoch(self, chain: Chain):
        """The rest of the epoch that it is in, or less when its time is up."""
        state = self.state
        freeze_backbone(self.network, frozen=state.epoch < self.recipe.network.freeze_epochs)
        self._epoch_begun = self.clock(), state.seen
        coming = self.batches(chain, self.steps_per_epoch - state.batch)
        for batch in self.phases.waited_for("waiting for photos", coming):
            if self.progress >= 1:
                break
            self.step(batch)
            self.clock()
            if state.step % FLUSH_EVERY == 0:
                self.flush()
            for callback in self.callbacks:
                callback.after_step(self)
            if self.stop:
                self._save_and_stop()
        self.flush()

    def batches(self, chain: Chain, count: int) -> Iterator[Batch]:
        """The next so many batches. The order of the photos runs on from epoch to epoch, and is another in each pass
        over them."""
        data, step = self.data, self.state.step
        end = step + count
        while step < end:
            number, done = divmod(step, self.steps_per_pass)
            order = self.pass_order(number)[done:][: end - step]
            yield from training_batches(
                data.pack,
                self.source,
                order,
                chain,
                data.flip_indices,
                seed=self.recipe.run.seed,
                epoch=number,
                size_of_batch=partial(self.image_size, step),
            )
            step += len(order)

    def pass_order(self, number: int) -> list[np.ndarray]:
        """The samples of each step of a pass over the photos, as far as this rank trains on them."""
        return epoch_order(
            self.data.train,
            seed=self.recipe.run.seed,
            epoch=number,
            batch_size=self.recipe.optimiser.batch_size,
            rank=self.runtime.rank,
            num_ranks=self.runtime.num_ranks,
        )

    def step(self, batch: Batch):
        """One step on one batch. What it measured waits on the device until `flush`."""
        state = self.state
        key = Key(self.recipe.run.seed, state.step // self.steps_per_pass, batch.samples)
        mixed = mix(batch, key, alpha=self.recipe.optimiser.mixup)
        self.schedule.before_step(self.progress)
        self.optimiser.zero_grad()
        measured = self.gradient.add(mixed, key, epoch=state.step / self.steps_per_epoch, scaler=self.scaler)
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        mark_not_finite(parameters, measured)
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.optimiser.clip)
        step_if_finite(self.optimiser, self.scaler, norm)
        self.scaler.update()
        self.average.update()
        rate = torch.full_like(norm[None], self.rate)
        self.pending.append((batch.samples, torch.cat((measured, norm[None], rate))))
        state.step += 1
        state.batch += 1
        state.seen += len(batch.samples)

    def flush(self):
        """Reads what the steps since the last time measured. Raises UserError as `_read` does."""
        state, measured = self.state, []
        for step, samples, loss, norm, rate, errors in self._read():
            self.sample_errors[samples] = torch.tensor(errors)
            known = np.isfinite(state.smoothed_loss)
            state.smoothed_loss = SMOOTHING * state.smoothed_loss + (1 - SMOOTHING) * loss if known else loss
            self.schedule.after_step(self.progress, state.smoothed_loss)
            measured.append(StepResult(step, loss, state.smoothed_loss, rate, norm))
        self.pending.clear()
        for callback in self.callbacks:
            callback.after_flush(self, measured)

    def _read(self) -> list[tuple[int, np.ndarray, float, float, float, list[float]]]:
        """What each pending step measured: its number, its samples, the loss, the gradient's norm, the learning rate
        and the errors of the photos.

        Raises UserError, with the photos' names, for one that is not finite. The weights have not moved by it.
        """
        measured = []
        for step, (samples, values) in enumerate(self.pending, start=self.num_flushed + 1):
            loss, *errors, norm, rate = values.tolist()
            if not np.isfinite([loss, *errors]).all():
                raise UserError(self._not_finite(f"loss is {loss}", step, samples[~np.isfinite(errors)]))
            if not (np.isfinite(norm) or self.scaler.is_enabled()):  # in fp16 such a step is one of many that overflow
                raise UserError(self._not_finite(f"gradient's norm is {norm}", step, samples[:0]))
            measured.append((step, samples, loss, norm, rate, errors))
        return measured

    def finish_epoch(self):
        """Validates, and lets the schedule and the callbacks know what came of it."""
        state, speed = self.state, self.photos_per_second
        try:
            with self.stop.at_once(), self.phases.spent_on("validation"):
                result = self._validated(speed)
        except Stopped:
            self._save_and_stop()
            raise
        state.history.append(result.row)
        self.schedule.after_epoch(self.progress, result.validation.mse)
        state.epoch += 1
        state.batch = 0
        with self.phases.spent_on("saving and pictures"):
            for callback in self.callbacks:
                callback.after_epoch(self, result)
        self.stop.refuse()

    def _validated(self, speed):
        """The scores of the validation photos and of a sample of the training photos, both predicted by the averaged
        network, from photos as they are. A prediction that is not a number is an error with the photo's name."""
        data, sample, state = self.data, self.train_sample, self.state
        names, truth, groups = data.pack.names, data.pack.values, data.groups
        held_out = data.validation
        points = self.validate()
        validation = score(points, truth[held_out], groups[held_out], names[held_out])
        train = score(self.predict(sample, "training photos"), truth[sample], groups[sample], names[sample])
        regions = region_errors(*point_error_sums(points, truth[held_out]), self.regions)
        row = {
            "epoch": state.epoch,
            "step": state.step,
            "minutes": round(self.clock(), 3),
            "images_per_second": round(speed, 1),
            "image_size": self.image_size(state.step - 1),
            "learning_rate": self.rate,
            "train_loss": state.smoothed_loss,
            "train_mse": train.mse,
            **{f"validation_{name}": value for name, value in asdict(validation).items()},
            **{f"{OF_REGION}{name}": error for name, error in regions.items()},
        }
        return EpochResult(row, train, validation, points)

    def validate(self) -> np.ndarray:
        """(N, K, 2) points of the validation photos, by the averaged network, in pixels of the photos."""
        return self.predict(self.data.validation, "validation")

    def predict(
        self, samples: np.ndarray, description: str | None = None, *, image_size: int | None = None
    ) -> np.ndarray:
        """(N, K, 2) points of the photos at `samples`, by the averaged network, in pixels of the photos.

        image_size: of the images that it is shown, where it is not that of the last step.
        """
        return predict_points(
            self.average.network,
            self.data.pack,
            samples,
            runtime=self.runtime,
            image_size=image_size or self.image_size(self.state.step - 1),
            source=self.source,
            description=description,
        )

    def _save_and_stop(self):
        self._read()  # what is not finite must not be saved, since no run could go on from it
        for callback in self.callbacks:
            callback.on_stop(self)
        self.stop.refuse()

    @property
    def is_done(self) -> bool:
        """Whether the training is at its end, or has been stopped early. An epoch that was begun is validated first."""
        return not self.state.batch and (self.progress >= 1 or self.is_out_of_patience)

    @property
    def is_out_of_patience(self) -> bool:
        patience = self.recipe.running.patience
        return out_of_patience(self.state.history, patience=patience, size=self.recipe.photos.size)

    @property
    def progress(self) -> float:
        """The share of the training that is done, by the clock or by steps."""
        return self.progress_at(step=self.state.step, minutes=self.state.minutes)

    def progress_at(self, *, step: int, minutes: float) -> float:
        options = self.recipe.optimiser
        if options.minutes:
            return min(1.0, minutes / options.minutes)
        return step / max(1, round(options.epochs * self.steps_per_epoch))

    def image_size(self, step: int, ahead: int = 0) -> int:
        """The side of the images of a step, or of one that comes later: of those that are trained on, and validated."""
        progress, end = self.progress_at(step=step + ahead, minutes=self.state.minutes), 0.0
        for share, size in self.recipe.photos.progressive:
            end += share
            if progress < end:
                return size
        return self.recipe.photos.size

    @property
    def num_flushed(self) -> int:
        """Steps whose measurements the host has read."""
        return self.state.step - len(self.pending)

    @property
    def rate(self) -> float:
        return rate_of(self.optimiser)

    def _begin_sitting(self):
        self._begun = time.perf_counter() - 60 * self.state.minutes
        self._epoch_begun = self.state.minutes, self.state.seen
        self._seen_before = self.state.seen

    def clock(self) -> float:
        """Minutes of the training over all sittings, which are kept in its state."""
        self.state.minutes = (time.perf_counter() - self._begun) / 60
        return self.state.minutes

    @property
    def num_seen_in_sitting(self) -> int:
        """Photos that were trained on since this sitting began, each as often as it was."""
        return self.state.seen - self._seen_before

    @property
    def photos_per_second(self) -> float:
        """The speed in this epoch, as far as it was trained in this sitting."""
        minutes, seen = self._epoch_begun
        return (self.state.seen - seen) / max(60 * (self.state.minutes - minutes), 1e-9)

    def _not_finite(self, what, step, samples):
        names = self.data.pack.names[samples]
        more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        photos = f" (photos {', '.join(names[:NUM_NAMED])}{more})" if len(names) else ""
        return f"the {what} at step {step}{photos}; start anew with a lower --learning-rate or --precision fp32"

    def state_dict(self) -> dict[str, Any]:
        on_gpu = self.runtime.device.type == "cuda"
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "num_updates": self.average.num_updates,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "criterion": self.criterion.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.state),
            "callbacks": {type(callback).__name__: callback.state_dict() for callback in self.callbacks},
            "sample_errors": self.sample_errors,
            "pending": [(torch.from_numpy(samples), measured.cpu()) for samples, measured in self.pending],
            "of": self.identity,
            "random": [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if on_gpu else [])],
        }

    def load(self, path: Path):
        """Resumes from a checkpoint. Raises UserError, naming it, where it is of no training like this one."""
        with fitting(path):
            self.load_state_dict(load_checkpoint(path))

    def load_state_dict(self, state: dict[str, Any]):
        """Takes up what `state_dict` gave, of this version or of an earlier one; settings stay as the recipe says.

        Raises one of checkpoint.DAMAGE, half changed, where it is of another training or of none.
        """
        check_type(state, dict, "it")
        if state.get("of", self.identity) != self.identity:  # earlier versions did not say
            raise ValueError("it is of a run with other photos, another split or another recipe")
        load_network(self.network, state["network"])
        load_network(self.average.network, state["average"])
        self.average.num_updates = numbers_like({"updates": state["num_updates"]}, {"updates": 0})["updates"]
        load_optimiser(self.optimiser, state["optimiser"])
        self.schedule.load_state_dict(state["schedule"] if "schedule" in state else state["plateau"])
        if "criterion" in state:
            self.criterion.load_state_dict(state["criterion"])
        if self.scaler.is_enabled() and state["scaler"]:  # it is empty where the run was not in fp16 before
            self.scaler.load_state_dict(numbers_like(state["scaler"], self.scaler.state_dict()))
        self.state = read_state(state["progress"])
        for callback in self.callbacks:
            callback.load_state_dict(state.get("callbacks", {}).get(type(callback).__name__, {}))
        check_tensor(state["sample_errors"], self.sample_errors, "sample_errors", gaps=True)
        self.sample_errors = state["sample_errors"]
        self.pending = []
        for samples, measured in state.get("pending", []):
            if len(measured) == 1 + len(samples):  # earlier versions kept neither the gradient's norm nor the rate
                measured = torch.cat((measured, torch.zeros(2)))
            check_tensor(measured, torch.zeros(3 + len(self.sample_errors[samples])), "pending", gaps=True)
            self.pending.append((samples.numpy(), measured))
        torch.set_rng_state(state["random"][0])
        if self.runtime.device.type == "cuda" and len(state["random"]) > 1:
            torch.cuda.set_rng_state(state["random"][1])
        self._begin_sitting()


def sample_like_validation(data: TrainingData, *, seed: int) -> np.ndarray:
    """Training photos to measure as the validation photos are: as many, but no more than 400, always the same."""
    count = min(len(data.train), len(data.validation), MAX_TRAIN_SAMPLE)
    return np.sort(np.random.default_rng(seed).choice(data.train, count, replace=False))
