"""Files that are whole or not there: written under a temporary name, synced, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes the place of `path` at the end, at once and only if nothing failed."""
    temporary = path.with_name(f".{path.name}.partial")  # one name, so that a killed run leaves at most one
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(flag: str, path: Path | None):
    """Refuses at the start, with UserError, a file that could not be written at the end."""
    if path and not path.resolve().parent.is_dir():
        raise UserError(f"{flag} {path}: the folder {path.parent} is not there")
    if path and path.is_dir():
        raise UserError(f"{flag} {path} is a folder; give the file that is to be written")
    if path and not os.access(path.resolve().parent, os.W_OK):
        raise UserError(f"{flag} {path}: the folder {path.parent} may not be written; give one of yours")


def check_folder(flag: str, path: Path):
    """Refuses at the start, with UserError, a folder that cannot be made or written later."""
    there = next(place for place in (path, *path.resolve().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written" if there.is_dir() else "is no folder"
        raise UserError(f"{flag} {path}: {there} {why}; give a folder of yours")


def write_text(path: Path, text: str):
    with replacing(path) as file:
        file.write(text.encode())


def sync(path: Path):
    """Makes what was written to a file, or renamed in a folder, outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
