"""Pictures of a training: its worst photos, the error of each point, and its curves."""

import time
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint import check_type
from pipeline.data.drawing import gallery, write_picture
from pipeline.metrics import mse_of_photos, point_errors
from pipeline.runs import Run
from pipeline.training.figures import draw_curves, draw_loss_over_rate, draw_point_errors
from pipeline.training.tensorboard import TensorBoard
from pipeline.training.trainer import Callback, EpochResult, StepResult, Trainer

NUM_WORST = 8
NUM_TIMES = 20  # how often in a training the worst photos are drawn
MAX_RECORDED = 2000  # steps that the curves are drawn from
LITTLE = 0.01  # share of an epoch's time that its curves may take
SWEPT = 10.0  # the highest rate over the lowest, from which on the loss over the rate tells something


def is_due(trainer: Trainer) -> bool:
    """Whether another twentieth of the training, or all of it, has been done since the epoch before."""
    done = [trainer.progress_at(step=row["step"], minutes=row["minutes"]) for row in trainer.state.history[-2:]]
    return trainer.is_done or len(done) == 1 or int(done[0] * NUM_TIMES) < int(done[1] * NUM_TIMES)


class WorstPhotos(Callback):
    """Draws the photos that are predicted worst, some twenty times in a training: validation photos, and training
    photos that were worst when they were last trained on."""

    def __init__(self, run: Run, board: TensorBoard):
        self.run, self.board = run, board

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        if is_due(trainer):
            with trainer.stoppable():  # all else is saved
                self.draw(trainer, "validation", trainer.data.validation, result.points)
                errors = trainer.sample_errors[trainer.data.train].nan_to_num(-1)
                worst = trainer.data.train[errors.argsort(descending=True)[:NUM_WORST].numpy()]
                self.draw(trainer, "train", worst, trainer.predict(worst))
                self.draw_point_errors(trainer, result)

    def draw(self, trainer: Trainer, split: str, samples: np.ndarray, points: np.ndarray):
        """Draws those of `samples` with the highest mean squared errors, with the truth beside the points."""
        pack = trainer.data.pack
        errors = mse_of_photos(points, pack.values[samples], pack.names[samples])
        order = errors.argsort()[::-1][:NUM_WORST]
        captions = [f"MSE {errors[i]:.2f} px², RMS {errors[i] ** 0.5:.2f} px" for i in order]
        truth, title = pack.values[samples[order]], f"Worst photos of {split}"
        picture = gallery(pack, samples[order], points[order], truth, title=title, captions=captions)
        self.board.add_picture("worst", picture, trainer.state.step, split=split)
        write_picture(self.run.picture(f"worst_{split}"), picture)

    def draw_point_errors(self, trainer: Trainer, result: EpochResult):
        """Draws how far off each point is in the validation photos, on the mean shape."""
        data = trainer.data
        errors, counts = point_errors(result.points, data.pack.values[data.validation])
        title = f"Error of each point, and of each region, after epoch {result.row['epoch']}"
        picture = draw_point_errors(data.mean_shape, errors, counts, title=title, regions=trainer.regions)
        self.board.add_picture("point_errors", picture, trainer.state.step, split="validation")
        write_picture(self.run.picture("point_errors"), picture)


class StepRecord(Callback):
    """The losses and rates of the steps so far: of all while they are few, then of every second, fourth … step."""

    def __init__(self):
        self.stride = 1
        self._rows: list[tuple[float, ...]] = []

    def after_flush(self, trainer: Trainer, measured: list[StepResult]):
        for result in measured:
            if result.step % self.stride == 0:
                self._rows.append((result.step, result.loss, result.smoothed_loss, result.rate))
            if len(self._rows) > MAX_RECORDED:
                self.stride *= 2
                self._rows = [row for row in self._rows if row[0] % self.stride == 0]

    @property
    def table(self) -> np.ndarray:
        """(N, 4) number, loss, smoothed loss and rate of each step."""
        return np.array(self._rows).reshape(-1, 4)

    def state_dict(self) -> dict[str, Any]:
        return {"stride": self.stride, "rows": torch.from_numpy(self.table)}

    def load_state_dict(self, state: dict[str, Any]):
        """Loads the state; what an earlier version did not keep is empty. Raises one of checkpoint.DAMAGE for anything
        else."""
        if not state:
            return
        check_type(state["rows"], torch.Tensor, "the record of steps")
        check_type(state["stride"], int, "the record's stride")
        if state["rows"].shape[1:] != (4,) or state["stride"] < 1:
            raise ValueError("the record of steps is none")
        self.stride = state["stride"]
        self._rows = [tuple(row) for row in state["rows"].tolist()]


class Curves(Callback):
    """Draws the curves of the loss, the errors and the rate: after each epoch if that takes little of its time, and
    otherwise as often as the worst photos."""

    def __init__(self, run: Run, board: TensorBoard, record: StepRecord):
        self.run, self.board, self.record = run, board, record
        self._took = 0.0  # seconds

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        minutes = [0.0, *(row["minutes"] for row in trainer.state.history[-2:])]
        if is_due(trainer) or self._took < LITTLE * 60 * (minutes[-1] - minutes[-2]):
            with trainer.stoppable():  # all else is saved
                begun = time.perf_counter()
                self.draw(trainer)
                self._took = time.perf_counter() - begun

    def draw(self, trainer: Trainer):
        steps, history = self.record.table, trainer.state.history
        write_picture(self.run.picture("curves"), draw_curves(steps, history, title=self.run.folder.name))
        rates = steps[steps[:, 3] > 0, 3]
        if len(rates) and rates.max() > SWEPT * rates.min():
            self.board.add_picture("loss_over_rate", draw_loss_over_rate(steps), trainer.state.step)
