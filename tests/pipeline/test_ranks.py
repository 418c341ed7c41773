"""What ranks exchange, and how they end together."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import ranks as module
from pipeline.errors import UserError
from pipeline.launch import Launch, read_launch
from pipeline.ranks import Ranks, current_ranks
from pipeline.stopping import Stopped
from tests.ranks import free_port, lasting_store, results_of, run_together
from tests.scripts import ROOT

TOTAL = 7


@given(st.integers(1, 9), st.integers(0, 60), st.integers(1, 9))
def test_the_parts_of_all_ranks_are_the_whole_in_order_and_in_whole_blocks(count, total, unit):
    parts = [Ranks(rank, count).part(total, unit=unit) for rank in range(count)]
    assert [i for part in parts for i in range(total)[part]] == list(range(total))
    sizes = [-(-(part.stop - part.start) // unit) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(part.start % unit == 0 or part.start == total for part in parts)


def test_one_process_exchanges_nothing():
    ranks, own = Ranks(), torch.arange(3.0)
    ranks.all_reduce([own])
    assert ranks.gather_rows(own, slice(0, 3), 3) is own
    assert ranks.all_max(1.5, 2) == [1.5, 2]
    assert ranks.broadcast_text(lambda: "ä") == "ä"
    assert ranks.in_turn(lambda: 5) == 5
    assert current_ranks() == ranks
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_no_thread_of_the_exchange_outlives_it(tmp_path):
    """One that lets go of a tensor while the interpreter ends aborts the process."""
    program = """if True:
        import os
        from pathlib import Path
        from pipeline.launch import read_launch
        from pipeline.ranks import connected

        with connected(read_launch()):
            import torch.distributed.nn
            import pipeline.training.command
            names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
            assert "pt_gloo_runloop" in names, names
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        assert "pt_gloo_runloop" not in names, names
    """
    where = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ | where, check=False, stderr=-1)
    assert ended.returncode == 0, ended.stderr.decode()


def exchange(folder):
    ranks = current_ranks()
    module.BUCKET = 10
    tensors = [torch.full((size,), float(10**ranks.rank), dtype=kind) for size, kind in SIZES]
    ranks.all_reduce(tensors)
    rows = ranks.part(TOTAL)
    own = torch.arange(TOTAL * 2.0).view(TOTAL, 2)[rows]
    own[own == 4] = torch.nan
    taken = torch.full((2, 3, 1, 1), float(ranks.rank)).to(memory_format=torch.channels_last)
    ranks.broadcast([taken])
    found = {
        "taken": taken.tolist(),
        "sums": [tensor.tolist() for tensor in tensors],
        "rows": ranks.gather_rows(own, rows, TOTAL).tolist(),
        "flags": ranks.gather_arrays(np.arange(TOTAL)[rows] % 2 == 0, rows, TOTAL),
        "max": ranks.all_max(ranks.rank, -ranks.rank),
        "numbers": ranks.broadcast_numbers(ranks.rank + 0.1),
        "text": ranks.broadcast_text(lambda: "ä" * 3) + ranks.broadcast_text(str),
        "ranks": str(ranks),
    }

    def make():
        was_there = (folder / "made").exists()
        (folder / "made").touch()
        return was_there

    return found | {"was_there": ranks.in_turn(make)}


SIZES = [(3, torch.float32), (8, torch.float32), (2, torch.float64), (25, torch.float32), (1, torch.float32)]


@pytest.mark.slow
def test_what_is_exchanged_is_exact_and_the_same_on_all_ranks(tmp_path):
    first, *others = results_of(3, tmp_path, exchange, tmp_path)
    assert first["sums"] == [[111.0] * size for size, _ in SIZES]
    assert not np.any(first["taken"])
    assert np.nan_to_num(first["rows"], nan=4).tolist() == torch.arange(14.0).view(7, 2).tolist()
    assert np.isnan(first["rows"]).sum() == 1
    assert first["flags"].tolist() == [True, False] * 3 + [True]
    assert first["flags"].dtype == bool
    assert (first["max"], first["numbers"], first["text"]) == ([2, 0], [0.1], "äää")
    assert first["ranks"] == "3 processes"
    assert [found.pop("was_there") for found in (first, *others)] == [False, True, True]
    for other in others:
        assert repr(other) == repr(first)


def fail(how):
    ranks = current_ranks()
    ranks.barrier()
    if ranks.rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"fault": UserError("photo 5 is broken"), "bug": ValueError("a bug"), "stop": Stopped(15)}[how]
    ranks.barrier()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "statuses", "said"),
    [
        ("fault", [1, 2, 1], "error: process 1 of 3: photo 5 is broken\n"),
        ("bug", [1, 1, 1], "ValueError: a bug"),
        ("killed", [None, -signal.SIGKILL, None], "error: .*another process has failed, was killed"),
        ("stop", [None, 128 + signal.SIGTERM, None], "another process"),
    ],
)
def test_a_rank_that_fails_takes_the_others_down_with_one_message(tmp_path, how, statuses, said):
    store = lasting_store()
    found = run_together(3, tmp_path, fail, how, store=store.port)
    for each, expected in zip(found, statuses, strict=True):
        assert each.status == expected or (expected is None and each.status in (1, 2))
    messages = [each.err for each in found if each.err]
    assert len(messages) == 1
    assert messages[0].count("\n") == 1 or how == "bug"
    assert re.search(said, messages[0])


@pytest.mark.slow
def test_what_earlier_processes_have_left_in_the_store_is_not_taken_for_news(tmp_path):
    """torchrun may keep its store for those that it starts anew."""
    store = lasting_store()
    for attempt, how in enumerate(("killed", "fault", "fault")):
        found = run_together(2, tmp_path / str(attempt), fail, how, store=store.port)
        assert [each.status for each in found] == ([2, -signal.SIGKILL] if how == "killed" else [1, 2])
        assert len([each.err for each in found if each.err]) == 1
    assert results_of(2, tmp_path / "last", current_ranks, store=store.port) == [Ranks(0, 2, 0, 2), Ranks(1, 2, 1, 2)]


def say_something():
    print("a word")
    print("another", file=sys.stderr)


@pytest.mark.slow
def test_others_than_the_main_rank_are_silent(tmp_path):
    said = [(each.out, each.err) for each in run_together(2, tmp_path, say_something)]
    assert said == [("a word\n", "another\n"), ("", "")]


def test_the_environment_says_which_process_this_is():
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    where = {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    job = {"TORCHELASTIC_RUN_ID": "x"}
    assert read_launch(told | where | job) == Launch(5, 8, 1, 4, "x")
    assert read_launch(told) == read_launch({}) == Launch()
    for wrong in ({"RANK": "8"}, {"RANK": "one"}, {"LOCAL_RANK": "4"}):
        with pytest.raises(UserError, match="unset"):
            read_launch(told | where | wrong)
    ids = {read_launch(told | where | {"TORCHELASTIC_RUN_ID": "none"}).job for _ in range(2)}
    assert len(ids) == 1
    assert "none" not in ids
