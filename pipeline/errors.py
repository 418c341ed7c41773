"""Faults of a user: said in one line that names the file, the row or the flag, and the fix. Ours are `assert`."""

import errno
import sys
from collections.abc import Callable

NUM_SHOWN = 10


class UserError(Exception):
    """What the user can mend. The scripts print it as it is and exit with status 2."""


class Faults:
    """Collects every fault of the data, to refuse them all at once."""

    def __init__(self):
        self.lines: list[str] = []

    def add(self, line: str):
        self.lines.append(line)

    def refuse(self):
        """Raises UserError with the count and the first few, if there are any."""
        if self.lines:
            more = len(self.lines) - NUM_SHOWN
            shown = [*self.lines[:NUM_SHOWN], *([f"… and {more:,} more"] if more > 0 else [])]
            count = "1 fault" if len(self.lines) == 1 else f"{len(self.lines):,} faults"
            raise UserError(f"{count} in the data:\n  " + "\n  ".join(shown))


def run_script(main: Callable[[], None]):
    """Runs a script's `main`: a fault of the user is one line on stderr and exit status 2, without a traceback."""
    try:
        main()
    except UserError as error:
        sys.exit(_say(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(_say(f"the disk is full: {error}; free some space, nothing that was finished is lost"))
        if error.filename is None:
            raise
        sys.exit(_say(f"{error.filename}: {error.strerror}; give another path, or make this one usable"))


def _say(message):
    print(f"error: {message}", file=sys.stderr)
    return 2
