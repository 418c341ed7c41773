"""Starting from weights: what fits comes over and sees what it expects, what does not is named, the rest is refused."""

import functools
import pickle
from collections import OrderedDict
from copy import deepcopy

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models import get_model, get_model_weights, vision_transformer
from torchvision.models._api import WeightsEnum

from models import build_network, expected_colours, load_state, network_names, read_imagenet_weights, read_weights
from models.landmarks import BehindHead, last_layer
from models.without_values import without_values
from tests.models.test_landmarks import FAMILIES

SHAPE = np.zeros((5, 2))

# Those whose files or builders have something of their own: a switch of the colours and auxiliary classifiers, names
# of older versions, a version that must be known, another size of image. Two that have not.
SPECIAL = {"inception_v3": 80, "googlenet": 64, "densenet121": 64, "mnasnet0_5": 64, "vit_b_32": 224, "resnet18": 64,
           "squeezenet1_1": 64}  # fmt: skip


@pytest.fixture(autouse=True)
def small_vision_transformer(monkeypatch):
    """vit_b_32 with a thousandth of its parameters, wherever torchvision builds it."""
    build = vision_transformer._vision_transformer
    small = {"patch_size": 32, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96}
    monkeypatch.setattr(vision_transformer, "_vision_transformer", lambda **named: build(**{**named, **small}))


@functools.cache
def as_released(model) -> OrderedDict:
    """Random weights of a classifier in the form of torchvision's files, which have names of older versions. Nothing
    changes them."""
    torch.manual_seed(3)
    init = {"init_weights": True} if model in ("inception_v3", "googlenet") else {}
    backbone = get_model(model, weights=None, **init).eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train().momentum = 1.0
    with torch.no_grad():
        backbone(torch.randn(4, 3, SPECIAL[model], SPECIAL[model]))  # statistics with which values stay small
        torch.nn.init.normal_(last_layer(backbone)[1].weight, std=0.1)
    state = backbone.state_dict()
    old = {"densenet121": [("norm1.", "norm.1."), ("norm2.", "norm.2."), ("conv1.", "conv.1."), ("conv2.", "conv.2.")],
           "vit_b_32": [("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")]}  # fmt: skip
    names = {name: name for name in state}
    for new, older in old.get(model, []):
        names = {name: shown.replace(new, older) if "layer" in name else shown for name, shown in names.items()}
    if model in old:  # the files are older than the versions of their layers, and than counts of batches
        return OrderedDict((names[name], state[name]) for name in names if "num_batches_tracked" not in name)
    return state


def release(monkeypatch, state):
    """Torchvision finds `state` where it would download weights."""
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: deepcopy(state))


@pytest.mark.parametrize(
    ("model", "from_file"),
    [
        *((model, False) for model in SPECIAL),
        *((model, True) for model in ("inception_v3", "densenet121", "vit_b_32")),
    ],
)
def test_a_network_computes_what_torchvision_computes_with_the_same_weights(model, from_file, monkeypatch, tmp_path):
    """Of 500 points, so that its head can have the weights of the classifier of 1,000 kinds of things."""
    size = SPECIAL[model]
    state = as_released(model)
    release(monkeypatch, state)
    theirs = get_model(model, weights="DEFAULT").eval()
    network = build_network(model, np.zeros((500, 2)), size).eval()
    if from_file:
        torch.save(state, tmp_path / "weights.pth")
        loaded = load_state(network, read_weights(tmp_path / "weights.pth", model))
    else:
        loaded = load_state(network, read_imagenet_weights(model))
    assert loaded.missing == []
    assert loaded.left_over == []
    assert loaded.missing_of_head
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    preset = get_model_weights(model).DEFAULT.transforms()
    normalised = torchvision.transforms.functional.normalize(images / 255, preset.mean, preset.std)
    with torch.no_grad():
        network.head.load_state_dict(last_layer(theirs)[1].state_dict())
        if model == "squeezenet1_1":
            theirs.classifier[2] = torch.nn.Identity()
        expected = theirs(normalised)
        found = network(images).flatten(1) / network.decoder.unit
    assert (found - expected).abs().max() < 1e-3 * expected.std()


def test_the_auxiliary_classifiers_of_a_file_are_no_part_of_the_backbone():
    """Nor where that ends so early that they would be a large part of the file."""
    state = {f"backbone.{name}": tensor for name, tensor in as_released("googlenet").items()}
    network = build_network("googlenet", SHAPE, 64, head="integral", deepest_stride=8)
    loaded = load_state(network, state)
    assert not loaded.missing
    assert not loaded.left_over


