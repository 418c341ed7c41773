"""The cache: what is made from a table and its photos lies under a key of them, and is made by one process at a time.

The key is made of the name, size and time of each photo. To look at hundreds of thousands of them takes long, so it is
remembered together with the times of the folders that hold them: as long as these, the table and a few photos have the
same times as before, no photo has been added, removed, renamed or replaced, and the key is still the same. Editing a
photo in place changes no folder's time: unless it is one of the few, or one that was left out, only `check_photos`
finds it.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel

from pipeline.errors import UserError
from pipeline.files import check_regular, write_text

NUM_WATCHED = 256  # photos, spread evenly, to notice data that were copied over the old ones
SETTLED = 2.0  # seconds: after a more recent change, a further one may have the same time
NEVER = -1
Stamp = tuple[int, int]  # size, or the system's error; and time in ns


class Known(BaseModel):
    """A key, and the stamps of what it was found from: the table, folders and some of the files."""

    key: str
    folders: dict[str, int]
    files: dict[str, Stamp]


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keeps other processes from making `path`, which lies in the cache. Raises UserError if that is not writable."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise UserError(
                f"{path.parent} has no file locks ({error.strerror}); give --cache a local folder"
            ) from error
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"the cache cannot be written: {error}; give --cache a folder of yours") from error
    try:
        yield
    finally:
        lock.release()


def known_key(table: Path, *settings, cache: Path, check_photos: bool) -> str:
    """`content_key`, as it was found before if nothing seems to have changed since.

    check_photos: look at each photo in any case.
    """
    path = _path_of_known(table, settings, cache)
    if not check_photos and (known := _read(path)) and _is_unchanged(known):
        return known.key
    begun = time.time()
    folders, files = _listed(table)
    key = _key(table, files, settings)
    watched = [str(table), *files[:: 1 + len(files) // NUM_WATCHED]]
    known = Known(key=key, folders=folders, files={file: _stamp(file) for file in watched})
    newest = max([*folders.values(), *(when for _, when in known.files.values())])
    if newest < (begun - SETTLED) * 1e9 and all(file.isprintable() for file in (*known.folders, *watched)):
        with claimed(path):
            if path.is_dir():
                remove(path)
            write_text(path, known.model_dump_json())
    return key


def watch(table: Path, *settings, cache: Path, files: list[str]):
    """Has `known_key` look at some more files of a table's photos, such as broken ones, which may be mended."""
    path = _path_of_known(table, settings, cache)
    with claimed(path):
        known = _read(path)
        new = [file for file in files if known and file.isprintable() and file not in known.files]
        if known and new:
            stamps = {file: _stamp(file) for file in new}
            write_text(path, Known(key=known.key, folders=known.folders, files=stamps | known.files).model_dump_json())


def _path_of_known(table, settings, cache):
    origin = origin_of(table, *settings).encode()
    return cache / f"known-{hashlib.blake2b(origin, digest_size=12).hexdigest()}.json"


def origin_of(table: Path, *settings) -> str:
    """Where something in the cache comes from, as JSON: the table's path and the settings, whatever it holds now."""
    return json.dumps([os.path.realpath(table), *map(str, settings)])


def _read(path):
    try:
        check_regular(path)
        return Known.model_validate_json(path.read_bytes())
    except (OSError, ValueError):  # what is missing or damaged is found anew
        return None


def _is_unchanged(known):
    same = all(_stamp(folder)[1] == when for folder, when in known.folders.items())
    return same and all(_stamp(file) == tuple(stamp) for file, stamp in known.files.items())


def content_key(table: Path, *settings) -> str:
    """A hash of a table, its photos and the settings of what they become: of the name, size and time of each file."""
    return _key(table, _listed(table)[1], settings)


def _key(table, files, settings):
    digest = hashlib.blake2b(" ".join(map(str, settings)).encode(), digest_size=8)
    for path in [str(table), *files]:
        size, when = _stamp(path)
        about = f"{size}\0{when}" if when != NEVER else f"{size}"
        digest.update(f"{os.path.relpath(path, table.parent)}\0{about}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stamp(path) -> Stamp:
    """Size and time of a file; for a broken link the error and no time: whoever reads the photo names it."""
    try:
        stat = os.stat(path)
    except OSError as error:
        return error.errno or 0, NEVER
    return stat.st_size, stat.st_mtime_ns


def _listed(table):
    """The time of each folder below `images`, that one included, and the paths of all files in them, sorted: those in
    linked folders too, each folder once, since links may form a circle.
    """
    seen, folders, paths = set(), {}, []
    for inner, below, files in os.walk(table.parent / "images", followlinks=True):
        stat = os.stat(inner)
        folders[inner] = stat.st_mtime_ns
        if (stat.st_dev, stat.st_ino) in seen:
            below.clear()
        else:
            seen.add((stat.st_dev, stat.st_ino))
            paths += [os.path.join(inner, file) for file in files]
    return folders, sorted(paths)


def remove(path: Path):
    """Removes a folder with all that it holds, or a file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
