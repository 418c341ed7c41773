"""Makes a contest's folder from labels in another format: `python -m tools.convert FORMAT SOURCE OUT`.

OUT gets train/ and test/ in the layout that `hack_train.py` and `predict.py` read; `source.json`, which
`tools.convert_back` needs to write predictions in the format of the source; and `flip_indices.json` if the points'
names say left and right. docs/convert.md describes each FORMAT.
"""

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval
from tyro.conf import Positional, arg

from pipeline.cli import parse_flags
from pipeline.data.contest import GROUPS, LANDMARKS, TEST_POINTS
from pipeline.data.cores import map_with_all_cores, num_cores
from pipeline.data.photos import BrokenPhoto
from pipeline.data.rows import FARTHEST
from pipeline.data.split import split_by_groups
from pipeline.errors import Faults, UserError, run_script
from pipeline.files import check_folder, csv_text, sealed, write_text
from pipeline.progress import progress
from tools.cutting import Cut, Piece, write_piece
from tools.formats.instance import Instance, Source
from tools.formats.known import FORMATS

SWAPPED = {"left": "right", "right": "left"}
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Options:
    format: Positional[
        Literal[
            "coco", "pts", "wflw", "kaggle_faces", "cvat", "label_studio", "deeplabcut", "wide", "long"
        ]
    ]  # fmt: skip
    """The format of the source."""
    source: Positional[Path]
    """The file or folder to convert."""
    out: Positional[Path]
    """The folder to write, which must not exist yet."""
    test: Annotated[Path | None, arg(metavar="SOURCE")] = None
    """Another source of the same format, whose photos become the test; their labels, if any, are the truth."""
    test_share: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Without --test, the share of the photos that become the test; groups stay together."""
    photos: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the photos of the source lie; by default where the format expects them."""
    test_photos: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the photos of --test lie; by default --photos."""
    cut: Literal["box", "points", "never"] = "box"
    """What to keep of a photo: the box of the instance, if it has one; the box of its points; or all of it."""
    margin: Annotated[float, Interval(ge=0, le=10)] = 0.25
    """What to keep around a box on each side, as a share of its longer side."""
    hidden: Literal["keep", "missing"] = "keep"
    """Whether to keep points that are labelled but covered, or to count them as missing."""
    skip_bad_photos: bool = False
    """Leave out photos that are missing or broken, and say how many."""


@dataclass(frozen=True)
class Converted:
    """The pieces of one part of a contest that were written, and the corner of each in its photo."""

    pieces: list[Piece]
    corners: list[tuple[int, int]]


def convert(options: Options):
    """Converts the source. Raises UserError if that is impossible; then no folder is left."""
    source = read(options, options.source, options.photos)
    test = read(options, options.test, options.test_photos or options.photos) if options.test else None
    names = source.point_names
    train, asked = parts(source, test, options)
    if unknown := sorted({name for instance in asked for name in instance.points} - set(names)):
        raise UserError(f"{options.test} has points that {options.source} has not, {unknown[0]!r} for one")
    building = options.out.with_name(f".{options.out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        done = write_part(train, building / "train", options)
        write_train(building, done, names, first_pixel=FORMATS[options.format].first_pixel)
        if asked:
            tested = write_part(asked, building / "test", options)
            write_test(building, tested, names, options)
        if partners := partners_by_name(names):
            write_text(building / "flip_indices.json", json.dumps(partners))
        building.rename(options.out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print_what_to_do(options, partners=bool(partners), asked=bool(asked))


def read(options: Options, path: Path, photos: Path | None) -> Source:
    """A source whose covered points are as the options say. Raises UserError for a path that is no such source."""
    if not path.exists():
        raise UserError(f"{path} is not there; give the file or folder that is to be converted")
    source = FORMATS[options.format].read(path, photos)
    check_positions(source, path)
    if options.hidden == "keep":
        return source
    instances = [
        replace(one, points={name: place for name, place in one.points.items() if name not in one.hidden})
        for one in source.instances
    ]
    return replace(source, instances=instances)


def check_positions(source: Source, path: Path):
    """Raises UserError if a point or a box of a source lies where no photo is."""
    for instance in source.instances:
        places = [*instance.points.values(), *((instance.box[:2], instance.box[2:]) if instance.box else ())]
        if places and not (np.abs(places) <= FARTHEST / 2).all():  # in what is cut, points lie elsewhere
            raise UserError(
                f"{path}: {instance.name} has a point or a box that lies in no photo; mend it, or remove it"
            )


def parts(source: Source, test: Source | None, options: Options) -> tuple[list[Instance], list[Instance]]:
    """What to train on and what to predict. Instances without points teach nothing and are left out of the first."""
    labelled = [instance for instance in source.instances if instance.points]
    if len(labelled) < len(source.instances):
        print(f"left out    {len(source.instances) - len(labelled):,} instances of train without any point")
    if not labelled:
        raise UserError(f"{options.source} has no instance with points")
    if test is not None:
        return labelled, test.instances
    numbers = np.unique([group_of(instance) for instance in labelled], return_inverse=True)[1]
    if not options.test_share:
        return labelled, []
    if not numbers.any():
        raise UserError(
            f"{options.source}: all is of one group, such as one video, which is not cut into train and test; give "
            "--test SOURCE, or --test-share 0"
        )
    held_out = split_by_groups(numbers, share=options.test_share, seed=0)
    chosen = [[one for one, out in zip(labelled, held_out, strict=True) if out == which] for which in (False, True)]
    return chosen[0], chosen[1]


def group_of(instance: Instance) -> str:
    """What belongs together: the group of the format, or everything on one photo."""
    return f"group {instance.group}" if instance.group else instance.name


def write_part(instances: list[Instance], folder: Path, options: Options) -> Converted:
    """Writes the photo of each instance into the folder's images. Raises UserError with all photos that are broken."""
    pieces = list(named(instances, Cut(options.cut, options.margin)))
    whole = sum(piece.box is None for piece in pieces)
    if whole and (whole < len(pieces) or (options.cut == "box" and any(piece.instance.box for piece in pieces))):
        print(f"not cut     {whole:,} photos of {folder.name}, whose box is missing or has no width and height")
    faults, kept, corners = Faults(), [], []
    images = folder / "images"
    images.mkdir(parents=True)
    written = map_with_all_cores(lambda piece: write_piece(piece, images), pieces, ahead=16 * num_cores())
    with progress(len(pieces), f"writing {folder.name}", unit="photo") as bar:
        for piece, result in zip(pieces, written, strict=True):
            bar.update()
            if isinstance(result, BrokenPhoto):
                faults.add(str(result), where=piece.instance.name, kind=str(result).replace(piece.instance.name, ""))
            else:
                kept.append(piece)
                corners.append(result)
    if faults.lines and options.skip_bad_photos and kept:
        print(f"left out    {len(faults.lines):,} photos of {folder.name} that are missing or broken")
    else:
        faults.refuse()
    return Converted(kept, corners)