def test_colours_are_what_the_preset_of_each_backbone_says(monkeypatch):
    """And so for a file of whatever entry, since all entries of a backbone that classify say the same."""
    release(monkeypatch, {})
    for model in network_names():
        entries = [entry for entry in get_model_weights(model) if entry.meta["categories"]]
        (preset,) = {(tuple(entry.transforms().mean), tuple(entry.transforms().std)) for entry in entries}
        switched = model in ("inception_v3", "googlenet")  # what makes of their preset these is tested above
        assert expected_colours(model) == (((0.5,) * 3, (0.5,) * 3) if switched else preset), model
        state = read_imagenet_weights(model)
        torch.testing.assert_close(state["colour_mean"].flatten() / 255, torch.tensor(expected_colours(model)[0]))
        torch.testing.assert_close(state["colour_std"].flatten() / 255, torch.tensor(expected_colours(model)[1]))
    assert expected_colours("efficientnet_v2_l")[0] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("model", FAMILIES)
def test_torchvision_builds_no_other_network_when_it_loads_weights_itself(model, monkeypatch):
    """But for what is known: `transform_input`, which is in the colours, and the size of the image."""
    release(monkeypatch, {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    size = {"vit_b_32": 224, "maxvit_t": 224}.get(model, FAMILIES[model])
    with without_values():
        theirs = get_model(model, weights="DEFAULT")
        network = build_network(model, SHAPE, size)
    others = {name: module for name, module in theirs.named_modules() if not name.startswith("AuxLogits")}
    ours = dict(network.backbone.named_modules())
    assert ours.keys() == others.keys()
    for name, module in ours.items():
        if module is not network.head and not isinstance(module, BehindHead):
            kind, values = plain(others[name])
            known = {"momentum": 0.1} if model.startswith("mnasnet") and kind is torch.nn.BatchNorm2d else {}
            assert plain(module) == (kind, values | known), name
    assert getattr(theirs, "transform_input", False) == (model in ("inception_v3", "googlenet"))


def plain(module):
    """The type of a module and the values that it computes by, but for its tensors and what is known to differ."""
    values = {
        name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str | tuple)
    }
    differs = ("transform_input", "aux_logits", "num_classes")
    return type(module), {name: value for name, value in values.items() if name not in differs}


@pytest.mark.parametrize("head", ["linear", "integral"])
def test_the_places_of_a_vision_transformer_are_resampled_for_images_of_another_size(head, tmp_path):
    state = as_released("vit_b_32")
    torch.save(state, tmp_path / "vit.pth")
    network = build_network("vit_b_32", SHAPE, 96, head=head)
    assert load_state(network, read_weights(tmp_path / "vit.pth", "vit_b_32")).missing == []
    positions = network.backbone.get_parameter("encoder.pos_embedding")
    original = state["encoder.pos_embedding"]
    torch.testing.assert_close(positions[:, 0], original[:, 0])
    corners = [original[:, 1 + index] for index in (0, 6, 42, 48)]
    torch.testing.assert_close([positions[:, 1 + index] for index in (0, 2, 6, 8)], corners, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(as_released("resnet18"), path)
    return path


def test_a_torchvision_state_dict_fills_the_backbone_but_not_the_head(torchvision_file):
    """The head of a contest of 500 points has the shape of the classifier, which knows nothing of points."""
    for num_points in (5, 500):
        network = build_network("resnet18", np.zeros((num_points, 2)), 64)
        head = network.head.weight.clone()
        state = torch.load(torchvision_file)
        loaded = load_state(network, read_weights(torchvision_file, "resnet18"))
        for name, tensor in network.backbone.state_dict().items():
            assert name.startswith("fc.") or torch.equal(tensor, state[name])
        assert torch.equal(network.head.weight, head)
        assert not network.head.bias.any()
        assert loaded.missing_of_head
        assert (loaded.missing, loaded.left_over) == ([], [])
        assert loaded.num_loaded == len(state) - 2


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_that_a_wrapper_has_put_before_the_networks_own_are_no_part_of_them(wrapper, tmp_path):
    state = as_released("densenet121")  # of an older version, whose file says so
    wrapped = OrderedDict((wrapper + name, tensor) for name, tensor in state.items())
    torch.save(wrapped, tmp_path / "wrapped.pth")
    network = build_network("densenet121", SHAPE, 64)
    loaded = load_state(network, read_weights(tmp_path / "wrapped.pth", "densenet121"))
    assert (loaded.missing, loaded.left_over) == ([], [])


def test_a_checkpoint_of_a_run_fills_everything_and_its_colours_travel_with_it(tmp_path):
    one, other = build_network("resnet18", SHAPE, 64), build_network("resnet18", SHAPE + 3, 64)
    one.colour_mean.fill_(127.5)
    torch.save({"network": one.state_dict(), "epoch": 3}, tmp_path / "best.pt")
    loaded = load_state(other, read_weights(tmp_path / "best.pt", "resnet18"))
    assert (loaded.missing_of_head, loaded.missing, loaded.left_over) == ([], [], [])
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("num_points", [5, 9])
def test_a_checkpoint_of_an_earlier_version_brings_the_colours_that_it_was_trained_with(num_points, tmp_path):
    one, other = build_network("resnet18", np.zeros((num_points, 2)), 64), build_network("resnet18", SHAPE, 64)
    state = {name: tensor for name, tensor in one.state_dict().items() if not name.startswith("colour")}
    torch.save({"network": state}, tmp_path / "best.pt")
    other.colour_mean.fill_(127.5)
    loaded = load_state(other, read_weights(tmp_path / "best.pt", "resnet18"))
    assert torch.equal(other.colour_mean, one.colour_mean)
    assert bool(loaded.missing_of_head) == (num_points != 5)


def test_another_number_of_points_keeps_the_backbone():
    one, other = build_network("resnet18", SHAPE, 64), build_network("resnet18", np.ones((9, 2)), 64)
    loaded = load_state(other, one.state_dict())
    assert loaded.missing_of_head
    assert (loaded.missing, loaded.left_over) == ([], [])
    assert torch.equal(one.backbone.conv1.weight, other.backbone.conv1.weight)
    assert torch.equal(other.mean_shape, torch.ones(9, 2))


@pytest.mark.parametrize("model", ["squeezenet1_1", "resnet34", "resnet50", "wide_resnet50_2", "vit_b_32"])
def test_weights_of_another_network_are_refused_even_where_some_of_them_fit(torchvision_file, model):
    """Of a ResNet34 more than half of the tensors have a namesake of the same shape in a ResNet18."""
    network = build_network(model, SHAPE, 64)
    with pytest.raises(ValueError, match="another --model"):
        load_state(network, read_weights(torchvision_file, model))
    if model == "resnet34":
        with pytest.raises(ValueError, match="another --model"):
            load_state(build_network("resnet18", SHAPE, 64), network.state_dict())


def test_a_vision_transformer_of_another_width_is_refused(tmp_path):
    """Its tensors are renamed while they load, so that their shapes are known late."""
    state = as_released("vit_b_32")
    narrow = OrderedDict(
        (name, tensor[..., :-1] if "linear_2.weight" in name else tensor) for name, tensor in state.items()
    )
    torch.save(narrow, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"another --model: .*mlp\.3\.weight"):
        load_state(build_network("vit_b_32", SHAPE, 64), read_weights(tmp_path / "vit.pth", "vit_b_32"))


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_weights_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt"):
        read_weights(tmp_path / "x.pt", "resnet18")


@pytest.mark.parametrize("content", [[], {}, {"network": []}, {"network": {"a": 1}}, {"network": {1: torch.ones(1)}}])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds neither"):
        read_weights(tmp_path / "x.pt", "resnet18")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_with_other_bytes_is_read_as_it_was_or_refused_by_its_name(tmp_path, new_format):
    """The old format has no checksum: there, another number is read as it stands."""
    path = tmp_path / "x.pt"
    torch.save({"network": {"mean_shape": torch.ones(2, 2)}}, path, _use_new_zipfile_serialization=new_format)
    whole = path.read_bytes()
    random, num_read = np.random.default_rng(0), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for offset in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[offset] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            found = read_weights(path, "resnet18")
        except ValueError as error:
            assert "x.pt" in str(error)  # noqa: PT017, some of them are read
        except OSError:
            continue  # a place before the start of the file is looked for; who asks for weights names the file
        else:
            num_read += 1
            if new_format:
                assert torch.equal(found["mean_shape"], torch.ones(2, 2))
            else:
                assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    assert 10 < num_read < 390


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in a file of weights was run",))

    torch.save({"network": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt"):
        read_weights(tmp_path / "trap.pt", "resnet18")
