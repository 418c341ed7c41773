"""The pack: a table and its photos, decoded once, fitted into a square and memory-mapped.

    images.u8    N x S x S x 3 bytes     the fitted photos, RGB; the network is shown a ROI of them
    images.jpg and ends.npy              in place of these, the same as JPEGs, and (N,) int64 where each ends
    fits.npy     (N, 3, 3) float64       photo pixel -> pixel of the square
    values.npy   (N, K, 2) float32       the points in pixels of the photos; for a test (N, L) int32 asked indices
    hashes.npy   (N, 32) uint8           perceptual hashes, by which near-duplicates are found
    names.npy    (N,) bytes              UTF-8
    pack.json                            what was left out, and a fingerprint of the data

A pack lies in the cache folder under a key of its content. It is built under another name and then renamed, and
whoever needs it while it is built waits for it. `packing.py` makes its images.
"""

import hashlib
import json
import math
import re
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel

from augment import RegionOfInterest, fit_box
from augment.fit import Box
from pipeline.blocks import blocks
from pipeline.data.boxes import Boxes
from pipeline.data.cache import claimed, known_key, origin_of, remove, watch
from pipeline.data.contest import Table
from pipeline.data.leftovers import BUILDING, note_origin, remove_leftovers, remove_unfinished
from pipeline.data.packing import IMAGES, PROGRESS, QUALITY, Fitting, choose_kind, pack_photos
from pipeline.data.squares import JpegSquares
from pipeline.errors import Faults
from pipeline.files import may_write, sync, write_text

FORMAT = 3  # of the files above; part of the key
ARRAYS = {"fits": "<f8", "hashes": r"\|u1", "names": r"\|S\d{1,9}", "values": "<[fi]4"}  # and their types
HEADER_BYTES = 128  # of an array that np.save writes
FILES = {*IMAGES.values(), "ends.npy", "pack.json", *(f"{name}.npy" for name in ARRAYS)}
CHECKED = "checked.json"  # the size and time of each of these, when all were found to be sound
HEADER = re.compile(  # as np.save writes it
    rb"\x93NUMPY\x01\x00..\{'descr': '([^']+)', 'fortran_order': False, 'shape': \((\d+),([\d, ]*)\), \} *\n", re.DOTALL
)


class About(BaseModel):
    """What pack.json holds; the fingerprint is a hash of the names, the numbers and the sizes of the photos."""

    fingerprint: str
    left_out: dict[str, str]


@dataclass(frozen=True)
class Pack:
    """An open pack. Its large arrays are memory-mapped: they read no more than what is asked of them.

    squares: (N, S, S, 3) uint8 fitted photos. photo_to_image: (N, 3, 3), pixel of the photo -> pixel of its `roi`.
    """

    folder: Path
    roi: RegionOfInterest

    def __len__(self) -> int:
        return len(self.photo_to_image)

    @cached_property
    def squares(self) -> np.ndarray | JpegSquares:
        if (jpegs := self.folder / IMAGES["jpeg"]).exists():
            return JpegSquares(jpegs, self._array("ends"), self.roi.square)
        return np.memmap(
            self.folder / "images.u8", np.uint8, "r", shape=(len(self), self.roi.square, self.roi.square, 3)
        )

    def shown(self, samples: np.ndarray | slice) -> np.ndarray:
        """What lies in the ROI of the photos at `samples`."""
        return self.roi.cut(self.squares[samples])

    @cached_property
    def photo_to_image(self) -> np.ndarray:
        return self.roi.matrix @ self._array("fits")

    @cached_property
    def values(self) -> np.ndarray:
        return self._array("values")

    @cached_property
    def hashes(self) -> np.ndarray:
        return self._array("hashes")

    @cached_property
    def names(self) -> np.ndarray:
        """(N,) str."""
        return np.char.decode(self._array("names"), "utf-8")

    def checksums(self, names: Sequence[str]) -> dict[str, int]:
        """What tells the points of these photos from others, without photos that are not there or have no points."""
        rows = np.flatnonzero(np.isin(self.names, list(names)))
        known = [row for row in rows if not np.isnan(self.values[row]).all()]
        return {str(self.names[row]): zlib.crc32(self.values[row].tobytes()) for row in known}

    @cached_property
    def fingerprint(self) -> str:
        return self._about.fingerprint

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The photos that --skip-bad-photos left out, and what is wrong with each."""
        return self._about.left_out

    @cached_property
    def _about(self):
        return About.model_validate_json((self.folder / "pack.json").read_bytes())

    def _array(self, name):
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


@dataclass(frozen=True)
class Squares:
    """Fitted photos in memory, if they are not a contest's, as a `Pack` has them."""

    squares: np.ndarray
    photo_to_image: np.ndarray
    roi: RegionOfInterest
    names: np.ndarray

    @classmethod
    def of(
        cls, photos: dict[str, np.ndarray], roi: RegionOfInterest, resize: str, boxes: dict[str, Box] | None = None
    ) -> "Squares":
        """Photos by name, and boxes for those of which only a part is shown."""
        shown = boxes or {}
        fitted = [fit_box(photo, shown.get(name), roi.square, resize) for name, photo in photos.items()]
        images, photo_to_image = zip(*fitted, strict=True)
        return cls(np.stack(images), roi.matrix @ np.stack(photo_to_image), roi, np.array(list(photos)))


