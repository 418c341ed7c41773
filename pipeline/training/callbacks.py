"""What happens after an epoch and between steps, in this order: the best weights, the table, the checkpoint,
TensorBoard, a line on the console, pictures of the worst photos, and the progress bar.

Everything is logged at the number of steps that were done. Metrics of train and validation have one tag and two
writers, in `events/train` and `events/validation`, so that TensorBoard draws both in one chart.
"""

import math
import sys
import threading
from dataclasses import asdict

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from pipeline.checkpoint import save_checkpoint
from pipeline.data.drawing import gallery, write_picture
from pipeline.metrics import photo_errors
from pipeline.progress import format_seconds, training_progress
from pipeline.runs import Run
from pipeline.training.trainer import Callback, EpochResult, StepResult, Trainer

NUM_WORST = 8
NUM_TIMES = 20  # how often in a training the worst photos are drawn


def default_callbacks(run: Run) -> list[Callback]:
    """Those of every training. The checkpoint holds what those before it have done."""
    board = TensorBoard(run)
    before = [BestWeights(run), BestEpochs(run), MetricsTable(run)]
    return [*before, Checkpoint(run), board, EpochLine(), WorstPhotos(run, board), Bar()]


class BestWeights(Callback):
    """Keeps the averaged weights of the epoch with the lowest validation MSE, of those that saw the largest images."""

    def __init__(self, run: Run):
        self.run = run

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        state, mse = trainer.state, result.validation.mse
        sizes = [row.get("image_size", 0) for row in state.history]  # earlier versions had one size
        if mse < state.best_mse or sizes[-1] > max(sizes[:-1], default=0):
            state.best_mse = mse
            best = {"network": trainer.average.network.state_dict(), "epoch": result.row["epoch"], "mse": mse}
            save_checkpoint(self.run.best, best)


class BestEpochs(Callback):
    """Keeps the averaged weights of the few best epochs of those that saw the largest images, for tools.average.

    Which these are follows from the table of epochs alone, so that an epoch that is trained once more after a kill
    leaves the same files.
    """

    def __init__(self, run: Run):
        self.run = run

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        count = trainer.recipe.optimiser.keep_best
        if not count:
            return
        largest = max(row.get("image_size", 0) for row in trainer.state.history)
        rows = [row for row in trainer.state.history if row.get("image_size", 0) == largest]
        rows.sort(key=lambda row: (row["validation_mse"], row["epoch"]))
        epochs, now = {row["epoch"] for row in rows[:count]}, result.row["epoch"]
        if now in epochs:
            kept = {"network": trainer.average.network.state_dict(), "epoch": now, "mse": result.validation.mse}
            save_checkpoint(self.run.best_of_epoch(now), kept)
        for epoch, path in self.run.best_epochs().items():
            if epoch not in epochs:
                path.unlink()


class MetricsTable(Callback):
    """Writes the table of all epochs."""

    def __init__(self, run: Run):
        self.run = run

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        self.run.write_metrics(trainer.state.history)


class Checkpoint(Callback):
    """Saves all that a resumed run needs: after each epoch, every so many minutes, and when a signal stops it."""

    def __init__(self, run: Run):
        self.run = run
        self._saved = 0.0  # minutes of the training

    def begin(self, trainer: Trainer):
        self._saved = trainer.state.minutes

    def after_flush(self, trainer: Trainer, measured: list[StepResult]):
        if trainer.state.minutes - self._saved > trainer.recipe.optimiser.checkpoint_minutes:
            self._save(trainer)

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        self._save(trainer)

    def on_stop(self, trainer: Trainer):
        self._save(trainer)

    def _save(self, trainer):
        save_checkpoint(self.run.last, trainer.state_dict())
        self._saved = trainer.state.minutes


class TensorBoard(Callback):
    """Writes the events of a run. On resume, events after the last step that was flushed are those of a sitting that
    was cut off.

    TensorBoard writes in threads. What the system refuses them is raised here, as OSError, when the next event is
    added, so that the threads themselves say nothing of it.
    """

    def __init__(self, run: Run):
        self.run = run
        self.splits: dict[str, SummaryWriter] = {}

    def begin(self, trainer: Trainer):
        self._excepthook, threading.excepthook = threading.excepthook, self._say_in_thread
        # TensorBoard forgets what lies at the step `purge_step` or later.
        try:
            self._steps, *splits = (
                SummaryWriter(str(folder), purge_step=trainer.num_flushed + 1)
                for folder in (self.run.events, self.run.events / "train", self.run.events / "validation")
            )
        except OSError:
            threading.excepthook = self._excepthook
            raise
        self.splits = dict(zip(("train", "validation"), splits, strict=True))

    def after_flush(self, trainer: Trainer, measured: list[StepResult]):
        for step, loss, smoothed_loss, rate, gradient_norm in measured:
            self._steps.add_scalar("step/loss", loss, step)
            self._steps.add_scalar("step/smoothed_loss", smoothed_loss, step)
            self._steps.add_scalar("step/learning_rate", rate, step)
            if math.isfinite(gradient_norm):  # in fp16 it may not be
                self._steps.add_scalar("step/gradient_norm", gradient_norm, step)

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        for split, scores in (("train", result.train), ("validation", result.validation)):
            for name, value in asdict(scores).items():
                self.splits[split].add_scalar(f"epoch/{name}", value, trainer.state.step)
        for writer in (self._steps, *self.splits.values()):
            writer.flush()

    def end(self):
        threading.excepthook = self._excepthook
        ended_by = sys.exception()
        for writer in (self._steps, *self.splits.values()):
            try:
                writer.close()
            except OSError as error:
                ended_by = ended_by or error
        if isinstance(ended_by, OSError) and ended_by is not sys.exception():
            raise ended_by

    def _say_in_thread(self, about):
        if not isinstance(about.exc_value, OSError):
            self._excepthook(about)


