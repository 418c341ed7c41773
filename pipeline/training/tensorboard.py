"""TensorBoard's events.

Everything is logged at the number of steps done. Metrics of train and validation have one tag and two
writers, in `events/train` and `events/validation`, so that TensorBoard draws both in one chart.
"""

import math
import sys
import threading
from dataclasses import asdict

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from pipeline.runs import Run
from pipeline.training.trainer import Callback, EpochResult, StepResult, Trainer


class TensorBoard(Callback):
    """Writes the events of a run. On resume, events after the last step that was flushed are those of a sitting that
    was cut off.

    TensorBoard writes in threads. If the system refuses a write, that is raised here, as OSError, when the next event
    is added, so that the threads themselves print nothing about it.
    """

    def __init__(self, run: Run):
        self.run = run
        self.splits: dict[str, SummaryWriter] = {}

    def add_picture(self, tag: str, picture: np.ndarray, step: int, *, split: str | None = None):
        """Shows a (H, W, 3) uint8 picture, under a split if one is named."""
        (self.splits[split] if split else self._steps).add_image(tag, picture, step, dataformats="HWC")

    def begin(self, trainer: Trainer):
        self._excepthook, threading.excepthook = threading.excepthook, self._say_in_thread
        # TensorBoard drops events at the step `purge_step` or later.
        try:
            self._steps, *splits = (
                SummaryWriter(str(folder), purge_step=trainer.num_flushed + 1)
                for folder in (self.run.events, self.run.events / "train", self.run.events / "validation")
            )
        except OSError:
            threading.excepthook = self._excepthook
            raise
        self.splits = dict(zip(("train", "validation"), splits, strict=True))
        self._timed_from = trainer.phases.seconds["waiting for photos"], trainer.state.minutes

    def after_flush(self, trainer: Trainer, measured: list[StepResult]):
        for step, loss, smoothed_loss, rate, gradient_norm in measured:
            self._steps.add_scalar("step/loss", loss, step)
            self._steps.add_scalar("step/smoothed_loss", smoothed_loss, step)
            self._steps.add_scalar("step/learning_rate", rate, step)
            if math.isfinite(gradient_norm):  # in fp16 it may not be
                self._steps.add_scalar("step/gradient_norm", gradient_norm, step)
        if measured:
            weights = torch.nn.utils.get_total_norm([weight.detach() for weight in trainer.network.parameters()])
            self._steps.add_scalar("step/weight_norm", weights.item(), trainer.state.step)
            self._steps.add_scalar("step/waiting_for_photos", self._share_of_waiting(trainer), trainer.state.step)

    def after_epoch(self, trainer: Trainer, result: EpochResult):
        for split, scores in (("train", result.train), ("validation", result.validation)):
            for name, value in asdict(scores).items():
                self.splits[split].add_scalar(f"epoch/{name}", value, trainer.state.step)
        for writer in (self._steps, *self.splits.values()):
            writer.flush()
        self._share_of_waiting(trainer)  # the next one begins after validation

    def _share_of_waiting(self, trainer):
        """The share of the time since the last call in which no batch was ready."""
        seconds, minutes = self._timed_from
        self._timed_from = trainer.phases.seconds["waiting for photos"], trainer.sitting.minutes
        return (self._timed_from[0] - seconds) / max(60 * (self._timed_from[1] - minutes), 1e-9)

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