def open_pack(
    table: Path,
    read_table: Callable[[Path, Faults], Table],
    *,
    cache: Path,
    roi: RegionOfInterest,
    resize: str,
    faults: Faults,
    skip_bad_photos: bool = False,
    limit: int | None = None,
    check_photos: bool = False,
    kind: Literal["auto", "raw", "jpeg"] = "auto",
    boxes: Boxes | None = None,
) -> Pack | None:
    """The pack of `table` and of the folder `images` beside it, built if the cache does not have it. limit: how many of
    its photos `read_table` gives at most, if not all. check_photos: check each photo and all numbers of the pack, and
    not only the times of folders and files. kind: of the images; auto takes the pack that is there, and otherwise raw
    ones if they fit on the disk. boxes: what to show of each photo, if not all.

    Faults of the table, and of the photos unless they are to be skipped, are added to `faults`; the pack is then None.
    Raises UserError if the cache folder cannot be written.
    """
    photos = table.parent / "images"
    if not table.exists() or not photos.is_dir():
        missing, there = (photos, table) if table.exists() else (table, photos)
        faults.add(f"{missing} is missing; a contest's folder has it beside {there.name}")
        return None
    size = roi.square
    some = {"limit": limit, "boxes": boxes and boxes.key}
    settings = (FORMAT, size, resize, *(f"{name} {value}" for name, value in some.items() if value))
    key = known_key(table, *settings, cache=cache, check_photos=check_photos)
    raw = cache / f"{table.parent.name}-{size}px-{resize}-{key}"
    folders = {"raw": raw, "jpeg": raw.with_name(f"{raw.name}-jpeg{QUALITY}")}
    with claimed(raw):
        origin = origin_of(table, *settings)
        known = [one for one in folders if kind in (one, "auto") and folders[one].exists()]
        if not known:
            remove_leftovers(raw.with_name(f"{raw.name}.lock"), origin)
        chosen = known[0] if known else choose_kind(kind, table, raw, size=size, limit=limit)
        folder = folders[chosen]
        if folder.exists() and (check_photos or not _is_as_checked(folder)):
            _check(folder, size)
        if not folder.exists():
            remove_unfinished(other for other in folders.values() if other != folder)
            read, how = partial(read_table, table), Fitting(size, resize, chosen, boxes)
            _build(folder, read, photos, faults, how, origin=origin, skip_bad_photos=skip_bad_photos)
    if not folder.exists():
        return None
    pack = Pack(folder, roi)
    if pack.left_out:
        watch(table, *settings, cache=cache, files=[str(photos / name) for name in pack.left_out])
    if pack.left_out and not skip_bad_photos:
        _add_broken(faults, pack.left_out)
        return None
    return pack


def _check(folder, size):
    """Removes a damaged pack, and says so; a sound one need not be read again until one of its files changes."""
    if damage := _damage(folder, size):
        print(f"{folder} is damaged ({damage}); it is made anew")
        remove(folder)
    elif may_write(folder):
        write_text(folder / CHECKED, json.dumps(_stamps(folder)))


def _is_as_checked(folder):
    try:
        return json.loads((folder / CHECKED).read_bytes()) == _stamps(folder)
    except (OSError, ValueError, RecursionError):
        return False


def _stamps(folder):
    """Size and time of each file of a pack."""
    stats = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.name in FILES}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _build(folder, read_table, photos, faults, how, *, origin, skip_bad_photos):
    """Builds a pack beside `folder` and renames it to that, if there was no fault; it continues what a killed run has
    left.
    """
    building = folder.with_name(folder.name + BUILDING)
    building.mkdir(exist_ok=True)
    try:
        note_origin(building, origin)
        if _fill(building, read_table, photos, faults, how, skip_bad_photos):
            building.rename(folder)
            sync(folder.parent)
    except KeyboardInterrupt:
        raise
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(building, ignore_errors=True)


