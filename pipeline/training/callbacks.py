"""TensorBoard and pictures of a run: losses by step, metrics by epoch, the photos that are predicted worst.

Everything is logged at the number of steps that were done. Metrics of train and validation have one tag and two
writers, in `events/train` and `events/validation`, so that TensorBoard draws both in one chart.
"""

from dataclasses import asdict

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from pipeline.data.dataset import TrainingData
from pipeline.data.drawing import gallery, write_picture
from pipeline.metrics import Scores
from pipeline.runs import Run


class Report:
    """Writes the events of a run. On resume, events after `step` are those of a sitting that was cut off."""

    NUM_WORST = 8
    NUM_TIMES = 20  # how often in a training the worst photos are drawn

    def __init__(self, run: Run, step: int):
        self.run = run
        # TensorBoard forgets what lies at this step or later.
        self.writer, *splits = (
            SummaryWriter(str(folder), purge_step=step + 1)
            for folder in (run.events, run.events / "train", run.events / "validation")
        )
        self.splits = dict(zip(("train", "validation"), splits, strict=True))
        self._times = -1

    def step(self, step: int, *, loss: float, learning_rate: float):
        self.writer.add_scalar("step/smoothed_loss", loss, step)
        self.writer.add_scalar("step/learning_rate", learning_rate, step)

    def epoch(self, step: int, *, train: Scores, validation: Scores):
        """The scores after `step` steps, measured in the same way on photos of both splits."""
        for split, scores in (("train", train), ("validation", validation)):
            for name, value in asdict(scores).items():
                self.splits[split].add_scalar(f"epoch/{name}", value, step)
        self.flush()

    def flush(self):
        for writer in (self.writer, *self.splits.values()):
            writer.flush()

    def pictures_due(self, share_done: float) -> bool:
        """Whether the worst photos are to be drawn now."""
        before, self._times = self._times, int(share_done * self.NUM_TIMES)
        return self._times > before

    def worst(
        self, split: str, data: TrainingData, samples: np.ndarray, points: np.ndarray, errors: np.ndarray, step: int
    ):
        """Draws those of `samples` that have the highest errors, mean squared ones, with the truth beside them."""
        order = errors.argsort()[::-1][: self.NUM_WORST]
        captions = [f"MSE {errors[i]:.2f} px², RMS {errors[i] ** 0.5:.2f} px" for i in order]
        picture = gallery(
            data.pack,
            samples[order],
            points[order],
            data.pack.values[samples[order]],
            title=f"Worst photos of {split}",
            captions=captions,
        )
        self.splits[split].add_image("worst", picture, step, dataformats="HWC")
        write_picture(self.run.picture(f"worst_{split}"), picture)

    def close(self):
        for writer in (self.writer, *self.splits.values()):
            writer.close()
