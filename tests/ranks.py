"""Several ranks of one computation as processes of their own, connected as torchrun would connect them."""

import os
import pickle
import socket
import sys
import traceback
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed

from pipeline.errors import run_script
from pipeline.together import started_together
from tests.scripts import SCRIPTS, command, few_kinds_of_weights, forked, quick_pictures


class Ended(NamedTuple):
    """How a rank has ended, and what it has returned, or None, and said."""

    status: int
    result: Any
    out: str
    err: str


def run_together(count, folder: Path, function, *arguments, store: int | None = None) -> list[Ended]:
    """`function(*arguments)` on each of so many ranks. store: the port of one that outlives them, as torchrun's does.

    The function lies in a module of the tests, so that the processes find it.
    """
    return _run_all(count, folder, partial(_call, function, arguments), store=store)


def script_together(count, script, folder: Path, *flags) -> list[Ended]:
    """A script in `folder` on each of so many ranks, with pictures as `call` has them."""
    store = lasting_store()
    return _run_all(count, folder / "ranks", partial(_call_script, script, folder, flags), store=store.port)


def results_of(count, folder, function, *arguments, store: int | None = None):
    """What each rank returned, of which none has failed."""
    found = run_together(count, folder, function, *arguments, store=store)
    assert [each.status for each in found] == [0] * count, "\n".join(each.err for each in found)
    return [each.result for each in found]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def lasting_store():
    """One that outlives the ranks, as that of torchrun does."""
    return torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def _run_all(count, folder, main, *, store=None):
    port = store or free_port()
    folder.mkdir(exist_ok=True)
    processes = [
        forked().Process(target=_run, args=(rank, count, (port, bool(store)), folder, main)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
            raise AssertionError("a rank hangs")
    return [
        Ended(process.exitcode, *(_read(folder / f"{rank}.{name}") for name in ("result", "out", "err")))
        for rank, process in enumerate(processes)
    ]


def _read(path):
    if not path.exists():
        return None
    return pickle.loads(path.read_bytes()) if path.suffix == ".result" else path.read_text()


def _run(rank, count, where, folder, main):
    port, outlives = where
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": str(outlives),
    }  # fmt: skip
    out, err = ((folder / f"{rank}.{name}").open("w", buffering=1) for name in ("out", "err"))
    with out, err, redirect_stdout(out), redirect_stderr(err):
        try:
            run_script(partial(main, folder / f"{rank}.result"))
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _call(function, arguments, path):
    with started_together():
        result = function(*arguments)
    path.write_bytes(pickle.dumps(result))


def _call_script(script, folder, flags, path):
    sys.argv = command(script, folder, *flags)[1:]
    with chdir(folder), quick_pictures(), few_kinds_of_weights():
        SCRIPTS[script]()
