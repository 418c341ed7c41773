"""A batch's photos are the same wherever they lie; a GPU holds all of them where they fit."""

import numpy as np
import pytest
import torch

from pipeline.data import source as module
from pipeline.data.source import DeviceSource, HostSource, source_of

CPU = torch.device("cpu")
SQUARES = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("block", [1, 3 * 8 * 8 * 3, 10**9])
def test_the_device_gives_what_the_host_gives(block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    samples = np.array([7, 0, 10, 7])
    ours, host = DeviceSource.of(SQUARES, CPU).take(samples), HostSource(SQUARES, CPU).take(samples)
    assert torch.equal(ours, host)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert host.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("free", "kind"), [(2 * SQUARES.nbytes, DeviceSource), (2 * SQUARES.nbytes - 2, HostSource)])
def test_photos_lie_on_a_gpu_where_they_fit_in_half_of_its_free_memory(free, kind, monkeypatch, gpu_without_values):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    source = source_of(SQUARES, gpu_without_values)
    assert isinstance(source, kind)
    batch = source.take(np.array([3, 1]))  # an error if the host had to wait for the GPU
    assert (batch.device.type, batch.shape) == ("cuda", (2, 3, 8, 8))


def test_on_a_cpu_photos_stay_where_they_are():
    assert isinstance(source_of(SQUARES, CPU), HostSource)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_host_gives():
    gpu, samples = torch.device("cuda"), np.array([7, 0, 10, 7])
    assert torch.equal(DeviceSource.of(SQUARES, gpu).take(samples).cpu(), HostSource(SQUARES, CPU).take(samples))
