"""ONNX Runtime predicts what torch does, from a file that is kept and exported anew where it is damaged."""

import numpy as np
import pandas as pd
import pytest
import torch

from models import build_network
from pipeline.errors import UserError
from pipeline.inference import onnx_network
from pipeline.inference.onnx_network import check_installed, through_onnx
from pipeline.inference.options import PredictOptions
from tests.scripts import call

SIZE = 48
needs_onnx = pytest.mark.skipif(
    not all(map(onnx_network.find_spec, onnx_network.PACKAGES)), reason="needs onnx, onnxscript and onnxruntime"
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    shape = np.random.default_rng(0).uniform(0, SIZE, (7, 2))
    network = build_network("resnet18", shape, SIZE, head="integral", deepest_stride=16, with_scale=True).eval()
    network.start_from(np.random.default_rng(2).normal(size=(14, 7, 2)))
    with torch.no_grad():  # as if it had been trained, on labels that lie aside
        network.label_shift.copy_(torch.tensor([0.5, -1.0]))
        network.decoder.points.correction.linear.weight.normal_()
    return network


@pytest.fixture(scope="module")
def exported(network):
    """The network's ONNX file."""
    return onnx_network._exported(network, SIZE)


def images(count):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8))


@needs_onnx
@pytest.mark.slow
def test_onnx_predicts_the_points_and_scales_of_torch_and_keeps_the_file(
    network, exported, tmp_path, monkeypatch, capsys
):
    exports = []
    monkeypatch.setattr(onnx_network, "_exported", lambda *_: exports.append(exported) or exported)
    found = through_onnx(network, size=SIZE, cache=tmp_path, key=("a",))
    for count in (1, 3, 20):
        with torch.no_grad():
            own, other = network.predict(images(count)), found.predict(images(count))
        torch.testing.assert_close(other.points, own.points, rtol=0, atol=1e-3)
        torch.testing.assert_close(other.log_scale, own.log_scale, rtol=0, atol=1e-3)
    (path,) = tmp_path.glob("*.sealed")
    content = path.read_bytes()
    through_onnx(network, size=SIZE, cache=tmp_path, key=("a",))
    assert len(exports) == 1
    through_onnx(network, size=SIZE, cache=tmp_path, key=("b",))
    assert len(exports) == 2
    path.write_bytes(content[:1000] + b"spoiled" + content[1007:])
    found = through_onnx(network, size=SIZE, cache=tmp_path, key=("a",))
    assert "is damaged" in capsys.readouterr().out
    assert len(exports) == 3
    with torch.no_grad():
        torch.testing.assert_close(
            found.predict(images(3)).points, network.predict(images(3)).points, rtol=0, atol=1e-3
        )
    torch.testing.assert_close(found.shift, network.shift)


@needs_onnx
@pytest.mark.slow
def test_a_network_that_onnx_computes_otherwise_is_refused(exported, tmp_path, monkeypatch):
    other = build_network(
        "resnet18", np.full((7, 2), 3.0), SIZE, head="integral", deepest_stride=16, with_scale=True
    ).eval()
    monkeypatch.setattr(onnx_network, "export_onnx", lambda _, example, path, **named: path.write_bytes(exported))
    with pytest.raises(UserError, match="px off those of torch"):
        through_onnx(other, size=SIZE, cache=tmp_path, key=("a",))
    assert not list(tmp_path.glob("*.sealed"))


def test_what_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(onnx_network, "find_spec", lambda name: None if name == "onnxruntime" else True)
    with pytest.raises(UserError, match="needs onnxruntime: pip install onnx onnxscript onnxruntime"):
        check_installed()


def test_onnx_is_refused_on_a_gpu():
    with pytest.raises(UserError, match="leave out --gpu"):
        PredictOptions(gpu=True, backend="onnx").check()


@needs_onnx
@pytest.mark.slow
def test_predict_gives_the_submission_of_torch(copy_run, tmp_path, monkeypatch):
    """In float32, which is what ONNX Runtime computes in, and to the submission's two decimals."""
    monkeypatch.setattr("pipeline.inference.member.choose_precision", lambda *_: "fp32")
    run, tables = copy_run(), {}
    (tmp_path / "views.json").write_text('[[], [{"MirrorAugmenter": {"probability": 1}}]]')
    for backend in ("torch", "onnx"):
        path, flags = tmp_path / f"{backend}.csv", ["--weights", "equal", "--backend", backend]
        flags = [*flags, "--views", tmp_path / "views.json"]
        status, out, err = call("predict.py", tmp_path, "--run", run, "--output", path, *flags)
        assert status == 0, err
        assert ("ONNX Runtime" in out) == (backend == "onnx")
        tables[backend] = pd.read_csv(path, index_col=0)
    pd.testing.assert_frame_equal(tables["onnx"], tables["torch"], rtol=0, atol=0.011)
