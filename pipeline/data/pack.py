"""The pack: a table and its photos, decoded once, fitted into a square and memory-mapped.

    images.u8    N x S x S x 3 bytes     the fitted photos, RGB; the network is shown a ROI of them
    fits.npy     (N, 3, 3) float64       photo pixel -> pixel of the square
    values.npy   (N, K, 2) float32       the points in pixels of the photos; for a test (N, L) int32 asked indices
    hashes.npy   (N, 32) uint8           perceptual hashes, by which near-duplicates are found
    names.npy    (N,) bytes              UTF-8
    pack.json                            what was left out, and a fingerprint of the data

A pack lies in the cache folder under a key of what is in it. It is built under another name and then renamed, and
whoever needs it while it is built waits for it.
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

from augment import RegionOfInterest, fit_box
from augment.fit import Box
from pipeline.data.boxes import Boxes
from pipeline.data.cache import claimed, content_key, remove
from pipeline.data.contest import Table
from pipeline.data.photos import BrokenPhoto, difference_hash, read_photo
from pipeline.errors import Faults
from pipeline.files import sync
from pipeline.progress import progress

FORMAT = 1  # of the files above; part of the key
ARRAYS = {"fits": "<f8", "hashes": r"\|u1", "names": r"\|S\d{1,9}", "values": "<[fi]4"}  # and their types
HEADER = re.compile(  # as np.save writes it
    rb"\x93NUMPY\x01\x00..\{'descr': '([^']+)', 'fortran_order': False, 'shape': \((\d+),([\d, ]*)\), \} *\n", re.DOTALL
)

Item = TypeVar("Item")
Made = TypeVar("Made")


class About(BaseModel):
    """What pack.json holds; the fingerprint is a hash of the names, the numbers and the sizes of the photos."""

    fingerprint: str
    left_out: dict[str, str]


@dataclass(frozen=True)
class Pack:
    """An open pack. Its large arrays are memory-mapped: they read what is asked of them and no more.

    squares: (N, S, S, 3) uint8 fitted photos. fits: (N, 3, 3), pixel of the photo -> pixel of its `roi`.
    """

    folder: Path
    roi: RegionOfInterest

    def __len__(self) -> int:
        return len(self.photo_to_image)

    @cached_property
    def squares(self) -> np.ndarray:
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
    """Fitted photos in memory, where they are no contest's: as a `Pack` has them."""

    squares: np.ndarray
    photo_to_image: np.ndarray
    roi: RegionOfInterest
    names: np.ndarray

    @classmethod
    def of(
        cls, photos: dict[str, np.ndarray], roi: RegionOfInterest, resize: str, boxes: dict[str, Box] | None = None
    ) -> "Squares":
        """Photos by name, and boxes of those of which only a part is shown."""
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
    boxes: Boxes | None = None,
) -> Pack | None:
    """The pack of `table` and of the folder `images` beside it, built if the cache does not have it. limit: how many of
    its photos `read_table` gives at most, where that is not all. boxes: of what of each photo is shown, if not all.

    Faults of the table, and of the photos unless they are to be skipped, are added to `faults`; the pack is None then.
    Raises UserError where the cache folder cannot be written.
    """
    photos = table.parent / "images"
    if not table.exists() or not photos.is_dir():
        faults.add(
            f"{photos if table.exists() else table} is missing; a contest's folder has both it and its neighbour"
        )
        return None
    size = roi.square
    settings = (FORMAT, size, resize, *([limit] if limit else []), *([f"boxes {boxes.key}"] if boxes else []))
    folder = cache / f"{table.parent.name}-{size}px-{resize}-{content_key(table, *settings)}"
    with claimed(folder):
        if folder.exists() and (damage := _damage(folder, size)):
            print(f"{folder} is damaged ({damage}); it is made anew")
            remove(folder)
        if not folder.exists():
            read = partial(_read_fitted, photos=photos, size=size, resize=resize, boxes=boxes)
            _build(folder, partial(read_table, table), photos, read, faults, skip_bad_photos)
    if not folder.exists():
        return None
    pack = Pack(folder, roi)
    if pack.left_out and not skip_bad_photos:
        _add_broken(faults, pack.left_out)
        return None
    return pack


def _build(folder, read_table, photos, read, faults, skip_bad_photos):
    """Builds a pack beside `folder` and renames it to that, if there was no fault."""
    building = folder.with_name(folder.name + ".building")
    remove(building)  # what a killed run has left
    building.mkdir()
    try:
        sound = len(faults.lines)
        table = read_table(faults)
        photo_to_image, hashes, left_out = _write_images(building / "images.u8", table.names, read, f"packing {photos}")
        if not skip_bad_photos:
            _add_broken(faults, left_out)
        elif table.names and len(left_out) == len(table.names):
            faults.add(
                f"{photos}: none of {len(left_out):,} photos can be used; the first: {next(iter(left_out.values()))}"
            )
        if len(faults.lines) > sound:
            return
        kept = [name not in left_out for name in table.names]
        names = np.char.encode(np.array([name for name in table.names if name not in left_out]), "utf-8")
        values = table.values if all(kept) else table.values[kept]
        arrays = {"fits": np.array(photo_to_image), "hashes": np.array(hashes), "names": names, "values": values}
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array)
        about = About(fingerprint=_fingerprint(arrays), left_out=left_out)
        (building / "pack.json").write_text(about.model_dump_json())
        for file in building.iterdir():
            sync(file)
        building.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fingerprint(arrays):
    digest = hashlib.blake2b(digest_size=16)
    for name in ("names", "values", "fits"):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _damage(folder, size):
    """What is wrong with a pack in the cache, in a few words, or None: all but the pixels and the hashes is compared
    with what was written.
    """
    pack = Pack(folder, RegionOfInterest(size, 0, 0, size))
    try:
        num_photos, rest = divmod((folder / "images.u8").stat().st_size, size * size * 3)
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


def _is_array(path, kind, length):
    """Whether a file is what np.save writes of an array of that type and length: its parser raises what it likes."""
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


def _write_images(path, names, read, description):
    """Decodes all photos with all cores. Returns the fits and hashes of those that could be, and why the others not."""
    photo_to_image, hashes, left_out = [], [], {}
    with path.open("wb") as file:
        for name, result in zip(names, map_with_all_cores(read, names, description), strict=True):
            if isinstance(result, BrokenPhoto):
                left_out[name] = str(result)
            else:
                square, matrix, bits = result
                file.write(square)
                photo_to_image.append(matrix)
                hashes.append(bits)
    return photo_to_image, hashes, left_out


def _read_fitted(name, photos, size, resize, boxes):
    try:
        photo = read_photo(photos / name)
        square, matrix = fit_box(photo, boxes.square(name) if boxes else None, size, resize)
    except BrokenPhoto as error:
        return error
    except ValueError as error:  # of its box
        return BrokenPhoto(f"{photos / name} cannot be shown: {error}")
    return np.ascontiguousarray(square), matrix, difference_hash(photo)


def map_with_all_cores(function: Callable[[Item], Made], items: list[Item], description: str) -> Iterator[Made]:
    """Results in order, by threads (OpenCV lets go of the interpreter), a limited number ahead of who takes them."""
    ahead = 1024
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(len(items), description, unit="photo") as bar:
        for start in range(0, len(items), ahead):
            for result in pool.map(function, items[start : start + ahead]):
                yield result
                bar.update()
