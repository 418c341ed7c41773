"""What happens after an epoch and between steps, in this order: the best weights, a record of the steps, the table,
the user's own callbacks, the checkpoint, TensorBoard, lines on the console, pictures, and the progress bar.
"""

import math
from collections.abc import Sequence

from pipeline.checkpoint import save_checkpoint
from pipeline.inference.measured import NAME as MEASURED
from pipeline.progress import format_seconds, training_progress
from pipeline.runs import Run
from pipeline.training.pictures import Curves, StepRecord, WorstPhotos
from pipeline.training.tensorboard import TensorBoard
from pipeline.training.trainer import Callback, EpochResult, StepResult, Trainer

NUM_TIMED = 20  # steps, before the time of the training is estimated


def default_callbacks(run: Run, own: Sequence[type[Callback]] = ()) -> list[Callback]:
    """The callbacks of every training, and those of the user's `own` classes. The checkpoint holds what the callbacks
    before it have done."""
    record, board = StepRecord(), TensorBoard(run)
    before: list[Callback] = [BestWeights(run), BestEpochs(run), record, MetricsTable(run)]
    pictures = [WorstPhotos(run, board), Curves(run, board, record)]
    after = [Checkpoint(run), board, EpochLine(), TimeEstimate(), *pictures, Bar()]
    return [*before, *(make(run) for make in own), *after]  # type: ignore[call-arg]


class BestWeights(Callback):
    """Keeps the averaged weights of the epoch with the lowest validation MSE, among those with the largest images."""

    def __init__(self, run: Run):
        self.run = run

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        state, mse = trainer.state, result.validation.mse
        sizes = [row.get("image_size", 0) for row in state.history]  # earlier versions had one size
        largest = max(sizes[:-1], default=0)
        if sizes[-1] > largest or (sizes[-1] == largest and mse < state.best_mse):
            state.best_mse = mse
            (self.run.folder / MEASURED).unlink(missing_ok=True)  # of the weights that were the best
            best = {"network": trainer.average.network.state_dict(), "epoch": result.row["epoch"], "mse": mse}
            save_checkpoint(self.run.best, best)


class BestEpochs(Callback):
    """Keeps the averaged weights of the few best epochs, among those with the largest images, for tools.average.

    Which these are follows from the table of epochs alone, so that an epoch that is trained again after a kill leaves
    the same files.
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
    """Saves all that a resumed run needs: after each epoch, every so many minutes, and when a signal stops the run."""

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


class EpochLine(Callback):
    """Prints a line per epoch."""

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


class TimeEstimate(Callback):
    """Prints once per sitting how long the training takes, after some steps have been timed. The first ones, in which
    algorithms are chosen and caches filled, are not."""

    def begin(self, trainer: Trainer):
        self._warm = self._said = False
        self._steps, self._minutes = 0, 0.0
        self._begun: tuple[int, float] | None = None

    def after_step(self, trainer: Trainer):
        if self._warm and self._begun is None:
            self._begun = trainer.state.step, trainer.state.minutes

    def after_flush(self, trainer: Trainer, measured: list[StepResult]):
        step, minutes = trainer.state.step, trainer.state.minutes
        if self._begun:
            self._steps += step - self._begun[0]
            self._minutes += minutes - self._begun[1]
        self._warm, self._begun = True, (step, minutes)
        if not self._said and self._steps >= NUM_TIMED:
            self._said = True
            trainer.runtime.print(time_line(trainer, per_step=self._minutes / self._steps))

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        self._begun = None  # validation does not count


def time_line(trainer: Trainer, *, per_step: float) -> str:
    """The line about the training that follows from the minutes per step."""
    options, step = trainer.recipe.optimiser, trainer.state.step
    epoch = per_step * trainer.steps_per_epoch
    if options.minutes:
        whole = f"about {(options.minutes - trainer.state.minutes) / epoch:.1f} more in {options.minutes:g} minutes"
    else:
        left = max(0, options.epochs * trainer.steps_per_epoch - step)
        whole = f"{format_seconds(60 * per_step * left)} to the end of epoch {options.epochs:g}"
    size = trainer.image_size(step)
    growing = f"; images have {size} px, and larger ones take longer" if size < trainer.recipe.photos.size else ""
    return f"time         {format_seconds(60 * epoch)} an epoch, {whole}, without validation{growing}"


class Bar(Callback):
    """The progress bar, or a line a minute if there is no terminal."""

    def begin(self, trainer: Trainer):
        self._bar = training_progress()
        self._start = trainer.state.minutes, trainer.progress

    def after_step(self, trainer: Trainer):
        state, options = trainer.state, trainer.recipe.optimiser
        minutes, progress = self._start
        speed = trainer.sitting.photos_per_second
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
