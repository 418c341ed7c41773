"""Which processor computes, and what a user is told of it."""

from dataclasses import replace

import psutil
import pytest
import torch

from pipeline.runtime import Runtime, print_busy

CPU = Runtime(torch.device("cpu"), "fp32")


@pytest.mark.parametrize(("busy", "threads", "said"), [(75, 2, True), (75, 1, False), (5, 2, False)])
def test_busy_cores_are_said_where_this_program_would_wait_for_them(busy, threads, said, monkeypatch, capsys):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    print_busy(CPU)
    assert ("OMP_NUM_THREADS=1" in capsys.readouterr().out) == said


def test_only_the_main_rank_prints(capsys):
    for rank in range(3):
        replace(CPU, rank=rank, num_ranks=3).print(f"of rank {rank}")
    assert capsys.readouterr().out == "of rank 0\n"
