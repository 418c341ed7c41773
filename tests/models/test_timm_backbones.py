"""Backbones of timm: maps by their own names, weights that fit, one clear line where it is not installed."""

import sys
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from models import build_network, load_state
from models.backbones import as_maps, build_pyramid, check_name
from models.timm_backbones import POSITIONS, read_timm_weights, synchronise_norms
from models.weights import expected_colours, read_weights

SHAPE = np.random.default_rng(0).uniform(10, 50, (7, 2))


def test_without_timm_a_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        check_name("timm/resnet18")


@pytest.mark.parametrize("model", ["resnet18", "convnext_atto", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_heads_stand_on_the_maps_of_timm_and_its_weights_fit_them(model, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    size = {"img_size": 64} if model.startswith("vit") else {}
    source = timm.create_model(model, num_classes=10, **size)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    state = read_weights(tmp_path / "weights.pt", f"timm/{model}")
    for head in ("linear", "integral"):
        network = build_network(f"timm/{model}", SHAPE, 64, head=head)
        loaded = load_state(network, state)
        assert not loaded.missing
        assert not loaded.left_over
        points = network(images)
        assert points.shape == (2, 7, 2)
        assert (points - network.mean_shape).square().mean().sqrt() < 5
        points.sum().backward()
        assert all(parameter.grad is not None for parameter in network.head.parameters())
    _, levels, _ = build_pyramid(f"timm/{model}", size=64)
    assert [level.stride for level in levels] == ([16] if model.startswith("vit") else [4, 8, 16, 32])
    mean, _ = expected_colours(f"timm/{model}")
    assert mean == tuple(timm.get_pretrained_cfg(model).mean)


def test_a_download_that_fails_is_an_error_of_the_system(monkeypatch):
    timm = pytest.importorskip("timm")
    http, safetensors = pytest.importorskip("huggingface_hub.errors"), pytest.importorskip("safetensors")
    for error in (http.HTTPError("no route"), safetensors.SafetensorError("cut short")):
        monkeypatch.setattr(timm, "create_model", mock.Mock(side_effect=error))
        with pytest.raises(OSError, match=str(error)):
            read_timm_weights("timm/test_vit")


@pytest.mark.parametrize("model", ["timm/efficientnet_lite0", "resnet18"])
def test_synchronised_norms_compute_what_the_networks_own_do(model):
    """Some of timm's are followed by an activation that is part of them."""
    if model.startswith("timm/"):
        pytest.importorskip("timm")
    network, images = build_network(model, SHAPE, 64).eval(), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    names = network.state_dict().keys()
    with torch.no_grad():
        expected = network(images)
        synchronise_norms(network)
        assert torch.equal(network(images), expected)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert network.state_dict().keys() == names


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "hiera_tiny_224"])
def test_the_last_map_is_normalised_as_the_classifier_goes_on_with_it(model):
    pytest.importorskip("timm")
    backbone, levels, _ = build_pyramid(f"timm/{model}", size=224)
    with torch.no_grad():
        last = as_maps(backbone.eval()(torch.randn(1, 3, 224, 224)))[-1]
    assert last.shape[1] == levels[-1].channels
    if not model.startswith("hiera"):  # which normalises behind pooling
        torch.testing.assert_close(last.var(dim=1, unbiased=False), torch.ones_like(last[:, 0]), rtol=0.01, atol=0)
    cut, _, _ = build_pyramid(f"timm/{model}", size=224, deepest=16)
    assert all(torch.isfinite(level).all() for level in as_maps(cut(torch.randn(1, 3, 224, 224))))


def test_a_name_that_timm_does_not_have_is_refused_with_one_that_is_near():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="did you mean resnet18"):
        check_name("timm/resnet18x")


@pytest.mark.parametrize("model", ["test_vit", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mvitv2_tiny"])
def test_the_positions_of_a_transformer_are_resampled_as_timm_does_it(model, tmp_path):
    """Of weights for images of another size; those of a tag come at the size of the model too."""
    timm = pytest.importorskip("timm")
    path = tmp_path / "weights.pt"
    torch.save(timm.create_model(model).state_dict(), path)
    expected = timm.create_model(model, img_size=64, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    for head in ("linear", "integral"):
        network = build_network(f"timm/{model}", SHAPE, 64, head=head)
        loaded = load_state(network, read_weights(path, f"timm/{model}"))
        assert not loaded.missing
        assert not loaded.left_over
        own, theirs = network.backbone.state_dict(), expected.state_dict()
        names = [name for name in own if POSITIONS.search(name)]
        assert names
        torch.testing.assert_close([own[name] for name in names], [theirs[name] for name in names])


def test_positions_of_another_form_or_width_are_not_taken(tmp_path):
    timm = pytest.importorskip("timm")
    state = timm.create_model("test_vit").state_dict()
    torch.save(state | {"pos_embed": state["pos_embed"][:, :-2]}, tmp_path / "odd.pt")
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "other.pt")
    network = build_network("timm/test_vit", SHAPE, 64)
    assert load_state(network, read_weights(tmp_path / "odd.pt", "timm/test_vit")).missing == ["backbone.pos_embed"]
    with pytest.raises(ValueError, match="another --model"):
        load_state(network, read_weights(tmp_path / "other.pt", "timm/test_vit"))


def test_a_tag_of_weights_that_timm_does_not_have_is_refused_with_those_that_it_has():
    pytest.importorskip("timm")
    check_name("timm/resnet18.a1_in1k")
    check_name("timm/botnet50ts_256.untrained")
    with pytest.raises(ValueError, match="leave out the tag, or give one of a1_in1k, a2_in1k") as caught:
        check_name("timm/resnet18.nosuchtag")
    assert "\n" not in str(caught.value)
