"""TensorBoard and pictures of a run: losses by step, metrics by epoch, the photos that are predicted worst."""

from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from pipeline.data import TrainingData
from pipeline.pictures import gallery, write_picture
from pipeline.runs import Run


class Report:
    """Writes the events of a run. On resume, events after `step` are those of a sitting that was cut off."""

    NUM_WORST = 8
    NUM_TIMES = 20  # how often in a training the worst photos are drawn

    def __init__(self, run: Run, step: int):
        self.run = run
        self.writer = SummaryWriter(str(run.events), purge_step=step or None)
        self._times = -1

    def step(self, step: int, *, loss: float, learning_rate: float):
        self.writer.add_scalar("step/smoothed_loss", loss, step)
        self.writer.add_scalar("step/learning_rate", learning_rate, step)

    def epoch(self, row: dict[str, Any]):
        for name, value in row.items():
            split, _, metric = name.partition("_")
            if split in ("train", "validation"):
                self.writer.add_scalar(f"{metric}/{split}", value, row["step"])
        self.writer.flush()

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
        self.writer.add_image(f"worst/{split}", picture, step, dataformats="HWC")
        write_picture(self.run.picture(f"worst_{split}"), picture)

    def close(self):
        self.writer.close()
