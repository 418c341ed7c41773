"""How this process was started: alone, or by torchrun, which says so in the environment, as one of several that train
or predict together."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from pipeline.errors import UserError

NO_ID = "none"  # what torchrun calls a job that was given no --rdzv-id


@dataclass(frozen=True)
class Launch:
    """rank: the number of this process among `num_ranks`; 0 is the main one. local_rank, num_local: the same among
    those of its machine. job: what torchrun calls all of them, also when it has started them anew; None where it calls
    them nothing.
    """

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local: int = 1
    job: str | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def read_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """What the environment says. Raises UserError where it contradicts itself."""
    found = os.environ if environment is None else environment
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= found.keys():
        return Launch()
    try:
        rank, count = int(found["RANK"]), int(found["WORLD_SIZE"])
        local, num_local = int(found.get("LOCAL_RANK", rank)), int(found.get("LOCAL_WORLD_SIZE", count))
    except ValueError as error:
        raise UserError(
            f"RANK, WORLD_SIZE or LOCAL_RANK in the environment is no number: {error}; unset them"
        ) from error
    if not (0 <= rank < count and 0 <= local < num_local):
        raise UserError(
            f"RANK {rank} of WORLD_SIZE {count} in the environment makes no sense; use torchrun, or unset both"
        )
    return Launch(rank, count, local, num_local, _job(found))


def _job(found):
    """Without --rdzv-id it is the torchrun that has started this process, on the one machine that there is then."""
    name = found.get("TORCHELASTIC_RUN_ID")
    if name != NO_ID:
        return name
    agent = os.getppid()
    try:
        return f"torchrun-{agent}-{psutil.Process(agent).create_time():.2f}"
    except psutil.Error:
        return None
