"""What takes long to find is kept in the cache, under a key of all that it depends on; a damaged file is found anew."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.data.cache import claimed, remove
from pipeline.errors import UserError
from pipeline.files import read_bytes, replacing, sealed, unsealed, write_text

Found = TypeVar("Found", bound=Any)  # a dataclass
SEAL = 16  # bytes of the hash that a file of bytes begins with


def key_of(*parts: str | bytes | np.ndarray) -> str:
    """A hash of texts and arrays, in this order."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(f"{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def kept(path: Path, kind: type[Found], find: Callable[[], Found]) -> Found:
    """What `find` finds, a dataclass of plain values, as JSON in the file `path` of the cache; `find` is called only if
    the file is not there.
    """
    with claimed(path):
        if path.exists():
            try:
                return unsealed(path, kind)
            except UserError:
                _make_room(path)
        found = find()
        write_text(path, sealed(asdict(found)))
        return found


def kept_numbers(path: Path, count: int, find: Callable[[], np.ndarray]) -> np.ndarray:
    """The same for (count,) int32 numbers."""
    content = kept_bytes(path, lambda: find().astype("<i4").tobytes(), length=4 * count)
    return np.frombuffer(content, "<i4").astype(np.int32)


def kept_bytes(path: Path, find: Callable[[], bytes], *, length: int | None = None) -> bytes:
    """The same for bytes, of which there are `length` if that is known."""
    with claimed(path):
        if path.exists():
            try:
                content = read_bytes(path)
            except UserError:  # it is no longer a file
                content = b""
            if _seal(content[SEAL:]) == content[:SEAL] and length in (None, len(content) - SEAL):
                return content[SEAL:]
            _make_room(path)
        found = find()
        with replacing(path) as file:
            file.write(_seal(found))
            file.write(found)
        return found


def _make_room(path):
    print(f"{path} is damaged; what it held is found anew")
    remove(path)


def _seal(content):
    return hashlib.blake2b(content, digest_size=SEAL).digest()
