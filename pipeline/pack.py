"""The pack: a table and its photos, decoded once, fitted into a square and memory-mapped.

    images.u8    N x S x S x 3 bytes     the fitted photos, RGB; the network is shown a window of them
    fits.npy     (N, 3, 3) float64       photo pixel -> pixel of the square
    values.npy   (N, K, 2) float32       the points in pixels of the photos; for a test (N, L) int32 asked indices
    hashes.npy   (N, 32) uint8           perceptual hashes, by which near-duplicates are found
    names.npy    (N,) bytes              UTF-8
    pack.json                            what was left out, and a fingerprint of the data

A pack lies in the cache folder under a key of what is in it. It is built under another name and then renamed, and
whoever needs it while it is built waits for it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from augment import Window, fit_photo
from pipeline.contest import Table
from pipeline.errors import Faults, UserError
from pipeline.files import sync
from pipeline.photos import BrokenPhoto, difference_hash, read_photo

FORMAT = 1  # of the files above; part of the key

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Pack:
    """An open pack. Its large arrays are memory-mapped: they read what is asked of them and no more.

    squares: (N, S, S, 3) uint8 fitted photos. fits: (N, 3, 3), pixel of the photo -> pixel of its `window`.
    """

    folder: Path
    window: Window

    def __len__(self) -> int:
        return len(self.fits)

    @cached_property
    def squares(self) -> np.ndarray:
        return np.memmap(
            self.folder / "images.u8", np.uint8, "r", shape=(len(self), self.window.square, self.window.square, 3)
        )

    def shown(self, samples: np.ndarray | slice) -> np.ndarray:
        """What lies in the window of the photos at `samples`."""
        return self.window.cut(self.squares[samples])

    @cached_property
    def fits(self) -> np.ndarray:
        return self.window.matrix @ self._array("fits")

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
        """A hash of the names, the numbers and the sizes of the photos."""
        return self._about["fingerprint"]

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The photos that --skip-bad-photos left out, and what is wrong with each."""
        return self._about["left_out"]

    @cached_property
    def _about(self):
        return json.loads((self.folder / "pack.json").read_text())

    def _array(self, name):
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


@dataclass(frozen=True)
class Squares:
    """Fitted photos in memory, where they are no contest's: as a `Pack` has them."""

    squares: np.ndarray
    fits: np.ndarray
    window: Window
    names: np.ndarray

    @classmethod
    def of(cls, photos: dict[str, np.ndarray], window: Window, fit: str) -> "Squares":
        """Photos by name."""
        images, fits = zip(*(fit_photo(photo, window.square, fit) for photo in photos.values()), strict=True)
        return cls(np.stack(images), window.matrix @ np.stack(fits), window, np.array(list(photos)))


def open_pack(
    table: Path,
    read_table: Callable[[Path, Faults], Table],
    *,
    cache: Path,
    window: Window,
    fit: str,
    faults: Faults,
    skip_bad_photos: bool = False,
) -> Pack | None:
    """The pack of `table` and of the folder `images` beside it, built if the cache does not have it.

    Faults of the table, and of the photos unless they are to be skipped, are added to `faults`; the pack is None then.
    Raises UserError where the cache folder cannot be written.
    """
    photos = table.parent / "images"
    if not table.exists() or not photos.is_dir():
        faults.add(
            f"{photos if table.exists() else table} is missing; a contest's folder has both it and its neighbour"
        )
        return None
    size = window.square
    folder = cache / f"{table.parent.name}-{size}px-{fit}-{content_key(table, FORMAT, size, fit)}"
    with claimed(folder):
        if not folder.exists():
            _build(folder, partial(read_table, table), photos, size, fit, faults, skip_bad_photos)
    if not folder.exists():
        return None
    pack = Pack(folder, window)
    if pack.left_out and not skip_bad_photos:
        for line in pack.left_out.values():
            faults.add(line)
        return None
    return pack


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keeps other processes from making `path`, which lies in the cache. Raises UserError where nothing can."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"the cache cannot be written: {error}; give --cache a folder of yours") from error
    try:
        yield
    finally:
        lock.release()


def _build(folder, read_table, photos, size, fit, faults, skip_bad_photos):
    """Builds a pack beside `folder` and renames it to that, if there was no fault."""
    building = folder.with_name(folder.name + ".building")
    shutil.rmtree(building, ignore_errors=True)  # what a killed run has left
    building.mkdir()
    try:
        sound = len(faults.lines)
        table = read_table(faults)
        fits, hashes, left_out = _write_images(building / "images.u8", table.names, photos, size, fit)
        if not skip_bad_photos:
            for line in left_out.values():
                faults.add(line)
        elif table.names and len(left_out) == len(table.names):
            faults.add(
                f"{photos}: none of {len(left_out):,} photos can be used; the first: {next(iter(left_out.values()))}"
            )
        if len(faults.lines) > sound:
            return
        kept = [name not in left_out for name in table.names]
        names = np.char.encode(np.array(table.names)[kept], "utf-8")
        values = table.values if all(kept) else table.values[kept]
        arrays = {"fits": np.array(fits), "hashes": np.array(hashes), "names": names, "values": values}
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array)
        digest = hashlib.blake2b(digest_size=16)
        for name in ("names", "values", "fits"):
            digest.update(np.ascontiguousarray(arrays[name]).data)
        about = {"fingerprint": digest.hexdigest(), "left_out": left_out}
        (building / "pack.json").write_text(json.dumps(about))
        for file in building.iterdir():
            sync(file)
        building.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_images(path, names, photos, size, fit):
    """Decodes all photos with all cores. Returns the fits and hashes of those that could be, and why the others not."""
    fits, hashes, left_out = [], [], {}
    read = partial(_read_fitted, photos=photos, size=size, fit=fit)
    with path.open("wb") as file:
        for name, result in zip(names, map_with_all_cores(read, names, f"packing {photos}"), strict=True):
            if isinstance(result, BrokenPhoto):
                left_out[name] = str(result)
            else:
                square, matrix, bits = result
                file.write(square)
                fits.append(matrix)
                hashes.append(bits)
    return fits, hashes, left_out


def _read_fitted(name, photos, size, fit):
    try:
        photo = read_photo(photos / name)
    except BrokenPhoto as error:
        return error
    square, matrix = fit_photo(photo, size, fit)
    return np.ascontiguousarray(square), matrix, difference_hash(photo)


def map_with_all_cores(function: Callable[[Item], Made], items: list[Item], description: str) -> Iterator[Made]:
    """Results in order, by threads (OpenCV lets go of the interpreter), a limited number ahead of who takes them."""
    ahead = 1024
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(items), desc=description, unit="photo") as bar:
        for start in range(0, len(items), ahead):
            for result in pool.map(function, items[start : start + ahead]):
                yield result
                bar.update()


def content_key(table: Path, *settings) -> str:
    """A hash of what is made of a table and its photos by which settings: of the name, size and time of each file."""
    digest = hashlib.blake2b(" ".join(map(str, settings)).encode(), digest_size=8)
    photos = table.parent / "images"
    paths = [os.path.join(folder, file) for folder, _, files in os.walk(photos) for file in files]
    for path in [str(table), *sorted(paths)]:
        stat = os.stat(path)
        digest.update(f"{os.path.relpath(path, table.parent)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
