"""What tests share: strategies for views, blobs to follow, a small contest of drawn faces."""

import os
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


@pytest.fixture(scope="session")
def contest(tmp_path_factory) -> Path:
    """A contest of 80 drawn faces to train on and 12 to predict. Tests that change it copy it first."""
    from demo.contest import write_contest

    folder = tmp_path_factory.mktemp("contest")
    write_contest(folder, train=80, test=12, seed=0)
    return folder


@pytest.fixture(scope="session")
def faces68() -> Path:
    """Real photos, where they lie beside the project; tests that use them skip without."""
    folder = Path(os.environ.get("FACES68", Path(__file__).parents[2] / "shared/data/faces68"))
    if not folder.is_dir():
        pytest.skip("no real photos beside the project")
    return folder


@pytest.fixture
def drawn_gpu(monkeypatch):
    """A CUDA device whose tensors have no values, as torch's compiler traces with; it needs no GPU.

    To mix devices, to look at a value or to copy from memory that is not pinned is an error there.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from augment.effects import noise_tile_on
    from augment.overlay import masks_on

    copy, pinned = torch.Tensor.to, []

    def pin(tensor):
        pinned.append(tensor)
        return tensor

    def to(tensor, *args, **kwargs):
        copied = copy(tensor, *args, **kwargs)
        waits = not (kwargs.get("non_blocking") and any(tensor is one for one in pinned))
        assert copied.device == tensor.device or not waits, "a copy that waits"
        return copied

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
        yield torch.device("cuda")
    for made_once in (noise_tile_on, masks_on):
        made_once.cache_clear()
