"""How many threads compute on a CPU of which other programs use some cores.

The threads of a step wait for each other at the end of each operation. Where another program holds one of their cores,
all wait for that one, and two threads may be several times slower than one; how they wait, by spinning or asleep, makes
no difference. So where cores are busy at the start, the number of threads that is fastest then is found by trying.
"""

import os
import statistics
import time
from functools import cache

import psutil
import torch

from pipeline.runtime import Runtime

MAX_BUSY = 0.5  # cores
ROUNDS, SECONDS = 5, 0.15  # of a trial
CLEARLY = 1.1  # times as fast, for fewer threads


def choose_threads(runtime: Runtime):
    """Takes the number of threads that is fastest, and says so, where other programs compute on the cores.

    On quiet cores, and where OMP_NUM_THREADS says how many, it is left alone: equal runs have equal weights, to the
    bit, only with equal numbers of threads.
    """
    threads = all_threads()
    if runtime.device.type != "cpu" or threads == 1 or "OMP_NUM_THREADS" in os.environ:
        return
    torch.set_num_threads(threads)
    busy = psutil.cpu_percent(interval=0.5) / 100 * (os.cpu_count() or 1)
    if busy <= MAX_BUSY:
        return
    speeds = measure_speeds(candidates(threads))
    fastest = max(speeds, key=lambda count: speeds[count])
    best = fastest if speeds[fastest] > CLEARLY * speeds[threads] else threads
    torch.set_num_threads(best)
    runtime.print(
        f"busy         other programs keep {busy:.1f} cores busy, which slows threads that wait for each other:"
    )
    what = f"{best} of {threads} threads {'compute' if best > 1 else 'computes'}"
    gain = f", {speeds[best] / speeds[threads]:.1f} times as fast as all" if best != threads else ", still the fastest"
    runtime.print(f"             {what}{gain}; OMP_NUM_THREADS=N python … sets another number")


@cache
def all_threads() -> int:
    """How many torch has taken by itself, as it was before a run of this process took fewer."""
    return torch.get_num_threads()


def candidates(threads: int) -> list[int]:
    """All threads, half of them, a quarter, and so on to one."""
    counts = [threads]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts


def measure_speeds(counts: list[int]) -> dict[int, float]:
    """Steps a second of a small convolution and its gradient with each number of threads: medians of alternating
    trials, since what other programs do changes."""
    with torch.random.fork_rng(devices=[]):
        convolution = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
        images = torch.rand(8, 64, 24, 24).contiguous(memory_format=torch.channels_last)
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            torch.set_num_threads(count)
            begun, steps = time.perf_counter(), 0
            while time.perf_counter() - begun < SECONDS:
                convolution(images).relu().sum().backward()
                steps += 1
            speeds[count].append(steps / (time.perf_counter() - begun))
    return {count: statistics.median(found) for count, found in speeds.items()}
