"""Walks the steps: runs their commands, keeps what they said, and goes on where it was stopped."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.walkthrough.steps import Step
from pipeline.errors import UserError
from pipeline.files import parse_json, read_bytes, write_text

SHOWN_OF_A_FAULT = 20  # lines
MAX_WIDE = 170  # characters of a line that is quoted
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Walked:
    """What a step did: its commands with the figures in them, processor seconds, and all lines that it said."""

    commands: list[str]
    seconds: float
    said: list[str]


def walk(steps: Sequence[Step], folder: Path) -> dict[str, Walked]:
    """Runs the steps that are not walked yet. From the first that is run on all are, since each stands on others.

    Raises UserError, with the end of what it said, for a step that fails.
    """
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    done: dict[str, Walked] = {}
    figures: dict[str, str] = {}
    anew = False
    for step in steps:
        path = folder / "steps" / f"{step.name}.json"
        commands = [command.format(**figures) for command in step.commands]
        known = None if anew or not path.exists() else parse_json(path, read_bytes(path), Walked)
        if known is None or known.commands != commands:
            anew = True
            path.unlink(missing_ok=True)
            known = run(step, commands)
            write_text(path, json.dumps(asdict(known), indent=1, ensure_ascii=False))
        done[step.name] = known
        figures |= {f"{step.name}_{key}": value for key, value in figures_of(step, known).items()}
    return done


def run(step: Step, commands: list[str]) -> Walked:
    """Runs a step's commands in a shell, as they stand. What an earlier attempt has left is removed."""
    for pattern in step.makes:
        for path in glob.glob(pattern, root_dir=ROOT):
            _remove(ROOT / path)
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said: list[str] = []
    begin = _seconds_of_children()
    for command in commands:
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(
            command,
            shell=True,
            cwd=ROOT,
            env=os.environ | {"PATH": search},
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout, flush=True)
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN_OF_A_FAULT:])
            raise UserError(f"step {step.name}: {command}\n{end}\nMend it, and start the walkthrough again: it goes on")
        said += done.stdout.splitlines()
    return Walked(commands, round(_seconds_of_children() - begin, 1), said)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _seconds_of_children():
    times = os.times()
    return times.children_user + times.children_system


def figures_of(step: Step, walked: Walked) -> dict[str, str]:
    """The figures of a step. Raises UserError for one that it did not say."""
    found = {}
    for name, pattern in step.figures.items():
        matches = [match[1] for line in walked.said if (match := re.search(pattern, line))]
        if not matches:
            raise UserError(f"step {step.name} says no {name}: no line of its output is like {pattern}")
        found[name] = matches[-1]
    return found


def quoted(step: Step, walked: Walked) -> list[str]:
    """The lines of a step's output that the page shows; long ones are cut, and end in an ellipsis."""
    lines = [line.rstrip() for line in walked.said if re.search(step.quotes, line)]
    return [line if len(line) <= MAX_WIDE else f"{line[: MAX_WIDE - 2].rstrip()} …" for line in lines]


def figures(steps: Sequence[Step], done: dict[str, Walked]) -> dict[str, dict]:
    """What is kept of the walk, and all that the page is made of: commands, seconds, quotes and figures by step."""
    return {
        step.name: {
            "commands": done[step.name].commands,
            "processor seconds": done[step.name].seconds,
            "said": quoted(step, done[step.name]),
            **figures_of(step, done[step.name]),
        }
        for step in steps
    }
