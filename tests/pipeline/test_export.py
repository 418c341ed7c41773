"""Exported files give the points of the network, for any number of photos."""

import json

import numpy as np
import pytest
import torch

from augment import Window
from models import build_network
from pipeline.export import FORMATS, worst_difference

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
    from tests.scripts import train

    run, _ = train(tmp_path, contest, "-e", "1")
    monkeypatch.setattr("sys.argv", ["export", str(run)])
    export.main()
    assert {path.name for path in (run / "export").iterdir()} == {*FORMATS, "landmarks.json"}
    about = json.loads((run / "export/landmarks.json").read_text())
    window = Window.of(json.loads((run / "data.json").read_text())["window"], 48)
    assert about == {"fit": "pad", **vars(window), "points": 971}
    out = capsys.readouterr().out
    assert all(name in out for name in FORMATS)
