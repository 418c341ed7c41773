"""Starting from weights: what fits comes over, what does not is named, what is no weights is refused."""

import pickle

import numpy as np
import pytest
import torch
import torchvision

from models import build_network, load_state, read_weights

SHAPE = np.zeros((5, 2))


@pytest.fixture
def torchvision_file(tmp_path):
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_a_torchvision_state_dict_fills_the_backbone_but_not_the_head(torchvision_file):
    network = build_network("resnet18", SHAPE, 64)
    head = network.head.weight.clone()
    state = read_weights(torchvision_file)
    loaded = load_state(network, state)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]) or name.startswith("fc.")
    assert torch.equal(network.head.weight, head)
    assert loaded.missing == ["backbone.fc.bias", "backbone.fc.weight", "mean_shape"]
    assert loaded.left_over == ["backbone.fc.bias", "backbone.fc.weight"]


def test_a_checkpoint_of_a_run_fills_everything(tmp_path):
    one, other = build_network("resnet18", SHAPE, 64), build_network("resnet18", SHAPE + 3, 64)
    torch.save({"network": one.state_dict(), "epoch": 3}, tmp_path / "best.pt")
    loaded = load_state(other, read_weights(tmp_path / "best.pt"))
    assert (loaded.missing, loaded.left_over) == ([], [])
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_another_number_of_points_keeps_the_backbone(tmp_path):
    one, other = build_network("resnet18", SHAPE, 64), build_network("resnet18", np.zeros((9, 2)), 64)
    loaded = load_state(other, one.state_dict())
    assert loaded.left_over == ["backbone.fc.bias", "backbone.fc.weight", "mean_shape"]
    assert torch.equal(one.backbone.conv1.weight, other.backbone.conv1.weight)


def test_weights_of_another_network_are_refused(torchvision_file):
    with pytest.raises(ValueError, match="another --model"):
        load_state(build_network("squeezenet1_1", SHAPE, 64), read_weights(torchvision_file))


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_weights_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt"):
        read_weights(tmp_path / "x.pt")


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in a file of weights was run",))

    torch.save({"network": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt"):
        read_weights(tmp_path / "trap.pt")
