"""What an interrupted packing has left that none can continue, because the table or a photo has changed since.

A pack that is being made notes its table and settings. One with the same note and another key is of data as they were
before: they would have to become the same again, to the nanosecond of each file's time.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.data.cache import remove
from pipeline.files import write_text

BUILDING = ".building"  # after the name of the folder that a pack is made in
NOTE = "made-of.json"


def note_origin(building: Path, origin: str):
    """Notes in a folder that a pack is made in what it is made of, as `cache.origin_of` gives it."""
    write_text(building / NOTE, origin)


def remove_leftovers(lock: Path, origin: str):
    """Removes unfinished packs of the same origin and another key, except those that are being made.

    lock: of the pack that is to be made now, which this process holds; all others lie beside it. Those of earlier
    versions, which have no note, stay.
    """
    for building in lock.parent.glob(f"*{BUILDING}"):
        other = lock.with_name(f"{building.name.removesuffix(BUILDING).partition('-jpeg')[0]}.lock")
        if other != lock and _origin(building) == origin:
            with suppress(Timeout), FileLock(other, timeout=0):
                remove(building)
                print(f"{building} is removed: it was left by a packing of data that have changed since")


def remove_unfinished(folders: Iterable[Path]):
    """Removes what an interrupted packing has left of these packs, which are now made in another way."""
    for folder in folders:
        remove(folder.with_name(folder.name + BUILDING))


def _origin(building):
    try:
        return (building / NOTE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
