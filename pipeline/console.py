"""What the console said, kept in the run's folder."""

import io
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from pipeline.errors import UserError
from pipeline.files import check_regular


class Console(io.TextIOBase):
    """Passes on what is printed, and keeps it, in a file as soon as there is one."""

    def __init__(self, stream):
        self._stream = stream
        self._kept: TextIO = io.StringIO()

    def write(self, text: str) -> int:
        self._kept.write(text)
        return self._stream.write(text)

    def flush(self):
        self._stream.flush()
        self._kept.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def keep_in(self, path: Path):
        """Adds to the file what was printed so far and is kept nowhere, and from now on all that is."""
        if path.exists():
            check_regular(path)
        file = path.open("a", encoding="utf-8", buffering=1)
        before, self._kept = self._kept, file
        if isinstance(before, io.StringIO):
            file.write(before.getvalue())
        before.close()

    def note(self, text: str):
        """Keeps a text that is printed elsewhere."""
        self._kept.write(text)

    def close(self):
        self._kept.close()


@contextmanager
def recorded_console() -> Iterator[Console]:
    """Standard output as a `Console`, to which the error that ends the work is added."""
    with redirect_stdout(Console(sys.stdout)) as console:
        try:
            yield console
        except UserError as error:
            console.note(f"error: {error}\n")
            raise
        except KeyboardInterrupt as error:
            console.note(f"{error or 'interrupted'}\n")
            raise
        except BaseException:
            console.note(traceback.format_exc())
            raise
        finally:
            console.close()
