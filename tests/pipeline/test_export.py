"""Exported files give the points of the network, for any number of photos."""

import json

import numpy as np
import pytest
import torch

from augment import Window, fit_photo, transform_points
from models import build_network
from pipeline.export import FORMATS, worst_difference
from pipeline.photos import read_photo
from pipeline.submission import read_submission
from tests.scripts import call, train

pytest.importorskip("onnxruntime", reason="exports need onnx, onnxscript and onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of its own old formats


@pytest.mark.parametrize("model", ["resnet18", "squeezenet1_1"])
@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_file_gives_the_points_of_the_network(name, model, tmp_path):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    network = build_network(model, rng.uniform(0, 64, (7, 2)), 64).eval()
    photos = torch.from_numpy(rng.integers(0, 256, (5, 3, 64, 64), dtype=np.uint8))
    found = FORMATS[name](network, photos[:2], tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1_000_000
    assert worst_difference(found, network, photos) < 1e-2
    assert worst_difference(lambda images: found(images) + 0.1, network, photos) > 0.05


def test_the_command_writes_and_verifies_every_file(contest, tmp_path, monkeypatch, capsys):
    from pipeline import export

    run, _ = train(tmp_path, contest, "-e", "1")
    monkeypatch.setattr("sys.argv", ["export", str(run)])
    export.main()
    assert {path.name for path in (run / "export").iterdir()} == {*FORMATS, "landmarks.json"}
    about = json.loads((run / "export/landmarks.json").read_text())
    window = Window.of(json.loads((run / "data.json").read_text())["window"], 48)
    assert window.left + window.top > 0
    assert about == {"fit": "pad", **vars(window), "points": 971}
    assert_as_predict_does(run, about, next((contest / "test/images").iterdir()), tmp_path)
    out = capsys.readouterr().out
    assert all(name in out for name in FORMATS)


def assert_as_predict_does(run, about, path, tmp_path):
    """What docs/predict.md says of landmarks.json, with the exported network, gives what predict.py gives."""
    (tmp_path / "single.json").write_text("[[]]")
    flags = ["--run", run, "--photo", path, "--output", tmp_path / "out", "--views", tmp_path / "single.json"]
    status, _, err = call("predict.py", tmp_path, *flags, "--weights", "equal")
    assert status == 0, err
    square, matrix = fit_photo(read_photo(path), about["square"], about["fit"])
    left, top, size = about["left"], about["top"], about["size"]
    image = torch.from_numpy(square[top : top + size, left : left + size].copy()).permute(2, 0, 1)[None]
    points = torch.jit.load(run / "export/landmarks.torchscript.pt")(image)[0].detach().numpy() + (left, top)
    home = transform_points(np.linalg.inv(matrix)[None], points[None])[0]
    np.testing.assert_allclose(read_submission(tmp_path / "out/points.csv")[1][0], home, atol=0.05)
