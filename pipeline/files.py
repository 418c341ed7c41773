"""Files that are whole or not there: written under a temporary name, synced, then renamed."""

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UserError

Content = TypeVar("Content")
PHOTO_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TABLE_START = b"file_name,"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes the place of `path` at the end, at once and only if nothing failed. Another
    process that does the same at the same time waits for it."""
    temporary = path.with_name(f".{path.name}.partial")  # one name, so that a killed run leaves at most one
    with _opened_alone(temporary) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            if _is_at(temporary, file):  # and not that of another process yet
                temporary.unlink()
            raise


def _opened_alone(path):
    """An empty file to write, which no other process has opened so; where the file system has no locks, any may."""
    while True:
        file = open(path, "wb", opener=_open_uncut)  # noqa: SIM115 - the caller closes it
        try:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(path, file):
                file.truncate(0)
                return file
            file.close()  # whoever had it before has renamed it
        except BaseException:
            file.close()
            raise


def _open_uncut(name, flags):
    return os.open(name, flags & ~os.O_TRUNC, 0o666)


def _is_at(path, file):
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def check_outputs(outputs: dict[str, Path | None], *, inputs: dict[str, Path] | None = None):
    """Refuses at the start, with UserError, tables that could not be written at the end, or that would replace one
    another, an input, or a file that is no table of this project.

    outputs, inputs: by what the message calls them, mostly a flag.
    """
    named = {flag: path for flag, path in outputs.items() if path}
    taken = {os.path.realpath(path): flag for flag, path in (inputs or {}).items()}
    for flag, path in named.items():
        _check_output(flag, path)
        if other := taken.get(os.path.realpath(path)):
            raise UserError(f"{flag} {path} and {other} are one file; give another name")
        taken[os.path.realpath(path)] = flag


def _check_output(flag, path):
    folder = Path(os.path.realpath(path)).parent  # Path.resolve raises where links go round in a circle
    if not folder.is_dir():
        raise UserError(f"{flag} {path}: the folder {path.parent} is not there; make it, or give another path")
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder; give the file that is to be written")
    if not may_write(folder):
        raise UserError(f"{flag} {path}: the folder {path.parent} may not be written; give one of yours")
    if path.exists() and not _is_table(path):
        raise UserError(f"{flag} {path} is there already, and is no submission; give another name")


def _is_table(path):
    """Whether a file is empty or begins as the tables of this project do, and so may be replaced by another."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(len(TABLE_START))
    return start in (b"", TABLE_START)


def check_folder(flag: str, path: Path):
    """Refuses at the start, with UserError, a folder that cannot be made or written later."""
    there = next(parent for parent in (path, *Path(os.path.realpath(path)).parents) if parent.exists())
    if not there.is_dir() or not may_write(there):
        why = "may not be written" if there.is_dir() else "is no folder"
        raise UserError(f"{flag} {path}: {there} {why}; give a folder of yours")


def may_write(folder: Path) -> bool:
    """Whether files can be made in a folder, as far as its permissions tell."""
    return os.access(folder, os.W_OK)


def check_usable(folder: Path):
    """Refuses at the start, with UserError, the folder of a run that is to be resumed and cannot be written."""
    if not may_write(folder):
        raise UserError(f"{folder} may not be written; copy the run to a folder of yours, or make this one writable")


def check_regular(path: Path) -> int:
    """The size in bytes. Raises OSError where there is no file to read: a folder, or a pipe, socket or device, which
    could be waited for without end.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", str(path))
    return found.st_size


def write_text(path: Path, text: str):
    with replacing(path) as file:
        file.write(text.encode())


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """The text of a table of these rows, the header first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def free_name(path: Path) -> Path:
    """Where a file can be kept that another one is to replace: a name with its time."""
    made = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    names = [f"{path.stem}_{made}{again}{path.suffix}" for again in ("", *(f"-{number}" for number in range(2, 100)))]
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises UserError where there is none, or it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # which raise for names that are too long
            raise UserError(f"{path} is not a regular file; put the file itself there")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_text(path: Path, *, said: str, takes: str) -> str:
    """The text of a file that a user gives, without a byte order mark.

    Raises UserError of one line where there is none, or it cannot be read. said: what it calls the file, mostly a flag
    and the path. takes: what the file should be.
    """
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{said}: no such file; it takes {takes}") from error
    except OSError as error:
        raise UserError(f"{said}: {error.strerror}; it takes {takes}") from error
    except ValueError as error:
        raise UserError(f"{said}: not in UTF-8; it takes {takes}") from error


def read_plain(path: Path, *, said: str, takes: str) -> Any:
    """What a user's JSON file holds. Raises UserError as `read_text` does, and where it is no JSON."""
    text = read_text(path, said=said, takes=takes)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for endlessly nested brackets
        raise UserError(f"{said}: not JSON: {error}; it takes {takes}") from error


def parse_json(path: Path, content: bytes, kind: type[Content], *, what: str | None = None) -> Content:
    """The JSON `content` of the file `path` as a value of a type. Raises UserError where it is anything else.

    what: the file should be, if it is not of a run.
    """
    try:
        return TypeAdapter(kind).validate_json(content)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "too deeply nested"}
        found = f"{''.join(f'{part}: ' for part in first['loc'])}{first['msg']}"
        damaged = f"{path} is damaged: {found}; take a copy of it, or another run"
        raise UserError(f"{path} is no {what}: {found}" if what else damaged) from error


def sealed(fields: dict[str, Any]) -> str:
    """Fields as JSON that `unsealed` takes as long as nobody has changed it."""
    return json.dumps({"digest": digest(json.dumps(fields).encode()), **fields}, indent=1)


def unsealed(path: Path, kind: type[Content]) -> Content:
    """What `sealed` made, or what an earlier version wrote without a digest, as a value of a type.

    Raises UserError where it is damaged, or was changed.
    """
    content = read_bytes(path)
    fields = parse_json(path, content, dict[str, Any])
    found = fields.pop("digest", None)
    if found is not None and found != digest(json.dumps(fields).encode()):
        raise UserError(f"{path} was changed since it was written; take a copy of it as it was, or delete it")
    return parse_json(path, content, kind)


def digest(content: bytes) -> str:
    """What tells contents from one another: their SHA-256."""
    return hashlib.sha256(content).hexdigest()


def sync(path: Path):
    """Makes what was written to a file, or renamed in a folder, outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