def named(instances: list[Instance], cut: Cut) -> Iterator[Piece]:
    """Each instance with a name of its own, a plain path below a folder, and the box to cut it by.

    Raises UserError if several are on one photo and nothing tells them apart.
    """
    counts = Counter(instance.name for instance in instances)
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    for instance in instances:
        path = Path(instance.name)
        if CONTROL.search(instance.name) or not path.name:
            raise UserError(f"{instance.name!r} is no name of a photo; rename it")
        if not is_utf8(instance.name):
            raise UserError(f"{instance.name!r} is not in UTF-8, as the tables are; rename it")
        if path.is_absolute() or ".." in path.parts:
            path = Path(path.name)
        box = cut.box_of(instance)
        if box is not None:
            path = path.with_name(f"{path.stem}_{seen[instance.name]}.jpg")
        elif counts[instance.name] > 1:
            raise UserError(
                f"{counts[instance.name]} instances are on {instance.name}, and the box of one of them is missing or "
                f"has no width and height; {'leave it out' if cut.by == 'points' else '--cut points needs none'}"
            )
        seen[instance.name] += 1
        yield Piece(unused_name(path, taken), instance, box)


def is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def unused_name(path: Path, taken: set[str]) -> str:
    """A name that is not taken yet; it is taken from now on."""
    others = (path.with_name(f"{path.stem}-{again}{path.suffix}") for again in count(2))
    name = next(str(one) for one in chain((path,), others) if str(one) not in taken)
    taken.add(name)
    return name


