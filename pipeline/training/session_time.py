"""`--session-minutes`: how long a training may take, so that the submission is written before the session ends.

Hosted sessions end after a certain number of hours, and what is not written by then is lost. They begin with packing
and end with a prediction, neither of which `--minutes` counts: it is the length of the training alone, on which
schedules, recipes and comparisons rely.
"""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from augment import fit_photo
from pipeline.data.contest import LANDMARKS, find_contest
from pipeline.data.cores import num_cores
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.errors import UserError
from pipeline.inference.held_out import MAX_FITTED
from pipeline.inference.locator import MOST_LOOKS
from pipeline.inference.measured import MAX_MEASURED
from pipeline.inference.tta import parse_views
from pipeline.launch import read_launch
from pipeline.runs import Run
from pipeline.training.trainer import Trainer

STARTING = 45.0  # seconds that predict.py is given to start, to draw and to write
PACKING = 500.0  # photos a second, where none is there to measure it
FITTING = 2e-6  # seconds for each point of a photo through a view, at the most, to fit weights to
MARGIN = 1.25  # of the time that packing and the prediction should take at the speeds that were measured
NUM_MEASURED = 256  # photos
NUM_PACKED = 16  # photos


@dataclass(frozen=True)
class SessionTime:
    """Seconds. gone: since the command was started. prediction: set aside for the last validation and predict.py."""

    session: float
    gone: float
    prediction: float

    @property
    def training(self) -> float:
        return self.session - self.gone - self.prediction


def plan_session(trainer: Trainer, *, locator: Run | None = None, gone: float | None = None) -> float:
    """The minutes of the whole training, of all its sittings, with which this session ends in time; prints their parts.

    locator: the run that finds where to look. gone: seconds since the command was started. Raises UserError if nothing
    is left to train.
    """
    recipe = trainer.recipe
    assert recipe.running.session_minutes
    views = parse_views(
        recipe.prediction.views,
        size=recipe.photos.size,
        mirroring=trainer.data.flip_indices is not None,
        source="views",
    )
    speeds = measured_speed(trainer), packing_speed(trainer)  # predict.py may be one process
    speed, packed = trainer.runtime.ranks.broadcast_numbers(*speeds)
    prediction = prediction_seconds(trainer, speed=speed, packed=packed, num_views=len(views), locator=locator)
    gone = time.time() - begun_at() if gone is None else gone
    (gone,) = trainer.runtime.ranks.broadcast_numbers(gone)
    plan = SessionTime(60 * recipe.running.session_minutes, gone, prediction)
    if plan.training <= 0:
        raise UserError(
            f"--session-minutes {recipe.running.session_minutes:g}: {gone / 60:.1f} are gone and {prediction / 60:.1f}"
            f" are kept for the prediction; give more than {math.ceil((gone + prediction) / 60)}, or fewer --views"
        )
    trainer.runtime.print(
        f"session      {plan.session / 60:.1f} minutes: {gone / 60:.1f} are gone, {plan.training / 60:.1f} to train,"
        f" {prediction / 60:.1f} kept for the last validation and predict.py ({len(views)} views, {speed:.0f} img/s)"
    )
    return trainer.state.minutes + plan.training / 60


def begun_at() -> float:
    """The start of this process, or under torchrun that of torchrun, which may have restarted it."""
    process = psutil.Process()
    if read_launch().job is not None:
        process = process.parent() or process
    return process.create_time()


def prediction_seconds(
    trainer: Trainer, *, speed: float, packed: float, num_views: int, locator: Run | None = None
) -> float:
    """The time of the last validation, of the report, and of predict.py after them: it predicts its views of the test
    photos, and of some of the held-out photos, to which it fits the weights of the views. If only a part of each photo
    is shown, it packs those of the test first, after a locator, if there is one, has seen them.

    speed, packed: photos a second that the network predicts, and that are packed.
    """
    data = trainer.data
    num_test = len(data.test) if data.test else 0
    num_fitted = min(len(data.validation), MAX_FITTED)
    num_images = len(data.validation) + len(trainer.train_sample) + num_views * (num_test + num_fitted)
    num_images += 2 * min(len(data.validation), MAX_MEASURED)  # as they are and mirrored
    packing = MARGIN * num_test / packed if data.boxes else 0.0
    fitting = FITTING * num_views * num_fitted * data.num_points
    if locator:
        share = (locator.recipe().photos.size / trainer.recipe.photos.size) ** 2  # of the work for an image
        num_images += math.ceil(MOST_LOOKS * share * num_test)
    return STARTING + packing + fitting + MARGIN * num_images / speed


def measured_speed(trainer: Trainer) -> float:
    """Images per second that the network predicts, for validation photos at their final size."""
    samples = trainer.data.validation[:NUM_MEASURED]
    size = trainer.recipe.photos.size
    trainer.predict(samples[:2], image_size=size)  # the first call chooses algorithms
    begun = time.perf_counter()
    trainer.predict(samples, image_size=size)
    return len(samples) / (time.perf_counter() - begun)


def packing_speed(trainer: Trainer) -> float:
    """Photos per second that all cores decode and fit, measured on some of the training photos on one."""
    pack, num_read = trainer.data.pack, 0
    begun = time.perf_counter()
    with suppress(UserError, BrokenPhoto, OSError):  # they may be gone after packing
        photos = find_contest(trainer.recipe.run.data) / Path(LANDMARKS).parent / "images"
        for name in pack.names[:: 1 + len(pack) // NUM_PACKED]:
            fit_photo(read_photo(photos / name), pack.roi.square, trainer.recipe.photos.resize)
            num_read += 1
    return num_cores() * num_read / (time.perf_counter() - begun) if num_read else PACKING
