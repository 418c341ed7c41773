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
