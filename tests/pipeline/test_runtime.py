"""Which processor computes, and what a user is told of it."""

import psutil
import pytest
import torch

from pipeline.runtime import print_busy


@pytest.mark.parametrize(("busy", "threads", "said"), [(75, 2, True), (75, 1, False), (5, 2, False)])
def test_busy_cores_are_said_where_this_program_would_wait_for_them(busy, threads, said, monkeypatch, capsys):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    print_busy(torch.device("cpu"))
    assert ("OMP_NUM_THREADS=1" in capsys.readouterr().out) == said
