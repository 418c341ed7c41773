"""What tests share: a small contest of drawn faces, a short training on it, real photos, a GPU without values.

Tests run in one process or, by pytest-xdist, in several, each with one thread: the networks here are too small for
more. What takes seconds to make is made once for all processes, by `made_once`.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the processes that tests start

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

settings.register_profile("project", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("project")


SLOW_TO_MAKE = {"contest", "tiny_contest", "faces68"}  # fixtures; what needs one of them mostly trains on it

# Begun first, in one process of the tests: what waits longest, while others go on, and all that forks. Each process of
# the tests that forks starts one to fork from, which takes seconds to import what is slow to.
FIRST = [
    *("test_torchrun.py", "test_trainer_ranks.py", "test_ranks.py"),
    "test_a_run_killed_at_several_moments_ends_as_one_that_was_not",
    "test_what_is_searched_and_found_depends_neither_on_blocks_nor_on_ranks",
    "test_of_several_processes_that_write_one_file_each_writes_a_whole_one",
    "test_two_runs_that_build_at_once_both_get_it",
    "test_two_at_once_on_one_cache_and_in_one_folder_of_runs_do_what_each_alone_does",
]


@pytest.hookimpl(tryfirst=True)  # before "-m" looks at the marks
def pytest_collection_modifyitems(items):
    import torch

    places, last = {name: place for place, name in enumerate(FIRST)}, len(FIRST)
    items.sort(key=lambda item: min(places.get(name, last) for name in (item.path.name, item.originalname)))
    for item in items:
        if not SLOW_TO_MAKE.isdisjoint(item.fixturenames):
            item.add_marker("slow")
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_not_ignored():
    """As it is by a job in the background, and so by tests that are run as one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def flip_indices_found_once():
    """They are a function of the points, most trainings here are on the same ones, and it takes a second."""
    from pipeline.data import dataset

    found: dict[bytes, np.ndarray] = {}
    find = dataset.find_flip_indices

    def find_once(points, samples):
        key = np.asarray(points[samples]).tobytes()
        if key not in found:
            found[key] = find(points, samples)
        return found[key].copy()

    with mock.patch.object(dataset, "find_flip_indices", find_once):
        yield


def made_once(name: str, make: Callable[[Path], object], tmp_path_factory) -> Path:
    """A folder that `make` fills, once for all processes of pytest-xdist: the first that needs it makes it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # a worker's folder lies in one that is common to all of them
    folder = folder / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def contest(tmp_path_factory) -> Path:
    """A contest of 80 drawn faces to train on and 12 to predict. Tests that change it copy it first."""
    from demo.contest import write_contest

    return made_once("contest", lambda folder: write_contest(folder, train=80, test=12, seed=0), tmp_path_factory)


@pytest.fixture(scope="session")
def trained(contest, tmp_path_factory) -> Path:
    """The run of one short training, as a user starts it, beside what it has printed, in out.txt. Tests that change it
    copy it by `copy_run`."""
    from tests.scripts import SMALL, call_process

    def make(folder):
        status, out, err = call_process("hack_train.py", folder, "-n", "x", "-d", contest, *SMALL, "-e", "1")
        assert status == 0, err
        (folder / "out.txt").write_text(out)

    folder = made_once("trained", make, tmp_path_factory)
    return next((folder / "runs").iterdir())


@pytest.fixture
def copy_run(trained, tmp_path):
    """Copies the trained run into the test's own folder, and gives the copy."""

    def copy() -> Path:
        return shutil.copytree(trained, tmp_path / "runs" / trained.name)

    return copy


@pytest.fixture(scope="session")
def faces68() -> Path:
    """Real photos, where they lie beside the project; tests that use them skip without."""
    folder = Path(os.environ.get("FACES68", Path(__file__).parents[2] / "shared/data/faces68"))
    if not folder.is_dir():
        pytest.skip("no real photos beside the project")
    return folder


@pytest.fixture
def gpu_without_values(monkeypatch):
    """A CUDA device whose tensors have no values, as torch's compiler traces with; it needs no GPU.

    What would wait on a GPU is an error there: looking at a value, an operation on both devices such as an index that
    lies on the CPU, and every copy from one to the other but one from pinned memory.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from augment.effects import noise_tile_on
    from augment.overlay import masks_on

    pinned = []

    class NothingWaits(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.ndim]
            assert len({tensor.device.type for tensor in tensors}) <= 1, f"{function} on two devices"
            result = function(*args, **kwargs)
            if function is torch.ops.aten._to_copy.default and result.device != args[0].device:
                in_time = kwargs.get("non_blocking") and any(args[0] is tensor for tensor in pinned)
                assert in_time, "a copy that waits"
            return result

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    without_cudnn = torch.backends.cudnn.flags(enabled=False)  # its operations cannot be traced so
    with FakeTensorMode(allow_non_fake_inputs=True), NothingWaits(), without_cudnn:
        yield torch.device("cuda")
    for made_once in (noise_tile_on, masks_on):
        made_once.cache_clear()
