"""What tests share: strategies for views, blobs to follow, a small contest of drawn faces."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("project")


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_not_ignored():
    """As it is by a job in the background, and so by tests that are run as one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def contest(tmp_path_factory) -> Path:
    """A contest of 80 drawn faces to train on and 12 to predict. Tests that change it copy it first."""
    from demo.contest import write_contest

    folder = tmp_path_factory.mktemp("contest")
    write_contest(folder, train=80, test=12, seed=0)
    return folder


@pytest.fixture(scope="session")
def trained(contest, tmp_path_factory) -> Path:
    """A folder with the runs and the cache of one short training. Tests that change them copy them by `copy_run`."""
    from tests.scripts import train

    folder = tmp_path_factory.mktemp("trained")
    train(folder, contest, "-e", "1")
    return folder


@pytest.fixture
def copy_run(trained, tmp_path):
    """Copies the trained run into the test's own folder, and gives the copy."""

    def copy() -> Path:
        shutil.copytree(trained / "runs", tmp_path / "runs")
        (tmp_path / "cache").symlink_to(trained / "cache")
        return next((tmp_path / "runs").iterdir())

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