def _fill(building, read_table, photos, faults, how, skip_bad_photos):
    """Writes the files of a pack, and returns whether there was no fault."""
    sound = len(faults.lines)
    table = read_table(faults)
    records, left_out = pack_photos(building, table.names, photos, how)
    if not skip_bad_photos:
        _add_broken(faults, left_out)
    elif table.names and len(left_out) == len(table.names):
        faults.add(
            f"{photos}: none of {len(left_out):,} photos can be used; the first: {next(iter(left_out.values()))}"
        )
    if len(faults.lines) > sound:
        return False
    kept = np.flatnonzero([name not in left_out for name in table.names])
    names = np.char.encode(np.array([name for name in table.names if name not in left_out]), "utf-8")
    arrays = {"fits": records["fit"], "hashes": records["hash"], "names": names}
    if how.kind == "jpeg":
        arrays["ends"] = records["end"]
    for name, array in arrays.items():
        np.save(building / f"{name}.npy", array)
    arrays["values"] = _save_rows(building / "values.npy", table.values, kept)
    about = About(fingerprint=_fingerprint(arrays), left_out=left_out)
    (building / "pack.json").write_text(about.model_dump_json())
    (building / CHECKED).write_text(json.dumps(_stamps(building)))
    for file in building.iterdir():
        sync(file)
    for name in PROGRESS:
        (building / name).unlink(missing_ok=True)
    return True


def _save_rows(path, array, rows):
    """Writes rows of an array that may itself lie in a file, and returns them from their own file: they are never all
    in memory."""
    shape = (len(rows), *array.shape[1:])
    about = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        for block in blocks(len(rows)):
            file.write(np.ascontiguousarray(array[rows[block]]).tobytes())
    return np.load(path, mmap_mode="r") if shape[0] else np.empty(shape, array.dtype)


def _fingerprint(arrays):
    digest = hashlib.blake2b(digest_size=16)
    for name in ("names", "values", "fits"):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _damage(folder, size):
    """What is wrong with a pack in the cache, in a few words, or None: everything but the pixels and the hashes is
    compared with what was written.
    """
    pack = Pack(folder, RegionOfInterest(size, 0, 0, size))
    try:
        is_raw = not (folder / IMAGES["jpeg"]).exists()
        num_bytes = (folder / IMAGES["raw" if is_raw else "jpeg"]).stat().st_size
        num_photos, rest = divmod(num_bytes, size * size * 3) if is_raw else (_num_ends(folder, num_bytes), 0)
        if rest or not all(_is_array(folder / f"{name}.npy", ARRAYS[name], num_photos) for name in ARRAYS):
            return "its arrays are not as long as each other, or cut"
        arrays = {name: pack._array(name) for name in ARRAYS}
        if arrays["fits"].shape[1:] != (3, 3) or arrays["hashes"].shape[1:] != (32,) or arrays["names"].ndim != 1:
            return "its arrays have other shapes"
        return None if _fingerprint(arrays) == pack.fingerprint else "its fingerprint is another"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except ValueError:
        return "its pack.json cannot be read"


def _num_ends(folder, num_bytes):
    """How many JPEGs a pack has, -1 if their ends are not in order or not those of the file."""
    path = folder / "ends.npy"
    count = (path.stat().st_size - HEADER_BYTES) // 8
    if count < 1 or not _is_array(path, "<i8", count):
        return -1
    ends = np.load(path, mmap_mode="r")
    return count if ends.shape == (count,) and ends[-1] == num_bytes and (np.diff(ends, prepend=0) > 0).all() else -1


def _is_array(path, kind, length):
    """Whether a file is what np.save writes of an array of that type and length; its parser may raise anything."""
    with path.open("rb") as file:
        start = file.read(256)
    if not (header := HEADER.match(start)) or not re.fullmatch(kind, header.group(1).decode("latin-1")):
        return False
    shape = [int(number) for number in (header.group(2) + b"," + header.group(3)).split(b",") if number.strip()]
    num_bytes = np.dtype(header.group(1).decode()).itemsize * math.prod(shape)
    declared = 10 + int.from_bytes(start[8:10], "little")
    return shape[0] == length and declared == header.end() and path.stat().st_size == declared + num_bytes


def _add_broken(faults, left_out):
    for name, line in left_out.items():
        faults.add(line, where=name, kind=line.partition(f"{name} ")[2])
