"""The trainer: draw, warp, predict, measure, select, step, log, save. See `Trainer.train`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augment import Chain, Key
from augment.geometry import scale_of
from models import LandmarkNet
from pipeline.checkpoint import check_plain, check_tensor, check_type, fitting, load_checkpoint, load_network
from pipeline.data.dataset import TrainingData
from pipeline.data.loader import Batch, training_batches
from pipeline.data.mixup import mix
from pipeline.data.regions import OF_REGION, region_errors, regions_of
from pipeline.data.sample_weights import relative_weights
from pipeline.data.source import source_of
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
from pipeline.training.norms import build_norms
from pipeline.training.optim import build_optimiser, freeze_backbone, rate_of
from pipeline.training.pending import MeasuredStep, PendingSteps, StepResult
from pipeline.training.phases import Phases
from pipeline.training.schedules import build_schedule
from pipeline.training.sitting import Sitting
from pipeline.training.state import TrainerState, load_optimiser, numbers_like, read_state
from pipeline.training.step_order import StepOrder

FLUSH_EVERY = 10  # steps; between two of them the host does not wait for the device
SMOOTHING = 0.98  # of the loss that is shown and that a plateau follows
MAX_TRAIN_SAMPLE = 400
LOWEST_SCALE = 1e-4  # of a loss in fp16, as in fairseq: each gradient that is not finite halves it, from 65,536 on


@dataclass(frozen=True)
class EpochResult:
    """The result of an epoch: its row of the table, the scores of both splits, and (N, K, 2) points of the validation
    photos, in pixels of the photos."""

    row: dict[str, Any]
    train: Scores
    validation: Scores
    points: np.ndarray


class Callback:
    """What happens besides the steps. Callbacks are called in the order in which they are given; what `state_dict`
    returns is saved in the checkpoint, so that a resumed run ends as an uninterrupted one does."""

    def begin(self, trainer: "Trainer"):
        """Before the first step of a sitting."""

    def after_step(self, trainer: "Trainer"):
        """After each step; reading what the device has measured would wait for it here."""

    def after_flush(self, trainer: "Trainer", measured: list[StepResult]):
        """When the host has read what the steps since the last time measured."""

    def after_epoch(self, trainer: "Trainer", result: EpochResult):
        """After an epoch is validated."""

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
        if min(options.batch_size, len(data.train)) < runtime.ranks.num_ranks:
            raise UserError(
                f"--batch-size {options.batch_size}: {runtime.ranks.num_ranks} processes train on {len(data.train):,} "
                "photos, and each needs one of a step; give a larger batch or fewer processes"
            )
        self.network = build_norms(network.to(device), runtime, synchronised=not recipe.network.local_norms)
        self.source = source_of(data.pack.squares, device)
        self.criterion = Criterion(
            recipe.loss,
            size=recipe.photos.size,
            typical_scale=float(np.median(1 / scale_of(data.pack.photo_to_image[data.train]))),
            mean_shape=data.mean_shape,
            batch_size=options.batch_size,
            num_photos=len(data.pack),
            device=device,
            sample_weights=None if data.weights is None else relative_weights(data.weights, data.train),
        )
        self.optimiser = build_optimiser(self.network, options, self.criterion.parameters())
        self.average = build_average(self.network, self.optimiser, options.ema_decay)
        self.order = StepOrder(
            data.train,
            seed=recipe.run.seed,
            batch_size=options.batch_size,
            ranks=runtime.ranks,
            mixes=options.mixup > 0,
        )
        self.steps_per_epoch = options.steps_per_epoch or self.order.steps_per_pass
        self.schedule = build_schedule(self.optimiser, options, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == "fp16")
        self.gradient = Gradient(self.network, self.criterion, runtime=runtime, num_parts=options.accumulate)
        self.state = TrainerState()
        self.sample_errors = torch.full((len(data.pack),), float("nan"))  # squared pixels, when it was last trained on
        self.train_sample = sample_like_validation(data)
        self.pending = PendingSteps(data.pack.names)
        self.stop, self.all_stop = StopRequest(), False
        self.phases = Phases()
        self.num_ranks_before = runtime.ranks.num_ranks  # of the sitting that it was loaded from
        self.identity = identity_of(recipe, data)
        self.regions = regions_of(recipe.running.regions, data.mean_shape)
        self.sitting = Sitting(self.state)
        self._shown: int | None = None  # the side of the images of the last step of this sitting

    def train(self, chain: Chain):
        """Trains to the end, from wherever it is: epochs of steps, each followed by validation and the callbacks.

        SIGTERM or Ctrl-C ends the step; once the callbacks have saved all that was trained, Stopped is raised.
        """
        self.sitting = Sitting(self.state)
        self.begin_together()
        with ExitStack() as begun:
            for callback in self.callbacks:
                callback.begin(self)
                begun.callback(callback.end)
            with stop_request() as self.stop:
                while not self.is_done:
                    with self.phases.spent_on("training"):
                        self.train_epoch(chain)
                    if self.state.batch or not self.state.history:  # otherwise time was up before its first step
                        self.finish_epoch()

    def train_epoch(self, chain: Chain):
        """Trains the rest of the current epoch, or less if its time is up."""
        state = self.state
        freeze_backbone(self.network, frozen=state.epoch < self.recipe.network.freeze_epochs)
        self.clock()
        self.sitting.begin_epoch()
        coming = self.batches(chain, self.steps_per_epoch - state.batch)
        for batch in self.phases.waited_for("waiting for photos", coming):
            if self.progress >= 1:
                break
            self.step(batch)
            self.clock()
            for callback in self.callbacks:
                callback.after_step(self)
            if state.step % FLUSH_EVERY == 0:
                self.flush()
            if self.all_stop:
                self._save_and_stop()
        self.flush()
        self.clock()  # the last steps may have been under way on a GPU until now

    def batches(self, chain: Chain, count: int) -> Iterator[Batch]:
        """This rank's part of the next `count` steps."""
        for steps in self.order.following(self.state.step, count):
            yield from training_batches(
                self.data.pack,
                self.source,
                steps.own,
                chain,
                self.data.flip_indices,
                seed=self.recipe.run.seed,
                epoch=steps.number,
                size_of_batch=partial(self.image_size, steps.first),
            )

    def step(self, batch: Batch):
        """One step on one batch. What it measured waits on the device until `flush`."""
        state = self.state
        samples, mixed = self._mixed(batch)
        key = self._key(samples)
        self.schedule.before_step(self.progress)
        self.optimiser.zero_grad()
        self._shown = mixed.batch.images.shape[-1]
        self._seed_this_rank()
        measured = self.gradient.add(mixed, key, epoch=state.step / self.steps_per_epoch, scaler=self.scaler)
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        mark_not_finite(parameters, measured)
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.optimiser.clip)
        step_if_finite(self.optimiser, self.scaler, norm)
        self.scaler.update()
        self.average.update()
        self.pending.add(samples, measured, norm, self.rate)
        state.step += 1
        state.batch += 1
        state.seen += len(samples)

    def _mixed(self, batch):
        """The samples of the step that the batch, or a part of it, belongs to, with this rank's photos, mixed."""
        alpha = self.recipe.optimiser.mixup
        mixed = mix(batch, self._key(batch.samples), alpha=alpha)
        if self.runtime.ranks.num_ranks == 1:
            return batch.samples, mixed
        return self.order.of_step(self.state.step), mixed.part(slice(1, None)) if alpha else mixed

    def _key(self, samples):
        return Key(self.recipe.run.seed, self.state.step // self.order.steps_per_pass, samples)

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

    def _read(self) -> list[MeasuredStep]:
        """What each pending step measured. Raises UserError for one that is not finite, and if no gradient has been
        finite for so long that the scaler of fp16 has given up."""
        measured = self.pending.read(self.num_flushed + 1, overflows=self.scaler.is_enabled())
        if self.scaler.is_enabled() and self.scaler.get_scale() < LOWEST_SCALE:
            raise UserError(
                f"the gradients up to step {self.state.step} are not finite in fp16, however small the loss is scaled; "
                "start anew with a lower --learning-rate or --precision fp32"
            )
        return measured

    def finish_epoch(self):
        """Validates, and tells the schedule and the callbacks the result."""
        state, speed = self.state, self.sitting.photos_per_second
        try:
            with self.stoppable(), self.phases.spent_on("validation"):
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
        self.clock()  # of a signal that came meanwhile
        self._stop_together()

    def stoppable(self) -> AbstractContextManager[None]:
        """A context for what need not be finished: a signal raises Stopped within it, at once. Several ranks finish it,
        since they have to stop together."""
        return self.stop.at_once() if self.runtime.ranks.num_ranks == 1 else nullcontext()

    def _validated(self, speed):
        """The scores of the validation photos and of a sample of the training photos, both predicted by the averaged
        network, from photos as they are. A prediction that is not a number raises an error with the photo's name."""
        data, sample, state = self.data, self.train_sample, self.state
        size = self.shown_size  # time goes on, and with it what the next steps are shown
        points = self.validate()
        validation = self._score(points, data.validation)
        train = self._score(self._predict_together(sample, "training photos", image_size=size), sample)
        regions = self._region_errors(points)
        row = {
            "epoch": state.epoch,
            "step": state.step,
            "minutes": round(self.clock(), 3),
            "images_per_second": round(speed, 1),
            "image_size": size,
            "learning_rate": self.rate,
            "train_loss": state.smoothed_loss,
            "train_mse": train.mse,
            **{f"validation_{name}": value for name, value in asdict(validation).items()},
            **{f"{OF_REGION}{name}": error for name, error in regions.items()},
        }
        return EpochResult(row, train, validation, points)

    def validate(self) -> np.ndarray:
        """(N, K, 2) points of the validation photos, by the averaged network, in pixels of the photos. All ranks must
        call this; each predicts a part of the photos."""
        return self._predict_together(self.data.validation, "validation", image_size=self.shown_size)

    def _predict_together(self, samples, description, *, image_size):
        """What `predict` gives, with each rank predicting a part of the photos. Raises Stopped on all ranks if one is
        told to stop and does not finish its part."""
        ranks = self.runtime.ranks
        if ranks.num_ranks == 1:
            return self.predict(samples, description, image_size=image_size)
        part, points = ranks.part(len(samples)), None
        with suppress(Stopped), self.stop.at_once():
            points = self.predict(samples[part], description, image_size=image_size)
        self.clock()
        self._stop_together()
        assert points is not None
        return ranks.gather_arrays(points, part, len(samples))

    def _score(self, points, samples):
        """The scores of (N, K, 2) points of the photos at `samples`; the main rank computes them for all."""
        pack, ranks, none = self.data.pack, self.runtime.ranks, [float("nan")] * 4
        if ranks.is_main:
            scores = score(points, pack.values[samples], self.data.groups[samples], pack.names[samples])
        return Scores(*ranks.broadcast_numbers(*(astuple(scores) if ranks.is_main else none)))

    def _region_errors(self, points):
        """The errors of regions in (N, K, 2) points of the validation photos, computed by the main rank."""
        data = self.data

        def find():
            return region_errors(*point_error_sums(points, data.pack.values[data.validation]), self.regions)

        return json.loads(self.runtime.ranks.broadcast_text(lambda: json.dumps(find())))

    def predict(
        self, samples: np.ndarray, description: str | None = None, *, image_size: int | None = None
    ) -> np.ndarray:
        """(N, K, 2) points of the photos at `samples`, by the averaged network, in pixels of the photos.

        image_size: of the images that it is shown, if not that of the last step.
        """
        return predict_points(
            self.average.network,
            self.data.pack,
            samples,
            runtime=self.runtime,
            image_size=image_size or self.shown_size,
            source=self.source,
            description=description,
        )

    def _save_and_stop(self):
        self._read()  # what is not finite must not be saved, since no run could go on from it
        with ExitStack() as stopping:  # all of them save, whatever one of them raises
            for callback in reversed(self.callbacks):
                stopping.callback(callback.on_stop, self)
        self.runtime.ranks.barrier()  # the end of one process would end the others before all is saved
        self.stop.raise_if_stopped()

    def _stop_together(self):
        """Raises Stopped on all ranks if all know of a signal. One that has come since they last looked at the clock is
        known to a single rank, which must not stop before the others do."""
        if self.all_stop:
            self.stop.raise_if_stopped()

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
        """The side of the images, in training and validation, of a step or of one that comes `ahead` steps later."""
        progress, end = self.progress_at(step=step + ahead, minutes=self.state.minutes), 0.0
        for share, size in self.recipe.photos.progressive:
            end += share
            if progress < end:
                return size
        return self.recipe.photos.size

    @property
    def shown_size(self) -> int:
        """The side of the images of the last step."""
        return self._shown or self.image_size(self.state.step - 1)

    @property
    def num_flushed(self) -> int:
        """Steps whose measurements the host has read."""
        return self.state.step - len(self.pending)

    @property
    def rate(self) -> float:
        return rate_of(self.optimiser)

    def clock(self) -> float:
        """Minutes of the training over all sittings, which are kept in its state. All ranks follow the clock of the
        main one, and learn here of a signal that has come to any of them: then they all stop."""
        ranks, now = self.runtime.ranks, self.sitting.minutes
        self.state.minutes, number = ranks.all_max(now if ranks.is_main else 0.0, self.stop.number or 0)
        if number and not self.stop:
            self.stop.learn(int(number))
        self.all_stop = bool(number)
        return self.state.minutes

    def begin_together(self):
        """Raises UserError unless all ranks train the same on the same photos, and go on from the same step. They begin
        with the weights of the main one, since processors differ in how they draw them."""
        ranks, options, runtime = self.runtime.ranks, self.recipe.optimiser, self.runtime
        length = [float(options.epochs), options.minutes, self.recipe.running.patience]
        told = json.dumps([self.identity, length, runtime.device.type, runtime.precision])
        if ranks.broadcast_text(lambda: told) != told:
            raise UserError(
                "it has other photos, another split, recipe or length than process 0, or computes on another kind of "
                f"processor or in another precision (here {runtime.precision}); give all machines the same data, "
                "command and version, and --precision where their processors differ"
            )
        (step_of_main,) = ranks.broadcast_numbers(self.state.step)
        if step_of_main != self.state.step:
            raise UserError(
                f"it goes on from step {self.state.step:,}, and process 0 from step {int(step_of_main):,}; give all "
                "machines one folder for --runs"
            )
        networks = (self.network, self.average.network)
        states = [tensor for network in networks for tensor in network.state_dict().values()]
        ranks.broadcast([*states, *self.criterion.parameters()])

    def _seed_this_rank(self):
        """Gives each rank its own random numbers for a step, so that no two have the same dropout. Those of the main
        one go on from step to step, and are saved in the checkpoint; those of the others follow from the step, so that
        a resumed run has them too."""
        ranks, seed = self.runtime.ranks, self.recipe.run.seed
        if not ranks.is_main:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.state.step, ranks.rank]).generate_state(1)[0]))

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
            "callbacks": {type(callback).__name__: plain_state(callback) for callback in self.callbacks},
            "sample_errors": self.sample_errors,
            "pending": self.pending.state(),
            "of": self.identity,
            "num_ranks": self.runtime.ranks.num_ranks,
            "random": [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if on_gpu else [])],
        }

    def load(self, path: Path):
        """Resumes from a checkpoint. Raises UserError, naming it, if it is not of a training like this one."""
        with fitting(path):
            self.load_state_dict(load_checkpoint(path))

    def load_state_dict(self, state: dict[str, Any]):
        """Loads what `state_dict` gave, in this version or an earlier one; settings stay as the recipe says.

        Raises one of checkpoint.DAMAGE, half changed, if it is of another training or of none.
        """
        check_type(state, dict, "it")
        if state.get("of", self.identity) != self.identity:  # earlier versions did not say
            raise ValueError("it is of a run with other photos, another split or recipe, or of an earlier version")
        load_network(self.network, state["network"])
        load_network(self.average.network, state["average"])
        self.average.num_updates = numbers_like({"updates": state["num_updates"]}, {"updates": 0})["updates"]
        load_optimiser(self.optimiser, state["optimiser"])
        self.schedule.load_state_dict(state["schedule"] if "schedule" in state else state["plateau"])
        if "criterion" in state:
            self.criterion.load_state_dict(state["criterion"])
        if self.scaler.is_enabled() and state["scaler"]:  # it is empty if the run was not in fp16 before
            self.scaler.load_state_dict(numbers_like(state["scaler"], self.scaler.state_dict()))
        self.state = read_state(state["progress"])
        kept = state.get("callbacks", {})
        check_type(kept, dict, "what its callbacks keep")
        for callback in self.callbacks:
            if (name := type(callback).__name__) in kept:
                callback.load_state_dict(kept[name])
        check_tensor(state["sample_errors"], self.sample_errors, "sample_errors", gaps=True)
        self.sample_errors = state["sample_errors"]
        self.pending.load(state.get("pending", []))
        if self.num_flushed > 0 and self.sample_errors.isnan().all():
            raise ValueError("sample_errors has no error of any photo")
        self.num_ranks_before = numbers_like(state, {"num_ranks": 1})["num_ranks"] if "num_ranks" in state else 1
        torch.set_rng_state(state["random"][0])
        if self.runtime.device.type == "cuda" and len(state["random"]) > 1:
            torch.cuda.set_rng_state(state["random"][1])
        self.sitting = Sitting(self.state)
        self._shown = None


def plain_state(callback: Callback) -> dict[str, Any]:
    """What a callback keeps. Raises UserError if no checkpoint could give it back."""
    state = callback.state_dict()
    check_plain(state, f"--callbacks: the state_dict of {type(callback).__name__}")
    return state


def sample_like_validation(data: TrainingData) -> np.ndarray:
    """Training photos to measure as the validation photos are: as many, but no more than 400. They are the same in all
    stages of a training, whose seeds differ, so that the curve continues."""
    count = min(len(data.train), len(data.validation), MAX_TRAIN_SAMPLE)
    return np.sort(np.random.default_rng(0).choice(data.train, count, replace=False))