def places(converted: Converted, names: list[str], *, first_pixel: float) -> np.ndarray:
    """(N, K, 2) points in pixels of the photos that were written, NaN where they are missing."""
    points = np.full((len(converted.pieces), len(names), 2), np.nan)
    column_of = {name: column for column, name in enumerate(names)}
    for row, piece in enumerate(converted.pieces):
        for name, place in piece.instance.points.items():
            points[row, column_of[name]] = place
    return points - first_pixel - np.array(converted.corners).reshape(-1, 1, 2)


def write_train(folder: Path, converted: Converted, names: list[str], *, first_pixel: float):
    points = places(converted, names, first_pixel=first_pixel)
    header = ["file_name", *(f"{plain(name)}_{axis}" for name in names for axis in "XY")]
    written = [piece.name for piece in converted.pieces]
    write_table(folder / LANDMARKS, header, ([name, *cells(row)] for name, row in zip(written, points, strict=True)))
    groups = [plain(group_of(piece.instance)) for piece in converted.pieces]
    if len(set(groups)) < len(groups):
        write_table(folder / GROUPS, ["file_name", "group"], zip(written, groups, strict=True))
    print(f"train       {len(points):,} photos of {len(set(groups)):,} groups, {len(names)} points")
    unknown = np.isnan(points).all(axis=2)
    if unknown.any():
        print(f"missing     {unknown.mean():.1%} of the points")


def write_test(folder: Path, converted: Converted, names: list[str], options: Options):
    """Writes the test's table, which asks for all points, the truth if it is known, and what the way back needs."""
    written = [piece.name for piece in converted.pieces]
    asked = json.dumps(list(range(len(names))))
    write_table(folder / TEST_POINTS, ["file_name", "point_index_list"], ([name, asked] for name in written))
    points = places(converted, names, first_pixel=FORMATS[options.format].first_pixel)
    if not np.isnan(points).all():
        header = ["file_name", *(f"Point_M{index}_{axis}" for index in range(len(names)) for axis in "XY")]
        rows = ([name, *cells(row)] for name, row in zip(written, points, strict=True))
        write_text(folder / "test/truth.csv", csv_text([header, *rows]))
    photos = {
        piece.name: {"corner": corner, "name": piece.instance.name, "about": piece.instance.about}
        for piece, corner in zip(converted.pieces, converted.corners, strict=True)
    }
    source = str((options.test or options.source).resolve())
    about = {"format": options.format, "source": source, "point_names": names, "photos": photos}
    write_text(folder / "source.json", sealed(about))
    print(f"test        {len(written):,} photos")


def write_table(path: Path, header: list[str], rows):
    write_text(path, "".join("\t".join(row) + "\n" for row in (header, *rows)))


def cells(points: np.ndarray) -> list[str]:
    """The numbers of a row, empty where a point is missing."""
    return ["" if np.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".") for value in points.ravel().tolist()]


def plain(text: str) -> str:
    """A text without control characters, so that a table can hold it."""
    return CONTROL.sub(" ", text)


def partners_by_name(names: list[str]) -> list[int] | None:
    """The flip indices from names such as left_eye and right_eye; None if some have no partner, or none has."""
    swapped = [re.sub("left|right", lambda found: _cased(found.group()), name, flags=re.IGNORECASE) for name in names]
    if swapped == names or not set(swapped) <= set(names):
        return None
    return [names.index(name) for name in swapped]


def _cased(word):
    other = SWAPPED[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def print_what_to_do(options: Options, *, partners: bool, asked: bool):
    out = shlex.quote(str(options.out))
    flip = f" --flip-indices {shlex.quote(str(options.out / 'flip_indices.json'))}" if partners else ""
    print(f"training    python hack_train.py --name x --data {out}{flip}")
    if asked:
        print(f"way back    python -m tools.convert_back {out} submission.csv FILE")


def main():
    options = parse_flags(Options, __doc__)
    if options.test_photos and not options.test:
        raise UserError("--test-photos: it says where the photos of --test are; give that too, or leave it out")
    check_folder("OUT", options.out)
    if options.out.exists():
        raise UserError(f"OUT {options.out} is there already; give a folder that is not, or remove it")
    convert(options)


if __name__ == "__main__":
    run_script(main)
