"""Writes predictions in the format, and in the photos' coordinates, that a contest's folder was converted from:
`python -m tools.convert_back PATH submission.csv OUT`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder, unsealed
from pipeline.inference.submission import read_submission
from tools.formats.instance import Answer
from tools.formats.known import FORMATS


@dataclass(frozen=True)
class Options:
    contest: Positional[Path]
    """The folder that tools.convert wrote."""
    submission: Positional[Path]
    """The predictions for its test photos."""
    out: Positional[Path]
    """What to write: a file, or with the format pts a folder. It must not exist yet."""


@dataclass(frozen=True)
class Photo:
    """corner: where it was cut from the photo `name` of the source. about: what the format kept of it."""

    corner: tuple[int, int]
    name: str
    about: Any


@dataclass(frozen=True)
class About:
    """What source.json holds."""

    format: str
    source: Path
    point_names: list[str]
    photos: dict[str, Photo]


def convert_back(contest: Path, submission: Path, out: Path) -> int:
    """Writes the answer, and returns the number of predictions in it.

    Raises UserError for a submission of other photos or points.
    """
    path = contest / "source.json"
    if not path.exists():
        raise UserError(f"{path} is not there; give the folder that tools.convert wrote, with a test in it")
    about = unsealed(path, About)
    if about.format not in FORMATS:
        raise UserError(f"{path} is of the format {about.format!r}, which is none of {', '.join(FORMATS)}")
    names, points = read_submission(submission)
    if unknown := [name for name in names if name not in about.photos]:
        raise UserError(f"{submission} has {unknown[0]}, which is not a test photo of {contest}")
    if points.shape[1] != len(about.point_names):
        raise UserError(f"{submission} has {points.shape[1]} points, {contest} asks for {len(about.point_names)}")
    kind = FORMATS[about.format]
    photos = [about.photos[name] for name in names]
    corners = np.array([photo.corner for photo in photos])
    moved = points + corners[:, None] + kind.first_pixel
    answers = [Answer(photo.name, one, photo.about) for photo, one in zip(photos, moved, strict=True)]
    kind.write(about.source, out, answers, about.point_names)
    return len(answers)


def main():
    options = parse_flags(Options, __doc__)
    check_folder("OUT", options.out.parent)
    if options.out.exists():
        raise UserError(f"OUT {options.out} is there already; give another name, or remove it")
    count = convert_back(options.contest, options.submission, options.out)
    print(f"written     {options.out}: {count:,} predictions")


if __name__ == "__main__":
    run_script(main)
