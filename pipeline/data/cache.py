"""The cache: what is made of a table and its photos lies under a key of them, and is made by one process at a time."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from pipeline.errors import UserError


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


def content_key(table: Path, *settings) -> str:
    """A hash of what is made of a table and its photos by which settings: of the name, size and time of each file."""
    digest = hashlib.blake2b(" ".join(map(str, settings)).encode(), digest_size=8)
    for path in [str(table), *sorted(_files_below(table.parent / "images"))]:
        try:
            stat = os.stat(path)
            about = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError as error:  # a link that leads nowhere; who reads the photo names it
            about = f"{error.errno}"
        digest.update(f"{os.path.relpath(path, table.parent)}\0{about}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files_below(folder):
    """The paths of all files, those in linked folders too, each folder once: links may go round in a circle."""
    seen = set()
    for inner, folders, files in os.walk(folder, followlinks=True):
        stat = os.stat(inner)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
        else:
            seen.add((stat.st_dev, stat.st_ino))
            yield from (os.path.join(inner, file) for file in files)


def remove(path: Path):
    """Removes a folder with all that it holds, or a file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
