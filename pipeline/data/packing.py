"""Packing: photos decoded by all cores, fitted, and appended to the files of a pack in the table's order.

An interrupted packing continues where it was. What it has written is trusted up to its last note, which is written once
the files are on the disk, and only if it is of the same names; that the photos are the same follows from the name of
the pack's folder.

    images.u8 or images.jpg    the squares so far
    records                    of each good photo its matrix, its hash and where its image ends
    so-far.json                how far these go
"""

import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from augment import fit_box
from pipeline.blocks import blocks
from pipeline.data.boxes import Boxes
from pipeline.data.cache import remove
from pipeline.data.cores import map_with_all_cores, num_cores
from pipeline.data.kept import key_of
from pipeline.data.leftovers import BUILDING, NOTE
from pipeline.data.photos import BrokenPhoto, difference_hash, read_photo
from pipeline.errors import UserError
from pipeline.files import parse_json, write_text
from pipeline.progress import progress

BLOCK = 32  # photos given to a thread at a time
MOST_AHEAD = 2**30  # bytes of squares that wait to be written, if that is enough for all cores
PROGRESS = ("records", "so-far.json", NOTE)  # files of a pack that is being made
EVERY = 20.0  # seconds between two notes of its progress
RECORD = np.dtype([("fit", "<f8", (3, 3)), ("hash", "u1", (32,)), ("end", "<i8")])
IMAGES = {"raw": "images.u8", "jpeg": "images.jpg"}
BYTES = {"raw": 3.0, "jpeg": 1.0}  # per pixel; for most JPEGs it is about half of that
BESIDE = 256  # bytes of a photo's name, matrix, hash and record
# Of the JPEGs: what they do to a network's points is in benchmarks/results/packing_cpu.json.
QUALITY = 95
FLAGS = (cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@dataclass(frozen=True)
class SoFar:
    """How far a packing has come: rows of the table, bytes of images, and the photos that could not be read."""

    names: str
    rows: int = 0
    num_bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def num_good(self) -> int:
        return self.rows - len(self.left_out)


@dataclass(frozen=True)
class Fitting:
    """How photos become squares: of which side, letterboxed or cropped, raw or as JPEGs, and what of each is shown."""

    size: int
    resize: str
    kind: str
    boxes: Boxes | None = None


def pack_photos(folder: Path, names: list[str], photos: Path, how: Fitting) -> tuple[np.ndarray, dict[str, str]]:
    """Writes the images of a pack into `folder`, which may already hold a part of them.

    Returns a (N,) record of each good photo, and what is wrong with the others, by name.
    """
    so_far = _resume(folder, names, how.kind)
    read = partial(_read_block, photos=photos, how=how)
    rest = names[so_far.rows :]
    left = [rest[block] for block in blocks(len(rest), BLOCK)]
    ahead = max(num_cores(), min(4 * num_cores(), MOST_AHEAD // (BLOCK * 3 * how.size**2)))
    with (
        (folder / IMAGES[how.kind]).open("r+b") as images,
        (folder / "records").open("r+b") as records,
        progress(len(names), f"packing {photos}", unit="photo") as bar,
    ):
        bar.update(so_far.rows)
        images.seek(so_far.num_bytes)
        records.seek(so_far.num_good * RECORD.itemsize)
        noted = time.monotonic()
        try:
            for block, found in zip(left, map_with_all_cores(read, left, ahead=ahead), strict=True):
                so_far = _append(block, found, so_far, images, records)  # at once, whenever a signal comes
                bar.update(len(block))
                if time.monotonic() - noted > EVERY:
                    _note(folder, so_far, images, records)
                    noted = time.monotonic()
        except KeyboardInterrupt:
            _note(folder, so_far, images, records)
            raise
        _note(folder, so_far, images, records)  # what follows may be interrupted, too
    return np.fromfile(folder / "records", RECORD), so_far.left_out


def _read_block(names, photos, how):
    """For each photo its image as bytes, its matrix and its hash, or why there is none."""
    found: list[BrokenPhoto | tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for name in names:
        try:
            photo = read_photo(photos / name)
            box = how.boxes.square(name) if how.boxes else None
            square, matrix = fit_box(photo, box, how.size, how.resize)
        except BrokenPhoto as error:
            found.append(error)
            continue
        except ValueError as error:  # of its box
            found.append(BrokenPhoto(f"{photos / name} cannot be shown: {error}"))
            continue
        image = encode(square) if how.kind == "jpeg" else np.ascontiguousarray(square)
        found.append((image, matrix, difference_hash(photo)))
    return found


def encode(square: np.ndarray) -> np.ndarray:
    """A (S, S, 3) square as the bytes of a JPEG."""
    return cv2.imencode(".jpg", cv2.cvtColor(square, cv2.COLOR_RGB2BGR), FLAGS)[1]


def _append(names, found, so_far, images, records):
    """Appends a block of photos to the files. Returns how far the packing has come."""
    left_out = {name: str(one) for name, one in zip(names, found, strict=True) if isinstance(one, BrokenPhoto)}
    good = [one for one in found if not isinstance(one, BrokenPhoto)]
    rows = np.empty(len(good), RECORD)
    if good:
        encoded, rows["fit"], rows["hash"] = zip(*good, strict=True)
        rows["end"] = so_far.num_bytes + np.cumsum([image.nbytes for image in encoded])
        images.write(b"".join(encoded))  # one call takes half the time of one for each
        records.write(rows.tobytes())
        so_far = replace(so_far, num_bytes=int(rows["end"][-1]))
    return replace(so_far, rows=so_far.rows + len(names), left_out=so_far.left_out | left_out)


def _note(folder, so_far, images, records):
    """Writes down how far the files go, once their content is on the disk."""
    for file in (images, records):
        file.flush()
        os.fsync(file.fileno())
    write_text(folder / "so-far.json", json.dumps(asdict(so_far)))


def _resume(folder, names, kind):
    """How far an earlier packing came, with its files cut to that; from the start if that cannot be trusted."""
    of, (images, records) = key_of("\n".join(names)), (folder / IMAGES[kind], folder / "records")
    so_far = SoFar(of)
    try:
        found = parse_json(folder / "so-far.json", (folder / "so-far.json").read_bytes(), SoFar)
        sizes = images.stat().st_size, records.stat().st_size
        long_enough = sizes[0] >= found.num_bytes and sizes[1] >= found.num_good * RECORD.itemsize
        if found.names == of and long_enough and 0 <= found.num_good <= found.rows <= len(names):
            so_far = found
    except (OSError, UserError):  # there is none, or it is damaged
        pass
    if so_far.rows:
        print(f"packing goes on behind {so_far.rows:,} photos, where it was interrupted")
    else:
        for path in folder.iterdir():
            if path.name != NOTE:
                remove(path)
    for path, length in ((images, so_far.num_bytes), (records, so_far.num_good * RECORD.itemsize)):
        path.touch()
        os.truncate(path, length)
    return so_far


def choose_kind(wanted: str, table: Path, folder: Path, *, size: int, limit: int | None) -> str:
    """Raw or JPEG images for a pack that is to be made beside `folder`: as wanted, or for "auto" what fits on the disk.

    Raises UserError with what is needed and what is free if it does not fit.
    """
    num_rows, num_cells = _estimate_rows(table)
    num_photos = min(num_rows, limit or num_rows)
    numbers = 4 * num_cells * num_rows + (4 * num_cells + BESIDE) * num_photos  # all are read into a file, some copied
    needed = {kind: int(numbers + num_photos * size**2 * BYTES[kind]) for kind in BYTES}
    free = _free_bytes(folder)
    for kind in BYTES if wanted == "auto" else (wanted,):
        if needed[kind] <= free:
            if wanted == "auto" and kind == "jpeg":
                print(f"the cache takes JPEGs: {_amount(free)} are free, and raw photos need {_amount(needed['raw'])}")
            return kind
    smaller = f"; --pack jpeg needs about {_amount(needed['jpeg'])}" if kind == "raw" else ""
    raise UserError(
        f"about {num_photos:,} photos of {size} px need {_amount(needed[kind])} in {folder.parent}, and "
        f"{_amount(free)} are free{smaller}: free some space, or give --cache a folder on another disk"
    )


def _estimate_rows(table):
    """About how many rows a table has, by the length of its first ones, and how many cells follow the name."""
    with table.open("rb") as file:
        header = file.readline()
        start = file.read(1 << 20)
    length = len(start) / max(1, start.count(b"\n"))
    rows = (table.stat().st_size - len(header)) / max(1.0, length)
    return math.ceil(rows), header.count(b"\t")


def _free_bytes(folder):
    """What is free on the disk, and what an interrupted packing already holds of it."""
    buildings = folder.parent.glob(f"{folder.name}*{BUILDING}")  # of either kind: that of the other is removed
    held = sum(path.stat().st_size for building in buildings for path in building.iterdir())
    return shutil.disk_usage(folder.parent).free + held


def _amount(count):
    return f"{count / 1e9:.1f} GB" if count > 1e8 else f"{count / 1e6:.1f} MB"
