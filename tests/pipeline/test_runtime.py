"""Which processor computes, and what a user is told of it."""

import os
import platform
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from pipeline.ranks import Ranks
from pipeline.runtime import Runtime, choose_device, compute_deterministically

CPU = Runtime(torch.device("cpu"), "fp32")


def test_only_the_main_rank_prints(capsys):
    for rank in range(3):
        replace(CPU, ranks=Ranks(rank, 3)).print(f"of rank {rank}")
    assert capsys.readouterr().out == "of rank 0\n"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_deterministic_algorithms_are_asked_for_on_a_gpu_alone(device, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        compute_deterministically(torch.device(device))
        assert torch.are_deterministic_algorithms_enabled() == (device == "cuda")
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if device == "cuda" else None)
        assert torch.backends.cudnn.benchmark == (device == "cpu")
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_convolutions_on_a_gpu_are_of_float32_unless_they_are_of_half_of_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert choose_device(gpu=True).type == "cuda"
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_tensors_of_a_step_do_not_fetch_their_memory_from_the_system_again():
    program = """
import resource, torch
from pipeline.runtime import choose_device
choose_device(gpu=False)
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(2**21) for _ in range(16)]  # 8 MB each
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000, "10 steps of 128 MB are 330,000 pages"
