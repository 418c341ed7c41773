"""A sitting: the time from when a training is begun, or taken up again, until it ends or is stopped."""

import time

from pipeline.training.state import TrainerState


class Sitting:
    """Counts on from the minutes and the photos of earlier sittings, which are kept in the training's state."""

    def __init__(self, state: TrainerState):
        self._state = state
        self._begun = time.perf_counter() - 60 * state.minutes
        self._seen_before = state.seen
        self.begin_epoch()

    def begin_epoch(self):
        """From now on the speed is that of a new epoch."""
        self._epoch_begun = self._state.minutes, self._state.seen

    @property
    def minutes(self) -> float:
        """Minutes of the training over all sittings, by the clock of this rank."""
        return (time.perf_counter() - self._begun) / 60

    @property
    def num_seen(self) -> int:
        """Photos trained on in this sitting, each counted as often as it was."""
        return self._state.seen - self._seen_before

    @property
    def photos_per_second(self) -> float:
        """The speed in this epoch, as far as it was trained in this sitting."""
        minutes, seen = self._epoch_begun
        return (self._state.seen - seen) / max(60 * (self._state.minutes - minutes), 1e-9)
