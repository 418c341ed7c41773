"""Faults of a user: said in one line that names the file, the row or the flag, and the fix. Ours are `assert`."""

import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable

NUM_SHOWN = 3  # of the faults of a kind
NUM_KINDS = 10
VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")  # what differs between faults of one kind: quotations and numbers
STORAGE_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota of disk space is used up: free some space",
    errno.EFBIG: "a file grew larger than is allowed here: raise the limit (ulimit -f), or write to another disk",
    errno.EIO: "the disk reports an error in reading or writing: see whether it is sound, or use another",
    errno.EROFS: "the disk cannot be written: use another",
}


class UserError(Exception):
    """What the user can mend. The scripts print it as it is and exit with status 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to the refusal of an unknown name: the nearest of those that are known, if there is one."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class Faults:
    """Collects every fault of the data, to refuse them all at once."""

    def __init__(self):
        self.lines: list[str] = []
        self._kinds: dict[str, list[tuple[str, str]]] = {}

    def add(self, line: str, *, where: str = "", kind: str = ""):
        """where: it is, in short. kind: what it has in common with others, if not `line` but for its numbers
        and quotations.
        """
        self.lines.append(line)
        self._kinds.setdefault(VARYING.sub("#", kind or line), []).append((line, where))

    def extend(self, others: "Faults"):
        """Adds faults that were collected elsewhere."""
        self.lines += others.lines
        for kind, faults in others._kinds.items():
            self._kinds.setdefault(kind, []).extend(faults)

    def refuse(self):
        """Raises UserError with the count and a line for each kind of fault, if there are any."""
        if self.lines:
            count = "1 fault" if len(self.lines) == 1 else f"{len(self.lines):,} faults"
            raise UserError(f"{count} in the data:\n  " + "\n  ".join(self._summary()))

    def _summary(self):
        """The first few faults of each kind as they are; of the others of that kind how many, and where."""
        for faults in list(self._kinds.values())[:NUM_KINDS]:
            first, _ = faults[0]
            if len(faults) <= NUM_SHOWN:
                yield from (line for line, _ in faults)
            else:
                others = ", ".join(where for _, where in faults[1 : NUM_SHOWN + 1] if where)
                yield f"{len(faults):,} such as {first}" + (f" (the next: {others})" if others else "")
        if len(self._kinds) > NUM_KINDS:
            yield f"… and faults of {len(self._kinds) - NUM_KINDS:,} more kinds"


def run_script(main: Callable[[], None]):
    """Runs a script's `main`: a fault of the user, or of the system, is one line on stderr and exit status 2, without a
    traceback. A reader of the output that has gone away, such as `head`, ends the script quietly.
    """
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(_print_error(str(error)))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print has nowhere to go
        sys.exit(141)
    except OSError as error:
        sys.exit(_print_error(describe_system_error(error)))


def describe_system_error(error: OSError) -> str:
    """What the system refused, in one line that names the file, where the system does, and what can be done."""
    what = STORAGE_ERRORS.get(error.errno or 0)
    name = error.filename2 or error.filename  # of a file that was to take another's place, the latter
    where = f" ({name})" if name else ""
    if what:
        return f"{what}{where}; nothing that was finished is lost"
    if name:
        return f"{name}: {error.strerror}; give another path, or make this one usable"
    return f"the system reports: {error.strerror or error}; nothing that was finished is lost"


def _print_error(message):
    print(f"error: {message}", file=sys.stderr)
    return 2
