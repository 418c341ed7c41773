"""What a job of torchrun trains, so that processes that it restarts go on with it: torchrun gives them the original
command, which would begin another run.

A file in the folder of runs holds the folder that the job has begun, until all of it is trained. Its name is made of
the job and of all its options, so that another command never goes on with it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.command import Command, parse_command
from pipeline.files import digest, write_text
from pipeline.launch import read_launch
from pipeline.ranks import current_ranks
from pipeline.recipe import flatten
from pipeline.recipe_file import RUN_RECIPE


@dataclass(frozen=True)
class Job:
    """path: of the file; None outside a job of torchrun, or if the command names what it goes on with. is_main: whether
    this process writes it."""

    path: Path | None
    is_main: bool = True

    @classmethod
    def of(cls, command: Command) -> "Job":
        launch = read_launch()
        if launch.job is None or command.resume or command.find_lr:
            return cls(None)
        told = json.dumps([launch.job, command.folds, flatten(command.recipe)])
        return cls(command.recipe.run.runs.absolute() / f".job-{digest(told.encode())[:16]}", launch.is_main)

    def begun(self) -> Path | None:
        """The folder that the job has begun and can go on with."""
        if self.path is None or not self.path.is_file():
            return None
        folder = Path(self.path.read_text())
        return folder if (folder / RUN_RECIPE).is_file() else None

    def begin(self, folder: Path):
        """Notes the folder, which can be resumed from now on."""
        if self.path and self.is_main:
            write_text(self.path, str(folder.absolute()))

    def end(self):
        if self.path and self.is_main:
            self.path.unlink(missing_ok=True)


NO_JOB = Job(None)


def taken_up(command: Command, job: Job) -> Command:
    """The command; if torchrun has restarted it, the one that resumes what it has begun."""
    begun = current_ranks().broadcast_text(lambda: str(job.begun() or ""))
    if not begun:
        return command
    print(f"started anew by torchrun, which goes on with {begun}")
    minutes = command.recipe.running.session_minutes  # which are planned anew
    return parse_command(["--resume", begun, *(["--session-minutes", f"{minutes}"] if minutes else [])])