class EpochLine(Callback):
    """Prints a line an epoch."""

    def begin(self, trainer: Trainer):
        titles = (
            f"{'epoch':>5} {'minutes':>8} {'img/s':>7} {'loss':>8} {'train MSE':>10} {'valid. MSE':>10} {'NME %':>6}"
        )
        trainer.runtime.print(f"\n{titles}")

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        row, scores = result.row, result.validation
        trainer.runtime.print(
            f"{row['epoch']:5d} {row['minutes']:8.2f} {row['images_per_second']:7.0f} {row['train_loss']:8.4f}"
            f" {row['train_mse']:10.2f} {scores.mse:10.2f} {scores.nme:6.2f}"
        )


class WorstPhotos(Callback):
    """Draws the photos that are predicted worst, some twenty times in a training: validation photos, and of the others
    those that were worst when they were last trained on."""

    def __init__(self, run: Run, board: TensorBoard):
        self.run, self.board = run, board

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        if self._due(trainer):
            with trainer.stop.at_once():  # all else is saved
                self.draw(trainer, "validation", trainer.data.validation, result.points)
                errors = trainer.sample_errors[trainer.data.train].nan_to_num(-1)
                worst = trainer.data.train[errors.argsort(descending=True)[:NUM_WORST].numpy()]
                self.draw(trainer, "train", worst, trainer.predict(worst))

    def _due(self, trainer):
        """Whether another twentieth of the training is done than after the epoch before."""
        done = [trainer.progress_at(step=row["step"], minutes=row["minutes"]) for row in trainer.state.history[-2:]]
        return len(done) == 1 or int(done[0] * NUM_TIMES) < int(done[1] * NUM_TIMES)

    def draw(self, trainer: Trainer, split: str, samples: np.ndarray, points: np.ndarray):
        """Draws those of `samples` with the highest mean squared errors, with the truth beside the points."""
        pack = trainer.data.pack
        errors = photo_errors(points, pack.values[samples], pack.names[samples])
        order = errors.argsort()[::-1][:NUM_WORST]
        captions = [f"MSE {errors[i]:.2f} px², RMS {errors[i] ** 0.5:.2f} px" for i in order]
        truth, title = pack.values[samples[order]], f"Worst photos of {split}"
        picture = gallery(pack, samples[order], points[order], truth, title=title, captions=captions)
        self.board.splits[split].add_image("worst", picture, trainer.state.step, dataformats="HWC")
        write_picture(self.run.picture(f"worst_{split}"), picture)


class Bar(Callback):
    """The progress bar, or a line a minute where there is no terminal."""

    def begin(self, trainer: Trainer):
        self._bar = training_progress()
        self._start = trainer.state.minutes, trainer.progress

    def after_step(self, trainer: Trainer):
        state, options = trainer.state, trainer.recipe.optimiser
        minutes, progress = self._start
        speed = trainer.photos_per_second
        left = 60 * (state.minutes - minutes) * (1 - trainer.progress) / max(trainer.progress - progress, 1e-9)
        epoch_left = (trainer.steps_per_epoch - state.batch) * options.batch_size / max(speed, 1e-9)
        parts = [
            f"epoch {state.epoch + 1}" + ("" if options.minutes else f"/{math.ceil(options.epochs)}"),
            f"step {state.step:,}",
            f"{speed:.0f} img/s",
            f"loss {state.smoothed_loss:.3f}",
            f"best MSE {state.best_mse:.2f}",
            f"{format_seconds(left)} left",
            f"epoch {format_seconds(min(left, epoch_left))}",
        ]
        self._bar.set_postfix_str(", ".join(part for part in parts if "nan" not in part and "inf" not in part), False)
        self._bar.update(trainer.progress - self._bar.n)

    def end(self):
        self._bar.close()
